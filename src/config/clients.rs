//! Who may connect to a listener, and the listener's own login for those that have none.

use ipnet::IpNet;

use super::Machine;
use super::reader::{Section, Value};
use super::secret_source::SecretSource;
use crate::protocol::Protocol;

/// `allow_addresses`: the clients that may come. None if all may.
pub fn allowed(section: &mut Section<'_>) -> Option<Vec<IpNet>> {
    let values = section.get("allow_addresses")?.list();
    Some(values.iter().filter_map(|value| value.parse(network)).collect())
}

/// A network in CIDR notation (RFC 4632 section 3.1); an address alone is a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let network: Option<IpNet> = text.parse().ok().or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into()));
    match network {
        None => Err("must be an IP address or a network; write it like \"192.0.2.7\" or \"192.0.2.0/24\"".to_owned()),
        Some(network) if network.prefix_len() == 0 => {
            Err("is everybody; name the clients, or leave allow_addresses out where all may come".to_owned())
        }
        Some(network) if network != network.trunc() => {
            Err(format!("is one address of a network; write \"{}\" for all of it", network.trunc()))
        }
        Some(network) => Ok(network),
    }
}

/// `password`: where the listener has an app password of its own account, so that clients need none. Only for SMTP, for one
/// account, and for clients that are named.
pub fn machine(section: &mut Section<'_>, protocol: Option<Protocol>) -> Option<Machine> {
    let value = section.get("password")?;
    if matches!(protocol, Some(Protocol::Imap | Protocol::Pop3)) {
        value.mistake(
            "lets clients in without a login, which is for sending mail only; remove it, or set protocol = \"smtp\"",
        );
    }
    for (key, why) in [
        ("account", "clients without a login need one account that they send as; add account"),
        ("allow_addresses", "without a login, clients are known by their addresses only; add allow_addresses"),
    ] {
        if section.get(key).is_none() {
            value.absence(why);
        }
    }
    source(&value)
}

fn source(value: &Value<'_>) -> Option<Machine> {
    match SecretSource::read(value)? {
        SecretSource::File(path) => Some(Machine::File(path)),
        SecretSource::Credential(name) => Some(Machine::Credential(name)),
        _ => {
            value.mistake("must be in a file or in a credential of systemd; write { file = \"printer.password\" }");
            None
        }
    }
}
