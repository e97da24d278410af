//! `postkey doctor`: why an account does not work, in words that may be shown to anybody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::hand::Hand;
use super::terminal::{Input, say};
use crate::address::Address;
use crate::config::Config;
use crate::control::{Carried, Listening, Request};
use crate::examination::{Finding, State};
use crate::exit::{Exit, Failed};

/// How long one of our own ports may take to answer.
const LIMIT: Duration = Duration::from_secs(3);

const ALL_WELL: &str = "\nAll is well from here to the mailbox; if a mail program fails, look at its server, port, user name and password.";

/// What `--json` shows.
#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    likely_cause: Option<String>,
    exit_code: u8,
}

pub async fn run(config: &Config, address: &str, json: bool) -> Result<(), Failed> {
    let findings = examine(config, &config.address_of(address)).await;
    let problem = findings.iter().find(|finding| finding.is_problem());
    let likely_cause = problem.map(|problem| format!("{}: {}.", problem.subject, problem.text));
    let exit = problem.and_then(|problem| problem.exit);
    if json {
        let report = Report { findings: &findings, likely_cause, exit_code: exit.map_or(0, |exit| exit as u8) };
        say(serde_json::to_string_pretty(&report).map_err(|error| Failed::new(Exit::Software, error))?);
    } else {
        findings.iter().for_each(show);
        say(likely_cause.map_or_else(|| ALL_WELL.to_owned(), |cause| format!("\nThe likely cause is the {cause}")));
    }
    exit.map_or(Ok(()), |exit| Err(Failed::new(exit, format!("{address} does not work as it should"))))
}

fn show(finding: &Finding) {
    let mark = match finding.state {
        State::Ok => "ok",
        State::Problem => "problem",
        State::Skipped => "skipped",
    };
    say(format_args!("{mark:<8} {}: {}", finding.subject, finding.text));
}

/// All that can be found out, by the one who holds the vault and from here.
async fn examine(config: &Config, address: &str) -> Vec<Finding> {
    let hand = match Hand::reach(config).await {
        Ok(hand) => hand,
        Err(Failed { exit, message }) => {
            let subject = if exit == Exit::Os { "daemon" } else { "vault" };
            return vec![Finding::problem(subject, exit, message)];
        }
    };
    let mut findings = match ask(&hand, address, config.owner_of(address)).await {
        Ok(findings) => findings,
        Err(Failed { exit, message }) => vec![Finding::problem("daemon", exit, message)],
    };
    if let Ok(status) = hand.status().await {
        findings.extend(examine_listeners(&status.listeners).await);
    }
    findings
}

/// A password is asked for only where there is something that it could open. The tokens are its owner's.
async fn ask(hand: &Hand<'_>, address: &str, owner: &str) -> Result<Vec<Finding>, Failed> {
    let is_known = hand.status().await?.accounts.iter().any(|account| account.address == owner);
    let prompt = format!("An app password of {owner}, or nothing to leave its tokens out: ");
    let password = if is_known { Input::new().password(&prompt).await.ok() } else { None };
    hand.ask(Request::Examine { address: address.to_owned(), password: password.map(Carried) }).await?.examined()
}

/// Whether mail programs on this machine find the ports of the daemon.
async fn examine_listeners(listeners: &[Listening]) -> Vec<Finding> {
    if listeners.is_empty() {
        let text = "it does not run, so no mail program can connect: start it with `postkey`, or as a service";
        return vec![Finding::problem("daemon", Exit::Unavailable, text)];
    }
    let mut findings = Vec::new();
    for listening in listeners {
        findings.push(examine_listener(listening).await);
    }
    findings
}

async fn examine_listener(Listening { protocol, address, security }: &Listening) -> Finding {
    let subject = format!("listener {protocol} {address}");
    let late = |_| Err(std::io::Error::other(format!("there is no answer within {} s", LIMIT.as_secs())));
    match timeout(LIMIT, connect(address)).await.unwrap_or_else(late) {
        Ok(()) => Finding::ok(subject, format!("it answers; security {security}")),
        Err(error) => {
            let text =
                format!("it cannot be reached from here ({error}): look for a firewall, or another network namespace");
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

/// Where a port on all addresses is reached on this machine.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
