//! `postkey test`: logs in to the provider with each protocol.

use super::admin::AdminClient;
use super::terminal::{Input, say};
use crate::config::Config;
use crate::control::{ControlRequest, LoginTest};
use crate::exit::{Exit, Failed};

pub async fn run(config: &Config, address: &str, trace_dialogue: bool) -> Result<(), Failed> {
    let admin = AdminClient::connect(config).await?;
    let address = config.address_of(address);
    let owner = config.owner_of(&address);
    let password = Input::new().password(&format!("An app password of {owner}: ")).await?;
    if owner != address {
        say(format_args!("{address} uses the authorization of {owner}:"));
    }
    let tests: Vec<LoginTest> = admin.ask(ControlRequest::Test { address, password }).await?;
    report(&tests, trace_dialogue)
}

/// Shows each server's answer, and the trace of the dialogue if requested. Fails only if no server accepted the login.
pub fn report(tests: &[LoginTest], trace_dialogue: bool) -> Result<(), Failed> {
    for LoginTest { protocol, server, user, refused, dialogue } in tests {
        let user = user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        match refused {
            None => say(format_args!("  {protocol:<5} {server}{user}  ok")),
            Some(said) => say(format_args!("  {protocol:<5} {server}{user}  refused: {said}")),
        }
        for line in dialogue.iter().filter(|_| trace_dialogue) {
            say(format_args!("        {line}"));
        }
    }
    match tests.iter().any(|test| test.refused.is_none()) {
        true => Ok(()),
        false => Err(Failed::new(Exit::Unavailable, "none of the provider's servers accepted the login")),
    }
}
