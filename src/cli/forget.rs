//! `postkey forget`.

use super::hand::Hand;
use super::terminal::{Input, complain, say};
use crate::broker::Withdrawal;
use crate::config::Config;
use crate::control::{Carried, Request};
use crate::exit::Failed;

/// Forgets an account. `revoke` asks for an app password, so that sealed tokens can be revoked too.
pub async fn run(config: &Config, address: &str, revoke: bool) -> Result<(), Failed> {
    let address = config.address_of(address);
    let hand = Hand::reach(config).await?;
    let password = match revoke {
        true => Some(Carried(Input::new().password(&format!("An app password of {address}: ")).await?)),
        false => None,
    };
    let withdrawal = hand.ask(Request::Forget { address: address.clone(), password }).await?.forgotten()?;
    say(format_args!("{address} is forgotten here."));
    let stands = "at the provider the authorization still stands";
    let settings = "withdraw it in the account's settings there";
    match withdrawal {
        Withdrawal::Done => say("At the provider the authorization is withdrawn."),
        Withdrawal::Unsupported => say(format_args!("But {stands}, for it has no way for a program: {settings}.")),
        Withdrawal::Sealed => say(format_args!(
            "But {stands}, for its tokens were sealed, and --revoke, which asks for an app password, was not given: {settings}."
        )),
        Withdrawal::Failed(why) => complain(format_args!("{stands}: {why}; {settings}")),
    }
    Ok(())
}
