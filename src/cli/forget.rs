//! `postkey forget`: removes an account, and revokes its authorization where possible.

use super::accounts;
use super::admin::AdminClient;
use super::terminal::{Input, complain, say};
use crate::broker::Withdrawal;
use crate::config::Config;
use crate::control::ControlRequest;
use crate::exit::Failed;

/// Forgets an account. With `revoke` it asks for an app password, so that sealed tokens can be revoked too.
pub async fn run(config: &Config, address: &str, revoke: bool) -> Result<(), Failed> {
    let address = config.address_of(address);
    let admin = AdminClient::connect(config).await?;
    if revoke {
        accounts::find(config, &admin, &address).await?;
    }
    let password = match revoke {
        true => Some(Input::new().password(&format!("An app password of {address}: ")).await?),
        false => None,
    };
    let withdrawal: Withdrawal = admin.ask(ControlRequest::Forget { address: address.clone(), password }).await?;
    say(format_args!("{address} has been removed from this machine."));
    let settings = "revoke it in your account settings there";
    match withdrawal {
        Withdrawal::Done => say("The provider has revoked its authorization."),
        Withdrawal::Unsupported => say(format_args!(
            "The provider still holds the authorization, because it offers no revocation endpoint; {settings}."
        )),
        Withdrawal::Sealed => say(format_args!(
            "The provider still holds the authorization, because `--revoke` was not given, and only an app password \
             decrypts the tokens; {settings}."
        )),
        Withdrawal::Failed(why) => {
            complain(format_args!("the provider still holds the authorization: {why}; {settings}"))
        }
    }
    Ok(())
}
