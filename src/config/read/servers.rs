//! A provider's mail servers, and which of them its bearers may be sent to.
//!
//! Whoever gets a bearer can open the mailbox with it. For a provider of their own, users are responsible themselves. But
//! what the authorization server of a compiled-in provider issues is only for that provider's hosts, whatever name the
//! table has.

use std::collections::BTreeMap;

use url::Url;

use super::fields::host_name;
use super::reader::Section;
use crate::config::provider::{Endpoints, MailServer, Provider, Providers};
use crate::config::words;
use crate::protocol::{Protocol, Security};

/// Reads the tables `imap`, `pop3` and `smtp`. `issuers` are the compiled-in providers whose bearers the servers get.
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
    // A host that is not in the file is the compiled-in one.
    let is_trusted = section.flag("trust_host") || section.count(&["host"]) == 0;
    let host = section.parse("host", |text| match (host(text)?, is_trusted) {
        (host, true) => Ok(host),
        (host, false) => judge(&host, issuers).map(|()| host),
    });
    let security = section.choice("security", &choices).unwrap_or(Security::Tls);
    let port = section.get("port").and_then(|value| value.port());
    let is_smtp = protocol == Protocol::Smtp;
    let ehlo_name = is_smtp.then(|| section.parse("ehlo_name", domain)).flatten();
    section.finish();
    let port = port.unwrap_or(usual_port(protocol, security));
    MailServer { host: host.unwrap_or_default(), port, security, ehlo_name }
}

/// The providers among `compiled_in` whose authorization server this one uses.
pub fn issuers<'a>(endpoints: &Endpoints, issuer: Option<&str>, compiled_in: &'a Providers) -> Vec<&'a Provider> {
    let hosts_of = |endpoints: &Endpoints, issuer: Option<&str>| {
        let issuer = issuer.and_then(|issuer| Url::parse(issuer).ok());
        let urls = endpoints.token.clone().into_iter().chain(issuer);
        urls.filter_map(|url| url.host_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let wanted = hosts_of(endpoints, issuer);
    let is_same = |provider: &&Provider| {
        hosts_of(&provider.endpoints, provider.issuer.as_deref()).iter().any(|host| wanted.contains(host))
    };
    compiled_in.values().map(AsRef::as_ref).filter(is_same).collect()
}

/// Refuses a host that is neither a provider's nor a sibling, as `smtp-relay.gmail.com` is of `smtp.gmail.com`. Names
/// further below may belong to customers, like those of access lines.
fn judge(host: &str, issuers: &[&Provider]) -> Result<(), String> {
    let domain = |host: &str| host.split_once('.').map(|(_, domain)| domain.to_owned());
    let is_own = |own: &str| own == host || domain(own) == domain(host);
    let mut own = issuers.iter().flat_map(|provider| provider.servers.values());
    match issuers.first() {
        Some(first) if !own.any(|server| is_own(&server.host)) => Err(format!(
            "{host} is not a host of \"{}\", and could open every mailbox whose token it gets; correct it, or add \
             trust_host = true here if you trust it",
            first.name
        )),
        _ => Ok(()),
    }
}

/// Reads a domain for SMTP's EHLO (RFC 5321 section 4.1.2), which has no dot at its end and no underscores.
fn domain(text: &str) -> Result<String, String> {
    let refusal = "must be the name of this machine, such as \"mail.example.test\"";
    let name = host_name(text).filter(|name| !name.contains('_') && !name.ends_with('.'));
    name.ok_or_else(|| refusal.to_owned())
}

fn host(text: &str) -> Result<String, String> {
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok(ip.to_string());
    }
    let refusal = "must be the name of a host, such as \"imap.example.test\"; write a port to the key port";
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
