//! Finds out why an account does not work: checks everything between its record and its mailbox, in the order of
//! dependence. So the first problem is the likely cause of the later ones.

mod finding;
mod network;
mod ports;
mod rights;
mod settings;

use std::sync::Arc;

use crate::broker::{AccountStatus, Backoff, Broker, CurrentTokens, Occupancy, OpenAccount};
use crate::clock::Moment;
use crate::config::flow::Flow;
use crate::exit::{Exit, Failed};
use crate::login::{log_in, try_mechanism};
use crate::name::Name;
use crate::oauth::access_token::Claims;
use crate::oauth::id_token::Expected;
use crate::oauth::identity::identify;
use crate::protocol::Protocol;
use crate::upstream;
use crate::wire::Refusal;
pub use finding::{Finding, FindingState, conclusion, likely_cause};
pub use ports::examine_ports;
use rights::Rights;
use settings::Known;

/// Seconds by which the clocks of this machine and the authorization server may differ. Servers tolerate as much in assertions
/// and id_tokens.
const TOLERATED: u64 = 300;

/// Examines the account of this address. `opened` is the account that an app password opened; None if there was none,
/// and then the checks that need the tokens are skipped.
pub async fn examine(
    broker: &Arc<Broker>,
    address: &str,
    opened: Option<Result<Arc<OpenAccount>, Refusal>>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(known) = settings::examine(broker, address, &mut findings).await else { return findings };
    let is_reached = examine_endpoints(broker, &known, &mut findings).await;
    let was_opened = opened.is_some();
    let token = match open(opened, &known, &mut findings) {
        Some(account) => renew(broker, account, is_reached, &mut findings).await,
        None => None,
    };
    let servers = examine_servers(broker, &known, token.as_ref().map(|(account, _)| account), was_opened).await;
    if let Some((account, current)) = &token {
        let accepted = servers.iter().filter(|(_, [_, login])| login.state == FindingState::Ok);
        let accepted: Vec<Protocol> = accepted.map(|(protocol, _)| *protocol).collect();
        let token = Examined { broker, known: &known, account, current, claims: Claims::read(&current.tokens.access) };
        findings.extend(token.rights(&accepted));
        findings.push(token.person(!accepted.is_empty()).await);
    }
    findings.extend(servers.into_iter().flat_map(|(_, found)| found));
    findings.extend(broker.status_of(address).iter().flat_map(connections));
    findings
}

/// Examines the endpoints. Returns whether the token endpoint can be reached.
async fn examine_endpoints(broker: &Broker, known: &Known, findings: &mut Vec<Finding>) -> bool {
    let (connector, now) = (&known.connector, broker.context.now());
    for (name, url) in network::endpoints(&known.endpoints) {
        findings.push(network::endpoint(connector, name, url, now).await);
    }
    let Some(token) = &known.endpoints.token else { return false };
    let date = connector.http.date(token).await;
    match &date {
        Ok(theirs) => findings.push(clock(broker.context.now(), *theirs)),
        Err(error) => {
            if !findings.iter().any(|found| found.subject == network::TOKEN_ENDPOINT && found.is_problem()) {
                let text = format!("{token} does not answer correctly: {error}; wait, or ask whoever runs it");
                findings.push(Finding::problem("authorization server", Exit::Unavailable, text));
            }
            let text = format!("it is {now} here; the server's time is not known");
            findings.push(Finding::blocked("clock", text));
        }
    }
    date.is_ok()
}

/// Compares this machine's clock with the server's, which is None if it is not known.
fn clock(ours: Moment, theirs: Option<Moment>) -> Finding {
    const SUBJECT: &str = "clock";
    let Some(theirs) = theirs else {
        return Finding::skipped(SUBJECT, format!("it is {ours} here; the authorization server does not say its time"));
    };
    let (ahead, behind) = (ours.since(theirs), theirs.since(ours));
    let (off, direction) = if ahead > 0 { (ahead, "ahead") } else { (behind, "behind") };
    if off <= TOLERATED {
        return Finding::ok(SUBJECT, format!("it is {ours} here, within {off} s of the authorization server's time"));
    }
    let text = format!(
        "it is {ours} here and {theirs} at the authorization server: this machine's clock is {off} s {direction}, so tokens \
         and certificates seem expired or not valid yet; set it right, and keep it right with NTP"
    );
    Finding::problem(SUBJECT, Exit::Os, text)
}

