//! What to type into a mail program.

use super::super::password::show;
use super::super::terminal::say;
use super::plan::Plan;
use crate::address::Address;
use crate::config::{Config, Listener};
use crate::control::{Listening, Status};
use crate::vault::password::Password;

/// Shows it; the app password only where the account is new.
pub fn show_settings(plan: &Plan, config: &Config, status: &Status, first: Option<&Password>) {
    match first {
        Some(password) => {
            say("\nType this into your mail program; the password is shown only this once:\n");
            say(format_args!("  user name  {}", plan.address));
            match password.is_generated() {
                true => show(password),
                false => say("  password   the one that you chose"),
            }
        }
        None => {
            say("\nMail programs go on with the app passwords that they have:\n");
            say(format_args!("  user name  {}", plan.address));
        }
    }
    let listeners = if status.listeners.is_empty() { configured(config) } else { status.listeners.clone() };
    for listening in &listeners {
        let (protocol, security) = (listening.protocol.to_uppercase(), described(&listening.security));
        match &listening.address {
            Address::Tcp(address) => {
                say(format_args!("  {protocol:<10} {} port {}, {security}", address.ip(), address.port()));
            }
            Address::Unix(path) => say(format_args!("  {protocol:<10} Unix socket {}, {security}", path.display())),
        }
    }
    if status.listeners.is_empty() {
        say("\nThe daemon does not run yet; `postkey` starts it.");
    }
}

fn configured(config: &Config) -> Vec<Listening> {
    let of = |listener: &Listener| {
        let addresses = listener.addresses.clone().into_iter();
        let (protocol, security) = (listener.protocol, listener.security);
        addresses.map(move |address| Listening::new(protocol, address, security)).collect::<Vec<_>>()
    };
    config.listeners.iter().flat_map(of).collect()
}

/// A listener's security in the words of mail programs' settings.
fn described(security: &str) -> &'static str {
    match security {
        "tls" => "SSL/TLS",
        "starttls" => "STARTTLS",
        _ => "no encryption, normal password",
    }
}
