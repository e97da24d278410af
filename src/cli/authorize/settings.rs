//! Shows the settings for a mail program.

use super::super::password::show;
use super::super::settings::listening;
use super::super::terminal::say;
use crate::address::Address;
use crate::authorization::Plan;
use crate::config::Config;
use crate::control::Status;
use crate::protocol::Security;
use crate::vault::password::Password;

/// Shows the settings, with the app password only for a new account.
pub fn show_settings(plan: &Plan, config: &Config, status: &Status, first: Option<&Password>) {
    match first {
        Some(password) => {
            say("\nEnter these settings in your mail program. The password is not shown again:\n");
            say(format_args!("  user name  {}", plan.address));
            match password.is_generated() {
                true => show(password),
                false => say("  password   the one you chose"),
            }
        }
        None => {
            say("\nMail programs keep their app passwords:\n");
            say(format_args!("  user name  {}", plan.address));
        }
    }
    for listening in &listening(config, status) {
        let (protocol, security) = (listening.protocol, described(listening.security));
        match &listening.address {
            Address::Tcp(address) => {
                say(format_args!("  {protocol:<10} {} port {}, {security}", address.ip(), address.port()));
            }
            Address::Unix(path) => say(format_args!("  {protocol:<10} Unix socket {}, {security}", path.display())),
        }
    }
    if status.listeners.is_empty() {
        say("\nNo daemon is running yet; start it with `postkey`.");
    }
}

/// A listener's security, as mail programs call it.
fn described(security: Security) -> &'static str {
    match security {
        Security::Tls => "SSL/TLS",
        Security::StartTls => "STARTTLS",
        Security::Clear => "no encryption, normal password",
    }
}
