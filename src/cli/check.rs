//! `postkey check`: the configuration has been read by now, so it has no mistake.

use super::terminal::{complain, say};
use crate::config::Config;
use crate::exit::Failed;

pub fn run(config: &Config) -> Result<(), Failed> {
    say("The configuration is right.");
    for listener in &config.listeners {
        for address in &listener.addresses {
            say(format_args!("  {:<5} {address} security {}", listener.protocol.to_string(), listener.security.name()));
        }
    }
    config.warnings.iter().for_each(complain);
    say(format_args!("  vault {}", config.state_dir.display()));
    Ok(())
}
