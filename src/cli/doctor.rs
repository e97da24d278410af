//! `postkey doctor`: why an account does not work, in a report without secrets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::accounts;
use super::admin::AdminClient;
use super::terminal::{Input, say};
use crate::address::Address;
use crate::certificates::{AuthorityError, Issued, PublicPart, read_stored};
use crate::clock::{Clock, Moment};
use crate::config::{Certificate, Config, Listening};
use crate::control::ControlRequest;
use crate::examination::{Finding, FindingState};
use crate::exit::{Exit, Failed};

/// How long to wait for an answer from one of our own ports.
const LIMIT: Duration = Duration::from_secs(3);

const ALL_WELL: &str = "\nEverything works from here to the mailbox. If a mail program fails, check its server, port, user \
                        name and password.";

const NO_LOGIN: &str = "\nNo problem was found. Without an app password, the tokens and the logins were not checked.";

#[derive(Serialize)]
struct JsonReport<'a> {
    findings: &'a [Finding],
    likely_cause: Option<String>,
    exit_code: u8,
}

pub async fn run(config: &Config, address: &str, json: bool) -> Result<(), Failed> {
    let findings = examine(config, &config.address_of(address)).await;
    let problem = findings.iter().find(|finding| finding.is_problem());
    let problem = problem.or_else(|| findings.iter().find(|finding| finding.is_blocked()));
    let likely_cause = problem.map(|problem| format!("{}: {}.", problem.subject, problem.text));
    let exit = problem.and_then(|problem| problem.exit);
    if json {
        let report = JsonReport { findings: &findings, likely_cause, exit_code: exit.map_or(0, |exit| exit as u8) };
        say(serde_json::to_string_pretty(&report).map_err(|error| Failed::new(Exit::Software, error))?);
    } else {
        findings.iter().for_each(show);
        match likely_cause {
            Some(cause) => say(format_args!("\nThe likely cause is the {cause}")),
            None => say(no_problem(&findings)),
        }
    }
    exit.map_or(Ok(()), |exit| Err(Failed::new(exit, format!("{address} does not work"))))
}

/// The last line of a report without problems.
fn no_problem(findings: &[Finding]) -> &'static str {
    let is_authorization = |finding: &Finding| finding.subject == "authorization" && finding.state == FindingState::Ok;
    if findings.iter().any(is_authorization) { ALL_WELL } else { NO_LOGIN }
}

fn show(finding: &Finding) {
    let mark = match finding.state {
        FindingState::Ok => "ok",
        FindingState::Problem => "problem",
        FindingState::Skipped => "skipped",
    };
    say(format_args!("{mark:<8} {}: {}", finding.subject, finding.text));
}

/// Collects the findings of the process that has the vault, and then those of this process.
async fn examine(config: &Config, address: &str) -> Vec<Finding> {
    let admin = match AdminClient::connect(config).await {
        Ok(admin) => admin,
        Err(Failed { exit, message }) => {
            let subject = if exit == Exit::Os { "daemon" } else { "vault" };
            return vec![Finding::problem(subject, exit, message)];
        }
    };
    let mut findings = match ask(&admin, address, config.owner_of(address)).await {
        Ok(findings) => findings,
        Err(Failed { exit, message }) => vec![Finding::problem("daemon", exit, message)],
    };
    if let Ok(status) = accounts::select(&admin, address).await {
        findings.extend(examine_listeners(&status.listeners).await);
    }
    findings.extend(examine_certificates(config, Clock::System.now()));
    findings
}

/// Asks for a password only if the account exists. A shared mailbox has the tokens of its owner.
async fn ask(admin: &AdminClient<'_>, address: &str, owner: &str) -> Result<Vec<Finding>, Failed> {
    let is_known = !accounts::select(admin, owner).await?.accounts.is_empty();
    let prompt = format!("An app password of {owner}, or Enter to skip the checks that need it: ");
    let password = if is_known { Input::new().password(&prompt).await.ok() } else { None };
    admin.ask(ControlRequest::Examine { address: address.to_owned(), password }).await
}

/// Checks that mail programs on this machine reach the daemon's ports.
async fn examine_listeners(listeners: &[Listening]) -> Vec<Finding> {
    if listeners.is_empty() {
        let text = "it does not run, so no mail program can connect; start it with `postkey`, or as a service";
        return vec![Finding::problem("daemon", Exit::Unavailable, text)];
    }
    let mut findings = Vec::new();
    for listening in listeners {
        findings.push(examine_listener(listening).await);
    }
    findings
}

/// Checks the certificates of the listeners, as far as this user can read them.
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
