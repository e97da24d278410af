//! Which clients may connect to a listener, and the listener's own app password if they need none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::reader::{Section, Value};
use super::secret_source;
use crate::address::Address;
use crate::config::PasswordSource;
use crate::config::secret_source::SecretSource;
use crate::protocol::Protocol;

/// `allow_addresses`: the clients that may connect to these addresses. None if all may.
pub fn allowed(section: &mut Section<'_>, addresses: &[Address]) -> Option<Vec<IpNet>> {
    let value = section.get("allow_addresses")?;
    if !addresses.is_empty() && addresses.iter().all(|address| address.unix().is_some()) {
        value.mistake("clients of Unix sockets have no addresses; write allow_uids, or remove this");
    }
    let everybody = "includes everybody; name the clients, or remove allow_addresses if all may connect";
    Some(networks(&value, everybody))
}

/// `proxy_protocol`: the load balancers to which the listener belongs.
pub fn balancers(section: &mut Section<'_>, addresses: &[Address]) -> Vec<IpNet> {
    let Some(value) = section.get("proxy_protocol") else { return Vec::new() };
    if addresses.iter().any(|address| address.unix().is_some()) {
        value.mistake("connections to Unix sockets have no addresses; put them in a separate [[listener]]");
    }
    let balancers = networks(&value, "includes everybody, who could then claim any address; name the load balancers");
    if balancers.iter().any(includes_this_machine) && section.count(&["allow_uids"]) == 0 {
        value.mistake(
            "includes this machine, so all its users and containers could claim any address; add allow_uids with the \
             load balancer's user",
        );
    }
    balancers
}

/// Reads a list of networks, of which none may include everybody.
fn networks(value: &Value<'_>, everybody: &str) -> Vec<IpNet> {
    value.list().iter().filter_map(|value| value.parse(|text| network(text, everybody))).collect()
}

/// Reads a network in CIDR notation (RFC 4632 section 3.1), or a single address.
fn network(text: &str, everybody: &str) -> Result<IpNet, String> {
    let network: Option<IpNet> = text.parse().ok().or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into()));
    match network {
        None => Err("must be an IP address or a network; write it like \"192.0.2.7\" or \"192.0.2.0/24\"".to_owned()),
        Some(network) if network.prefix_len() == 0 => Err(everybody.to_owned()),
        Some(network) if network != network.trunc() => {
            Err(format!("is one address in a network; write \"{}\" for the whole network", network.trunc()))
        }
        Some(network) => Ok(network),
    }
}

/// `password`: the app password of a listener whose clients need none. It is only for SMTP, for one account, and for clients
/// that are named by address or user.
pub fn password(section: &mut Section<'_>, protocol: Option<Protocol>) -> Option<PasswordSource> {
    let value = section.get("password")?;
    if matches!(protocol, Some(Protocol::Imap | Protocol::Pop3)) {
        value.mistake(
            "lets clients in without a login, which is only possible to send mail; remove it, or set protocol = \"smtp\"",
        );
    }
    if section.get("account").is_none() {
        value.absence("clients without a login need an account as which they send; add account");
    }
    if section.count(&["allow_addresses", "allow_uids"]) == 0 {
        value.absence(
            "clients without a login are identified by their addresses or users; add allow_addresses or allow_uids",
        );
    }
    if section.count(&["proxy_protocol"]) > 0 && section.count(&["allow_addresses"]) == 0 {
        value.absence("clients behind a load balancer are identified by their addresses; add allow_addresses");
    }
    match secret_source::read(&value)? {
        SecretSource::File(path) => Some(PasswordSource::File(path)),
        SecretSource::Credential(name) => Some(PasswordSource::Credential(name)),
        _ => {
            value.mistake("must be in a file or a systemd credential; write { file = \"printer.password\" }");
            None
        }
    }
}

/// Refuses loopback addresses alone for clients without a login, because all users and containers of this machine have them.
pub fn judge_own_machine(section: &mut Section<'_>, allowed: Option<&[IpNet]>) {
    let is_for_all = allowed.is_some_and(|networks| networks.iter().any(includes_this_machine));
    if is_for_all && section.count(&["password"]) > 0 && section.count(&["allow_uids"]) == 0 {
        let message = "includes this machine, so all its users and containers can send mail without a login; add allow_uids, or remove the loopback address";
        section.get("allow_addresses").into_iter().for_each(|value| value.mistake(message));
    }
}

fn includes_this_machine(network: &IpNet) -> bool {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    network.network().is_loopback() || loopback.iter().any(|address| network.contains(address))
}

/// Refuses an address where clients need no login and nothing identifies them, though it does at other addresses.
pub fn judge_unnamed(section: &Section<'_>, value: &Value<'_>, address: &Address) {
    let [password, addresses, users] =
        ["password", "allow_addresses", "allow_uids"].map(|key| section.count(&[key]) > 0);
    match address {
        _ if !password || addresses == users => {}
        Address::Tcp(address) if users && !address.ip().to_canonical().is_loopback() => {
            value.absence("users of other machines cannot be identified; add allow_addresses, or listen on 127.0.0.1");
        }
        Address::Unix(_) if addresses => value.absence("clients of a Unix socket have no addresses; add allow_uids"),
        Address::Tcp(_) | Address::Unix(_) => {}
    }
}
