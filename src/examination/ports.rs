//! Checks the way from mail programs to postkey: its ports, and their certificates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::finding::Finding;
use crate::address::Address;
use crate::certificates::{AuthorityError, Issued, PublicPart, read_stored};
use crate::clock::Moment;
use crate::config::{Certificate, Config, Listening};
use crate::exit::Exit;

/// How long to wait for an answer from one of our own ports.
const LIMIT: Duration = Duration::from_secs(3);

/// Checks the open ports, as far as this process reaches them, and their certificates, as far as it can read them.
pub async fn examine_ports(config: &Config, listeners: &[Listening], now: Moment) -> Vec<Finding> {
    let mut findings = examine_listeners(listeners).await;
    findings.extend(examine_certificates(config, now));
    findings
}

/// Checks that mail programs on this machine reach the daemon's ports.
async fn examine_listeners(listeners: &[Listening]) -> Vec<Finding> {
    if listeners.is_empty() {
        let text = "it is not running, so no mail program can connect; start it with `postkey`, or as a service";
        return vec![Finding::problem("daemon", Exit::Unavailable, text)];
    }
    let mut findings = Vec::new();
    for listening in listeners {
        findings.push(examine_listener(listening).await);
    }
    findings
}

/// Checks the certificates of the listeners.
fn examine_certificates(config: &Config, now: Moment) -> Vec<Finding> {
    let mut findings = Vec::new();
    for certificate in config.listeners.iter().filter_map(|listener| listener.certificate.as_ref()) {
        let finding = match certificate {
            Certificate::Files { chain, .. } => {
                let subject = format!("certificate {}", chain.display());
                let advice = "renew it, and postkey reads it within a minute";
                certificate_finding(subject, Issued::read_file(chain), advice, now)
            }
            Certificate::Own { .. } => own_certificate(config, now),
        };
        if !findings.iter().any(|other: &Finding| other.subject == finding.subject) {
            findings.push(finding);
        }
    }
    findings
}

fn own_certificate(config: &Config, now: Moment) -> Finding {
    let subject = "certificate own".to_owned();
    match PublicPart::read(&config.state_dir) {
        Err(AuthorityError::Store(error)) => Finding::skipped(subject, error.to_string()),
        Err(error) => Finding::problem(subject, Exit::Io, error.to_string()),
        Ok(None) => Finding::skipped(subject, "postkey creates its authority at the next start or reload"),
        Ok(Some(_)) => {
            let stored = read_stored(&config.state_dir);
            certificate_finding(subject, stored, "postkey could not renew it, and its log says why", now)
        }
    }
}

fn certificate_finding(subject: String, about: Option<Issued>, advice: &str, now: Moment) -> Finding {
    let Some(about) = about else { return Finding::skipped(subject, "this user cannot read it") };
    let (ends, names) = (about.ends, about.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    match now >= ends {
        true => Finding::problem(subject, Exit::Config, format!("it expired on {ends}; {advice}")),
        false => Finding::ok(subject, format!("it is for {names}, and valid until {ends}")),
    }
}

async fn examine_listener(Listening { protocol, address, security }: &Listening) -> Finding {
    let (protocol, security) = (protocol.name(), security.name());
    let subject = format!("listener {protocol} {address}");
    let late = |_| Err(std::io::Error::other(format!("no answer within {} s", LIMIT.as_secs())));
    match timeout(LIMIT, connect(address)).await.unwrap_or_else(late) {
        Ok(()) => Finding::ok(subject, format!("reachable; security {security}")),
        Err(error) => {
            let text = format!("it cannot be reached from here ({error}); check the firewall and network namespaces");
            Finding::problem(subject, Exit::Unavailable, text)
        }
    }
}

async fn connect(address: &Address) -> std::io::Result<()> {
    match address {
        Address::Tcp(address) => TcpStream::connect(from_here(*address)).await.map(drop),
        Address::Unix(path) => UnixStream::connect(path).await.map(drop),
    }
}

/// The address at which this machine reaches a port that listens on all addresses.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
