//! `postkey test`: the real login on each protocol.

use super::hand::Hand;
use super::terminal::{Input, say};
use crate::config::Config;
use crate::control::{Carried, Probe, Request};
use crate::exit::{Exit, Failed};

pub async fn run(config: &Config, address: &str, trace_dialogue: bool) -> Result<(), Failed> {
    let hand = Hand::reach(config).await?;
    let address = config.address_of(address);
    let owner = config.owner_of(&address);
    let password = Input::new().password(&format!("An app password of {owner}: ")).await?;
    if owner != address {
        say(format_args!("{address} is opened with the authorization of {owner}:"));
    }
    let probes = hand.ask(Request::Test { address, password: Carried(password) }).await?.tested()?;
    report(&probes, trace_dialogue)
}

/// Says what each server answered, and the trace of how it came to that if it is wanted. A failure only if none of them
/// let us in.
pub fn report(probes: &[Probe], trace_dialogue: bool) -> Result<(), Failed> {
    for Probe { protocol, server, user, refused, dialogue } in probes {
        let protocol = protocol.to_uppercase();
        let user = user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        match refused {
            None => say(format_args!("  {protocol:<5} {server}{user}  ok")),
            Some(said) => say(format_args!("  {protocol:<5} {server}{user}  refused: {said}")),
        }
        for line in dialogue.iter().filter(|_| trace_dialogue) {
            say(format_args!("        {line}"));
        }
    }
    if probes.iter().any(|probe| probe.refused.is_none()) {
        Ok(())
    } else {
        Err(Failed::new(Exit::Unavailable, "no server of the provider let this account in"))
    }
}
