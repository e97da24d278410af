//! `postkey check`, and reading the configuration for every other command.

use std::path::Path;

use super::terminal::{complain, say};
use crate::config::Config;
use crate::exit::{Exit, Failed};

/// Shows the configuration. Reading it has already reported every mistake.
pub fn run(config: &Config) -> Result<(), Failed> {
    say("Configuration OK.");
    for listener in &config.listeners {
        for address in &listener.addresses {
            say(format_args!("  {:<5} {address} security {}", listener.protocol.to_string(), listener.security.name()));
        }
    }
    config.warnings.iter().for_each(complain);
    say(format_args!("  vault {}", config.state_dir.display()));
    Ok(())
}

/// Reads the configuration. Fails with all its mistakes together.
pub fn load(file: Option<&Path>) -> Result<Config, Failed> {
    Config::load(file).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Failed::new(Exit::Config, lines.join("\n"))
    })
}
