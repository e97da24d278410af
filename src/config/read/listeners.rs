//! The local ports: `[[listener]]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::certificate;
use super::clients::{allowed, balancers, judge_own_machine, judge_unnamed, password};
use super::fields;
use super::reader::{Section, Value};
use crate::address::Address;
use crate::config::{Config, ListenerConfig, Users};
use crate::name::Name;
use crate::protocol::{Protocol, Security};

/// The default permissions of a Unix socket: only for the owner of the process.
const MODE: u32 = 0o600;

/// The longest path of a Unix socket, in bytes: `sun_path` without its NUL, unix(7).
const LONGEST_PATH: usize = 107;

/// Reads the listeners, or returns the default ones. Everything else in `config` has been read.
pub fn read(top: &mut Section<'_>, config: &Config) -> Vec<ListenerConfig> {
    let Some(value) = top.get("listener") else { return Protocol::ALL.map(on_loopback).into() };
    let mut taken = Vec::new();
    let sections = value.sections().into_iter();
    sections.filter_map(|section| listener(section, config, &mut taken)).collect()
}

/// The default port of a protocol: the registered one plus a thousand, because that needs no privilege.
const fn local_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Imap => 1143,
        Protocol::Pop3 => 1110,
        Protocol::Smtp => 1587,
    }
}

fn on_loopback(protocol: Protocol) -> ListenerConfig {
    let port = local_port(protocol);
    let addresses = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    ListenerConfig {
        protocol,
        addresses: addresses.map(Address::Tcp).into(),
        mode: MODE,
        security: Security::Clear,
        certificate: None,
        provider: None,
        account: None,
        allow_addresses: None,
        balancers: Vec::new(),
        users: Users::default(),
        password: None,
    }
}

/// An address that a listener of this file uses, and its position.
struct Taken {
    address: Address,
    line: usize,
}

fn listener(mut section: Section<'_>, config: &Config, taken: &mut Vec<Taken>) -> Option<ListenerConfig> {
    section.require(&["protocol", "address"]);
    let protocol = section.choice("protocol", &Protocol::ALL.map(|p| (p.name(), p)));
    let security = match section.get("security") {
        Some(value) => value.choice(&[Security::Clear, Security::StartTls, Security::Tls].map(|s| (s.name(), s))),
        None => Some(Security::Clear),
    };
    let certificate = certificate::read(&mut section, security);
    let password = password(&mut section, protocol);
    let addresses = addresses(&mut section, protocol, security, config, taken);
    let mode = mode(&mut section, &addresses);
    let (provider, account) = pin(&mut section, config);
    let allow_addresses = allowed(&mut section, &addresses);
    judge_own_machine(&mut section, allow_addresses.as_deref());
    let balancers = balancers(&mut section, &addresses);
    let users = fields::users(&mut section, "allow_uids");
    section.finish();
    let (protocol, security) = (protocol?, security?);
    Some(ListenerConfig {
        protocol,
        addresses,
        mode,
        security,
        certificate,
        provider,
        account,
        allow_addresses,
        balancers,
        users,
        password,
    })
}

fn addresses(
    section: &mut Section<'_>,
    protocol: Option<Protocol>,
    security: Option<Security>,
    config: &Config,
    taken: &mut Vec<Taken>,
) -> Vec<Address> {
    let allow_remote = section.flag("allow_remote");
    let shows_passwords = security == Some(Security::Clear) && section.get("password").is_none();
    let values = section.get("address").map(|value| value.list()).unwrap_or_default();
    let one = |value: &Value<'_>| {
        let address = value.parse(|text| listen_address(text, protocol))?;
        match &address {
            Address::Tcp(address) => judge_exposure(value, *address, shows_passwords, allow_remote),
            Address::Unix(path) => judge_path(value, path, security, config),
        }
        judge_unnamed(section, value, &address);
        judge_clash(value, &address, taken);
        Some(address)
    };
    values.iter().filter_map(one).collect()
}