/// Checks the account's limits of connections, and whether the provider has asked for a pause. Nothing if there is neither.
fn connections(AccountStatus { connections, backoff, .. }: &AccountStatus) -> Vec<Finding> {
    let limited = |Occupancy { protocol, open, limit, waiting }: &Occupancy| {
        Some(format!("{protocol} {open} of {}, {waiting} waiting", (*limit)?))
    };
    let limited: Vec<String> = connections.iter().filter_map(limited).collect();
    let limited = limited.join("; ");
    let mut findings = Vec::new();
    if connections.iter().any(|one| one.limit.is_some() && one.waiting > 0) {
        let text = format!("{limited}; close mail programs, or correct connections in the configuration");
        findings.push(Finding::problem("connections", Exit::Temporary, text));
    } else if !limited.is_empty() {
        findings.push(Finding::ok("connections", limited));
    }
    findings.extend(backoff.as_ref().map(|Backoff { until, why }| {
        let text = format!("the provider wants no logins until {until}: {why}");
        Finding::problem("rate limit", Exit::Temporary, text)
    }));
    findings
}

/// Returns the account that the password has opened.
fn open(
    opened: Option<Result<Arc<OpenAccount>, Refusal>>,
    known: &Known,
    findings: &mut Vec<Finding>,
) -> Option<Arc<OpenAccount>> {
    match opened {
        Some(Ok(account)) => Some(account),
        Some(Err(refusal)) => {
            let Failed { exit, message } = refusal.into();
            let text = format!("{message} `postkey password list {}` shows the existing ones", known.record.address);
            findings.push(Finding::problem("app password", exit, text));
            None
        }
        None => {
            findings.push(match &known.record.ended {
                Some(ended) => {
                    let (why, address) = (&ended.why, &known.record.address);
                    let text = format!("it ended on {}: {why}; run `postkey authorize {address}`", ended.at);
                    Finding::problem("authorization", Exit::NoPermission, text)
                }
                None => Finding::skipped("authorization", "no app password was given, so the tokens stay sealed"),
            });
            None
        }
    }
}

/// Gets new tokens even if that failed before, because an account stays alive only if this works.
async fn renew(
    broker: &Arc<Broker>,
    account: Arc<OpenAccount>,
    is_reached: bool,
    findings: &mut Vec<Finding>,
) -> Option<(Arc<OpenAccount>, Arc<CurrentTokens>)> {
    const SUBJECT: &str = "authorization";
    if !is_reached {
        findings.push(Finding::blocked(SUBJECT, "the token endpoint cannot be reached"));
        return None;
    }
    broker.retry_now(&account);
    match broker.refresher.renew(&account, account.generation()).await {
        Ok(current) => {
            let end = current.tokens.life.expires;
            findings.push(Finding::ok(SUBJECT, format!("the provider has just issued a new token, valid until {end}")));
            Some((account, current))
        }
        Err(refusal) => {
            let Failed { exit, message } = refusal.into();
            findings.push(Finding::problem(SUBJECT, exit, message));
            None
        }
    }
}

/// A token that the provider has just issued, with everything that shows what it allows.
struct Examined<'a> {
    broker: &'a Broker,
    known: &'a Known,
    account: &'a OpenAccount,
    current: &'a CurrentTokens,
    claims: Option<Claims>,
}

impl Examined<'_> {
    fn rights(&self, accepted: &[Protocol]) -> [Finding; 2] {
        let provider = &self.known.connector.provider;
        let protocols: Vec<Protocol> = provider.servers.keys().copied().collect();
        let own = self.broker.config().account(&self.known.record.address).scope.clone();
        let asked = own.as_ref().unwrap_or(&provider.scope);
        let (granted, claims) = (self.current.tokens.scope.as_str(), self.claims.as_ref());
        let rights = Rights { asked, granted, claims, protocols: &protocols, accepted };
        [rights.audience(), rights.scope()]
    }

    /// Checks whether the right person has signed in. Somebody else may have access to the mailbox; then its servers
    /// accept them.
    async fn person(&self, has_access: bool) -> Finding {
        const SUBJECT: &str = "who signed in";
        if matches!(self.known.record.flow, Flow::ClientCredentials | Flow::JwtBearer) {
            return Finding::skipped(SUBJECT, "nobody signs in with this flow");
        }
        let address = &self.known.record.address;
        let expected = &self.broker.config().account(address).signs_in.clone().unwrap_or_else(|| address.clone());
        match self.name(expected).await {
            None => Finding::skipped(SUBJECT, "the authorization server does not say"),
            Some(person) if Name::claimed(&person).same_as(&Name::typed(expected)) => Finding::ok(SUBJECT, person),
            Some(person) if has_access => {
                Finding::ok(SUBJECT, format!("{person}, who has access to the mailbox of {address}"))
            }
            Some(person) => {
                let text = format!(
                    "{person} has signed in, not {expected}: run `postkey authorize {address}` and sign in as {expected}; \
                     or, if {person} signs in for this mailbox, have its owner or administrator open it to them"
                );
                Finding::problem(SUBJECT, Exit::NoPermission, text)
            }
        }
    }

    /// Who has signed in, according to the access token or the userinfo endpoint: `wanted`, if that is one of their
    /// names.
    async fn name(&self, wanted: &str) -> Option<String> {
        let name = self.claims.as_ref().map(|claims| claims.person.to_lowercase()).filter(|name| !name.is_empty());
        if name.is_some() {
            return name;
        }
        let now = self.broker.context.now();
        let expected = Expected { client_id: "", secret: None, issuer: None, token_endpoint: None, nonce: None, now };
        let OpenAccount { connector, endpoints, .. } = self.account;
        let identity = identify(&connector.http, endpoints, None, &self.current.tokens.access, &expected).await.ok()?;
        let name = if identity.is(wanted) { Some(wanted) } else { identity.other_than(wanted) };
        name.map(str::to_owned)
    }
}

