//! `postkey test`: the real login on each protocol.

use super::hand::Hand;
use super::terminal::{Input, say};
use crate::config::Config;
use crate::control::{Carried, Probe, Request};
use crate::exit::{Exit, Failed};

pub async fn run(config: &Config, address: &str) -> Result<(), Failed> {
    let hand = Hand::reach(config).await?;
    let address = address.to_lowercase();
    let password = Input::new().password(&format!("An app password of {address}: ")).await?;
    report(&hand.ask(Request::Test { address, password: Carried(password) }).await?.tested()?)
}

/// Says what each server answered. A failure only if none of them let us in.
pub fn report(probes: &[Probe]) -> Result<(), Failed> {
    for Probe { protocol, server, refused } in probes {
        let protocol = protocol.to_uppercase();
        match refused {
            None => say(format_args!("  {protocol:<5} {server}  ok")),
            Some(said) => say(format_args!("  {protocol:<5} {server}  refused: {said}")),
        }
    }
    if probes.iter().any(|probe| probe.refused.is_none()) {
        Ok(())
    } else {
        Err(Failed::new(Exit::Unavailable, "no server of the provider let this account in"))
    }
}
