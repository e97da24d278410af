//! `postkey doctor`: why an account does not work, in a report without secrets.

use serde::Serialize;

use super::accounts;
use super::admin::AdminClient;
use super::terminal::{Input, say};
use crate::clock::Clock;
use crate::config::Config;
use crate::control::ControlRequest;
use crate::examination::{Finding, conclusion, examine_ports, likely_cause};
use crate::exit::{Exit, Failed};

#[derive(Serialize)]
struct JsonReport<'a> {
    findings: &'a [Finding],
    likely_cause: Option<String>,
    exit_code: u8,
}

pub async fn run(config: &Config, address: &str, json: bool) -> Result<(), Failed> {
    let findings = examine(config, &config.address_of(address)).await;
    let problem = likely_cause(&findings);
    let exit = problem.and_then(|problem| problem.exit);
    if json {
        let likely_cause = problem.map(|problem| format!("{}: {}.", problem.subject, problem.text));
        let report = JsonReport { findings: &findings, likely_cause, exit_code: exit.map_or(0, |exit| exit as u8) };
        say(serde_json::to_string_pretty(&report).map_err(|error| Failed::new(Exit::Software, error))?);
    } else {
        findings.iter().for_each(show);
        say(format_args!("\n{}", conclusion(&findings)));
    }
    exit.map_or(Ok(()), |exit| Err(Failed::new(exit, format!("{address} does not work"))))
}

fn show(finding: &Finding) {
    say(format_args!("{:<8} {}: {}", finding.state.name(), finding.subject, finding.text));
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
        findings.extend(examine_ports(config, &status.listeners, Clock::System.now()).await);
    }
    findings
}

/// Asks for a password only if the account exists. A shared mailbox has the tokens of its owner.
async fn ask(admin: &AdminClient<'_>, address: &str, owner: &str) -> Result<Vec<Finding>, Failed> {
    let is_known = !accounts::select(admin, owner).await?.accounts.is_empty();
    let prompt = format!("An app password of {owner}, or Enter to skip the checks that need it: ");
    let password = if is_known { Input::new().password(&prompt).await.ok() } else { None };
    admin.ask(ControlRequest::Examine { address: address.to_owned(), password }).await
}
