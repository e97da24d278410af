//! `postkey forget`.

use super::hand::Hand;
use super::terminal::say;
use crate::config::Config;
use crate::control::Request;
use crate::exit::Failed;

pub async fn run(config: &Config, address: &str) -> Result<(), Failed> {
    let address = config.address_of(address);
    Hand::reach(config).await?.ask(Request::Forget { address: address.clone() }).await?;
    say(format_args!(
        "{address} is forgotten here. At the provider, the authorization can be withdrawn in the account's settings."
    ));
    Ok(())
}
