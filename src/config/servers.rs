//! A provider's mail servers.

use std::collections::BTreeMap;

use super::hosts;
use super::provider::{Provider, Server};
use super::providers::host_name;
use super::reader::Section;
use super::words;
use crate::protocol::{Protocol, Security};

/// Reads the tables `imap`, `pop3` and `smtp`; what they leave out is taken from `base`. `issuers` are the compiled-in providers
/// whose bearers the servers would get.
pub fn read(section: &mut Section<'_>, base: Option<&Provider>, issuers: &[&Provider]) -> BTreeMap<Protocol, Server> {
    let mut servers = base.map(|base| base.servers.clone()).unwrap_or_default();
    for protocol in Protocol::ALL {
        if let Some(own) = section.get(protocol.name()).and_then(|value| value.section()) {
            let server = server(own, protocol, servers.get(&protocol), issuers);
            servers.insert(protocol, server);
        }
    }
    if servers.is_empty() {
        let names = Protocol::ALL.map(Protocol::name);
        section.absence(format!("has no mail server; add a table {}", words::listing(&names, "or")));
    }
    servers
}

fn server(mut section: Section<'_>, protocol: Protocol, base: Option<&Server>, issuers: &[&Provider]) -> Server {
    if base.is_none() {
        section.require(&["host"]);
    }
    let choices = [Security::Tls, Security::StartTls].map(|security| (security.name(), security));
    let is_trusted = section.get("trust_host").and_then(|value| value.flag()).unwrap_or_default();
    let judged = |text: &str| match (host(text)?, is_trusted) {
        (host, true) => Ok(host),
        (host, false) => hosts::judge(&host, issuers).map(|()| host),
    };
    let host = section.get("host").and_then(|value| value.parse(judged)).or_else(|| Some(base?.host.clone()));
    let security = section.get("security").and_then(|value| value.choice(&choices)).or_else(|| Some(base?.security));
    let security = security.unwrap_or(Security::Tls);
    let usual = base.filter(|base| base.security == security).map_or(usual_port(protocol, security), |base| base.port);
    let port = section.get("port").and_then(|value| value.port()).unwrap_or(usual);
    section.finish();
    Server { host: host.unwrap_or_default(), port, security }
}

fn host(text: &str) -> Result<String, String> {
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok(ip.to_string());
    }
    let refusal = "must be the name of a host, such as \"imap.example.test\"; the port is a key of its own";
    host_name(text).ok_or_else(|| refusal.to_owned())
}

/// RFC 8314 section 3 and, for STARTTLS, the protocols' own ports.
const fn usual_port(protocol: Protocol, security: Security) -> u16 {
    match (protocol, security) {
        (Protocol::Imap, Security::Tls) => 993,
        (Protocol::Imap, _) => 143,
        (Protocol::Pop3, Security::Tls) => 995,
        (Protocol::Pop3, _) => 110,
        (Protocol::Smtp, Security::Tls) => 465,
        (Protocol::Smtp, _) => 587,
    }
}
