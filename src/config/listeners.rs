//! The local ports: `[[listener]]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::clients::{allowed, machine};
use super::file::{address, provider_name};
use super::reader::{Section, Value};
use super::users::Users;
use super::{Certificate, Config, Listener};
use crate::protocol::{Protocol, Security};

/// Reads the listeners, or takes the default ones. All else in `config` has been read.
pub fn read(top: &mut Section<'_>, config: &Config) -> Vec<Listener> {
    let Some(value) = top.get("listener") else { return Protocol::ALL.map(on_loopback).into() };
    let mut taken = Vec::new();
    let sections = value.sections().into_iter();
    sections.filter_map(|section| listener(section, config, &mut taken)).collect()
}

/// The port of a protocol on this machine: the registered one and a thousand, for which one needs no privilege.
const fn local_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Imap => 1143,
        Protocol::Pop3 => 1110,
        Protocol::Smtp => 1587,
    }
}

fn on_loopback(protocol: Protocol) -> Listener {
    let port = local_port(protocol);
    let addresses = vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    Listener {
        protocol,
        addresses,
        security: Security::Clear,
        certificate: None,
        provider: None,
        account: None,
        allow_addresses: None,
        users: Users::default(),
        machine: None,
    }
}

/// An address that a listener of this file uses, and where that is written.
struct Taken {
    address: SocketAddr,
    line: usize,
}

fn listener(mut section: Section<'_>, config: &Config, taken: &mut Vec<Taken>) -> Option<Listener> {
    section.require(&["protocol", "address"]);
    let protocol = section.get("protocol").and_then(|value| value.choice(&Protocol::ALL.map(|p| (p.name(), p))));
    let security = match section.get("security") {
        Some(value) => value.choice(&[Security::Clear, Security::StartTls, Security::Tls].map(|s| (s.name(), s))),
        None => Some(Security::Clear),
    };
    let certificate = certificate(&mut section, security);
    let allow_remote = section.get("allow_remote").and_then(|value| value.flag());
    let machine = machine(&mut section, protocol);
    let shows_passwords = security == Some(Security::Clear) && section.get("password").is_none();
    let values = section.get("address").map(|value| value.list()).unwrap_or_default();
    let mut addresses = Vec::new();
    for value in &values {
        let Some(address) = value.parse(|text| socket_address(text, protocol)) else { continue };
        judge_exposure(value, address, shows_passwords, allow_remote);
        judge_clash(value, address, taken);
        addresses.push(address);
    }
    let (provider, account) = pin(&mut section, config);
    let allow_addresses = allowed(&mut section);
    let users = Users::read(&mut section);
    section.finish();
    let (protocol, security) = (protocol?, security?);
    Some(Listener { protocol, addresses, security, certificate, provider, account, allow_addresses, users, machine })
}

fn socket_address(text: &str, protocol: Option<Protocol>) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = protocol.map_or(1143, local_port);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(format!("the port is missing; write \"{}\"", SocketAddr::new(ip, port)));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Err(format!("must be an IP address and a port; write [\"127.0.0.1:{port}\", \"[::1]:{port}\"]"));
    }
    Err(format!("must be an IP address and a port; write it like \"127.0.0.1:{port}\" or \"[::1]:{port}\""))
}

/// Refuses addresses that other machines can reach, unless they are protected and meant.
fn judge_exposure(value: &Value<'_>, address: SocketAddr, shows_passwords: bool, allow_remote: Option<bool>) {
    let reachable = !address.ip().to_canonical().is_loopback();
    let missing = match (shows_passwords, allow_remote == Some(true)) {
        (true, true) => "security = \"tls\" or \"starttls\", for passwords would cross the network in the clear",
        (true, false) => "security = \"tls\" or \"starttls\", and allow_remote = true",
        (false, false) => "allow_remote = true",
        (false, true) => return,
    };
    if reachable {
        value.mistake(format!(
            "other machines can reach {}; if that is meant, set {missing}; if not, listen on 127.0.0.1 and [::1]",
            address.ip()
        ));
    }
}

/// Refuses an address that cannot be bound because another listener has it.
fn judge_clash(value: &Value<'_>, address: SocketAddr, taken: &mut Vec<Taken>) {
    let same_ip = |other: IpAddr| {
        let any = address.ip().is_unspecified() || other.is_unspecified();
        address.ip() == other || any && address.is_ipv4() == other.is_ipv4()
    };
    let clash = taken.iter().find(|other| other.address.port() == address.port() && same_ip(other.address.ip()));
    if let Some(other) = clash.filter(|_| address.port() != 0) {
        value.mistake(format!("{address} is taken by {} in line {}; choose another port", other.address, other.line));
    }
    taken.push(Taken { address, line: value.line() });
}

fn certificate(section: &mut Section<'_>, security: Option<Security>) -> Option<Certificate> {
    let values = ["certificate", "key"].map(|key| section.get(key));
    match security {
        Some(Security::Clear) => values.iter().flatten().for_each(|value| {
            value.mistake(
                "is not used while security is \"none\"; set security to \"tls\" or \"starttls\", or remove this",
            );
        }),
        Some(_) => section.require(&["certificate", "key"]),
        None => {}
    }
    let [chain, key] = values.map(|value| value.and_then(|value| value.file()));
    Some(Certificate { chain: chain?, key: key? })
}

/// The one provider and the one account that the listener is for.
fn pin(section: &mut Section<'_>, config: &Config) -> (Option<String>, Option<String>) {
    let provider = section.get("provider").and_then(|value| provider_name(&value, &config.providers));
    let Some(value) = section.get("account") else { return (provider, None) };
    let Some(account) = value.parse(address) else { return (provider, None) };
    match (config.provider_for(&account), &provider) {
        (None, _) if !config.accounts.contains_key(&account) => {
            value.absence(format!("nothing is known of {account}; add [account.\"{account}\"] with its provider"));
        }
        (Some(own), Some(pinned)) if own.name != *pinned => {
            value.absence(format!(
                "{account} is at \"{}\", not at \"{pinned}\"; correct one, or remove provider",
                own.name
            ));
        }
        _ => {}
    }
    (provider, Some(account))
}
