//! `postkey test`: logs in to the provider with each protocol.

use super::accounts;
use super::admin::AdminClient;
use super::terminal::{Input, say};
use crate::config::Config;
use crate::control::{ControlRequest, LoginTest};
use crate::exit::{Exit, Failed};

pub async fn run(config: &Config, address: &str, trace_dialogue: bool) -> Result<(), Failed> {
    let admin = AdminClient::connect(config).await?;
    let address = config.address_of(address);
    accounts::find(config, &admin, &address).await?;
    let owner = config.owner_of(&address);
    let password = Input::new().password(&format!("An app password of {owner}: ")).await?;
    if owner != address {
        say(format_args!("{address} uses the authorization of {owner}:"));
    }
    let tests: Vec<LoginTest> = admin.ask(ControlRequest::Test { address, password }).await?;
    report(&tests, trace_dialogue);
    let refusing = tests.iter().filter(|test| test.refused.is_some());
    let refusing: Vec<String> = refusing.map(|test| test.protocol.to_string()).collect();
    match refusing.is_empty() {
        true => Ok(()),
        false => {
            Err(Failed::new(Exit::Unavailable, format!("no login by {}; the lines above say why", refusing.join(", "))))
        }
    }
}

/// Shows each server's answer, and the trace of the dialogue if requested.
pub fn report(tests: &[LoginTest], trace_dialogue: bool) {
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
}