/// Checks for each server how far a connection comes, and then logs in.
async fn examine_servers(
    broker: &Arc<Broker>,
    known: &Known,
    account: Option<&Arc<OpenAccount>>,
    was_opened: bool,
) -> Vec<(Protocol, [Finding; 2])> {
    let mut findings = Vec::new();
    for (protocol, server) in &known.connector.provider.servers {
        let reached = network::server(&known.connector, *protocol, server, broker.context.now()).await;
        let login = match account {
            None => no_token(format!("{protocol} login"), was_opened),
            Some(_) if reached.is_problem() => {
                Finding::blocked(format!("{protocol} login"), "its server cannot be reached")
            }
            Some(account) => login(broker, account, *protocol).await,
        };
        findings.push((*protocol, [reached, login]));
    }
    findings
}

/// Describes which of the mechanisms that a server offers do not work, and what to do; nothing if all work.
async fn mechanisms(broker: &Arc<Broker>, account: &Arc<OpenAccount>, protocol: Protocol) -> String {
    let provider = &account.connector.provider;
    let offered = upstream::offered(protocol, &account.capabilities(protocol), &provider.mechanisms);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for mechanism in offered.iter().filter(|_| offered.len() > 1) {
        let attempt = async {
            let permit = broker.throttle.permit(account, protocol).await?;
            try_mechanism(broker, account, protocol, *mechanism, &permit).await
        };
        let known = if attempt.await.is_ok() { &mut good } else { &mut bad };
        known.push(mechanism.name());
    }
    if good.is_empty() || bad.is_empty() {
        return String::new();
    }
    let (good, bad, name) = (good.join("\", \""), bad.join(" and "), &provider.name);
    format!("; it offers {bad}, which does not work; set mechanisms = [\"{good}\"] for the provider {name}")
}

/// The finding for a login that could not be tried. Without an app password, it is skipped.
fn no_token(subject: String, was_opened: bool) -> Finding {
    const WHY: &str = "there is no new token to log in with";
    if was_opened { Finding::blocked(subject, WHY) } else { Finding::skipped(subject, WHY) }
}

async fn login(broker: &Arc<Broker>, account: &Arc<OpenAccount>, protocol: Protocol) -> Finding {
    let subject = format!("{protocol} login");
    let login = async {
        let permit = broker.throttle.permit(account, protocol).await?;
        log_in(broker, account, protocol, None, None, &permit).await
    };
    match login.await {
        Ok((_, acceptance)) => {
            let alerts = acceptance.alerts.iter().map(|alert| format!("; it alerts: {alert}"));
            let (alerts, mechanisms) = (alerts.collect::<String>(), mechanisms(broker, account, protocol).await);
            Finding::ok(subject, format!("the provider accepts the login{alerts}{mechanisms}"))
        }
        Err(refusal) => {
            let Failed { exit, message } = refusal.into();
            Finding::problem(subject, exit, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_tolerated_in_both_directions() {
        let theirs = Moment(1_000_000);
        for (ours, words) in [
            (Moment(1_000_300), None),
            (Moment(999_700), None),
            (Moment(1_000_301), Some("301 s ahead")),
            (Moment(999_699), Some("301 s behind")),
        ] {
            let found = clock(ours, Some(theirs));
            assert_eq!(found.is_problem(), words.is_some());
            assert!(found.text.contains(words.unwrap_or("within 300 s")), "{}", found.text);
        }
        assert!(!clock(theirs, None).is_problem());
    }
}
