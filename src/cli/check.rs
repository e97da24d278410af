//! `postkey check`, and reading the configuration for every other command.

use std::path::Path;

use super::terminal::{complain, say};
use crate::certificates::{Machine, lacking};
use crate::config::Config;
use crate::config::host_name::HostName;
use crate::exit::{Exit, Failed};

/// Shows the configuration. Reading it has already reported every mistake.
pub fn run(config: &Config) -> Result<(), Failed> {
    say("Configuration OK.");
    for listener in &config.listeners {
        for address in &listener.addresses {
            say(format_args!("  {:<5} {address} security {}", listener.protocol.to_string(), listener.security.name()));
        }
    }
    if config.has_own_certificate() {
        let names = listing(&Machine::here().names(&config.listeners));
        say(format_args!("  certificate by postkey's own authority, for {names}"));
    }
    config.warnings.iter().for_each(complain);
    let lacking = lacking(config);
    if !lacking.is_empty() {
        complain(format_args!(
            "the authority in {} may not sign for {}; for another one, which every device has to import, remove its folder",
            config.state_dir.join("authority").display(),
            listing(&lacking)
        ));
    }
    say(format_args!("  vault {}", config.state_dir.display()));
    Ok(())
}

fn listing(names: &[HostName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Reads the configuration. Fails with all its mistakes together.
pub fn load(file: Option<&Path>) -> Result<Config, Failed> {
    Config::load(file).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Failed::new(Exit::Config, lines.join("\n"))
    })
}
