//! A provider's mail servers.

use std::collections::BTreeMap;

use super::fields::host_name;
use super::hosts;
use super::reader::Section;
use crate::config::provider::{MailServer, Provider};
use crate::config::words;
use crate::protocol::{Protocol, Security};

/// Reads the tables `imap`, `pop3` and `smtp`. `issuers` are the compiled-in providers whose bearers the servers would get.
pub fn read(section: &mut Section<'_>, issuers: &[&Provider]) -> BTreeMap<Protocol, MailServer> {
    let one = |protocol: &Protocol| {
        let table = section.section(protocol.name())?;
        Some((*protocol, server(table, *protocol, issuers)))
    };
    let servers: BTreeMap<_, _> = Protocol::ALL.iter().filter_map(one).collect();
    if servers.is_empty() {
        let names = Protocol::ALL.map(Protocol::name);
        section.absence(format!("has no mail server; add a table {}", words::listing(&names, "or")));
    }
    servers
}

fn server(mut section: Section<'_>, protocol: Protocol, issuers: &[&Provider]) -> MailServer {
    section.require(&["host"]);
    let choices = [Security::Tls, Security::StartTls].map(|security| (security.name(), security));
    // What the section leaves out is the compiled-in host.
    let is_trusted = section.flag("trust_host") || section.count(&["host"]) == 0;
    let host = section.parse("host", |text| match (host(text)?, is_trusted) {
        (host, true) => Ok(host),
        (host, false) => hosts::judge(&host, issuers).map(|()| host),
    });
    let security = section.choice("security", &choices).unwrap_or(Security::Tls);
    let port = section.get("port").and_then(|value| value.port());
    let is_smtp = protocol == Protocol::Smtp;
    let ehlo_name = is_smtp.then(|| section.parse("ehlo_name", domain)).flatten();
    section.finish();
    let port = port.unwrap_or(usual_port(protocol, security));
    MailServer { host: host.unwrap_or_default(), port, security, ehlo_name }
}

/// A domain as SMTP's EHLO takes one (RFC 5321 section 4.1.2): without a dot at its end, and without underscores.
fn domain(text: &str) -> Result<String, String> {
    let refusal = "must be the name of this machine, such as \"mail.example.test\"";
    let name = host_name(text).filter(|name| !name.contains('_') && !name.ends_with('.'));
    name.ok_or_else(|| refusal.to_owned())
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