fn listen_address(text: &str, protocol: Option<Protocol>) -> Result<Address, String> {
    if text.starts_with('/') {
        return Ok(Address::Unix(text.into()));
    }
    socket_address(text, protocol).map(Address::Tcp)
}

pub fn judge_length(value: &Value<'_>, path: &Path) {
    if !fits(path) {
        value.mistake(format!("is longer than {LONGEST_PATH} bytes, the maximum for a Unix socket; shorten it"));
    }
}

/// Whether a Unix socket can have this path.
pub fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= LONGEST_PATH
}

/// Refuses a path where there cannot be a Unix socket, or a Unix socket with TLS.
fn judge_path(value: &Value<'_>, path: &Path, security: Option<Security>, config: &Config) {
    judge_length(value, path);
    if path == config.control_socket {
        value.mistake("is the control socket; choose another path");
    }
    if security.is_some_and(|security| security != Security::Clear) {
        value.mistake("Unix sockets have no TLS; put them in a separate [[listener]] with security = \"none\"");
    }
}

/// `mode`: who may open the listener's Unix sockets.
fn mode(section: &mut Section<'_>, addresses: &[Address]) -> u32 {
    let Some(value) = section.get("mode") else { return MODE };
    if !addresses.iter().any(|address| address.unix().is_some()) {
        value.absence("is for Unix sockets, and this listener has none; add a path to address, or remove this");
    }
    value.choice(&[("0600", MODE), ("0660", 0o660), ("0666", 0o666)]).unwrap_or(MODE)
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
    Err(format!(
        "must be an IP address and a port, or the whole path of a Unix socket; \
         write it like \"127.0.0.1:{port}\" or \"[::1]:{port}\""
    ))
}

/// Refuses addresses that other machines can reach, unless they are protected and the file allows it.
fn judge_exposure(value: &Value<'_>, address: SocketAddr, shows_passwords: bool, allow_remote: bool) {
    let reachable = !address.ip().to_canonical().is_loopback();
    let missing = match (shows_passwords, allow_remote) {
        (true, true) => "security = \"tls\" or \"starttls\", because passwords would cross the network unencrypted",
        (true, false) => "security = \"tls\" or \"starttls\", and allow_remote = true",
        (false, false) => "allow_remote = true",
        (false, true) => return,
    };
    if reachable {
        value.mistake(format!(
            "other machines can reach {}; if you want that, set {missing}; if not, listen on 127.0.0.1 and [::1]",
            address.ip()
        ));
    }
}

/// Refuses an address that another listener has.
fn judge_clash(value: &Value<'_>, address: &Address, taken: &mut Vec<Taken>) {
    if let Some(other) = taken.iter().find(|other| clash(address, &other.address)) {
        let kind = if address.unix().is_some() { "path" } else { "port" };
        value.mistake(format!("{address} is taken by {} in line {}; choose another {kind}", other.address, other.line));
    }
    taken.push(Taken { address: address.clone(), line: value.line() });
}

fn clash(one: &Address, other: &Address) -> bool {
    let (Address::Tcp(one), Address::Tcp(other)) = (one, other) else { return one == other };
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same_ip = one.ip() == other.ip() || any && one.is_ipv4() == other.is_ipv4();
    one.port() != 0 && one.port() == other.port() && same_ip
}

/// The provider and the account to which the listener is limited. An account can be named by any of its login names.
fn pin(section: &mut Section<'_>, config: &Config) -> (Option<String>, Option<String>) {
    let provider = fields::provider(section, &config.providers);
    let Some(value) = section.get("account") else { return (provider, None) };
    let address = |text: &str| Name::address(&config.address_of(text)).map(String::from);
    let Some(account) = value.parse(address) else { return (provider, None) };
    match (config.provider_for(&account), &provider) {
        (None, _) if config.entry_of(&account).is_none() => {
            value.absence(format!("the provider of {account} is unknown; add [account.\"{account}\"] with provider"));
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
