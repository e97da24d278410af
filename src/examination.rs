//! Finds out why an account does not work: everything between its record and its mailbox is looked at, in the order in
//! which one thing needs the other. So the first problem is the likely cause of those behind it.

mod clock;
mod finding;
mod network;
mod rights;
mod settings;

use std::sync::Arc;

use crate::broker::{Account, Broker, Held};
use crate::config::flow::Flow;
use crate::exit::{Exit, Failed};
use crate::login::log_in;
use crate::oauth::access_token::Claims;
use crate::oauth::id_token::Expected;
use crate::oauth::identity::who;
use crate::protocol::Protocol;
use crate::wire::Refusal;
pub use finding::{Finding, State};
use rights::Rights;
use settings::Known;

/// Examines the account of this address. `opened` is what an app password has opened; None where nobody has given one, and
/// then what needs the tokens is left out.
pub async fn examine(
    broker: &Arc<Broker>,
    address: &str,
    opened: Option<Result<Arc<Account>, Refusal>>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(known) = settings::examine(broker, address, &mut findings).await else { return findings };
    let is_reached = examine_endpoints(broker, &known, &mut findings).await;
    let token = match open(opened, &known, &mut findings) {
        Some(account) => renew(broker, account, is_reached, &mut findings).await,
        None => None,
    };
    let servers = examine_servers(broker, &known, token.as_ref().map(|(account, _)| account)).await;
    if let Some((account, held)) = &token {
        let is_let_in = servers.iter().any(|[_, login]| login.state == State::Ok);
        let token = Examined { broker, known: &known, account, held, claims: Claims::read(held.access()) };
        findings.extend(token.rights());
        findings.push(token.person(is_let_in).await);
    }
    findings.extend(servers.into_iter().flatten());
    findings
}

/// Whether the token endpoint is reached.
async fn examine_endpoints(broker: &Broker, known: &Known, findings: &mut Vec<Finding>) -> bool {
    let (reach, now) = (&known.reach, broker.now());
    for (name, url) in network::endpoints(&known.endpoints) {
        findings.push(network::endpoint(reach, name, url, now).await);
    }
    let Some(token) = &known.endpoints.token else { return false };
    let date = reach.http.date(token).await;
    findings.push(match &date {
        Ok(theirs) => clock::examine(broker.now(), *theirs),
        Err(_) => Finding::skipped("clock", format!("it is {now} here; there is no server's time to compare it with")),
    });
    date.is_ok()
}

/// What the password has opened.
fn open(
    opened: Option<Result<Arc<Account>, Refusal>>,
    known: &Known,
    findings: &mut Vec<Finding>,
) -> Option<Arc<Account>> {
    match opened {
        Some(Ok(account)) => Some(account),
        Some(Err(refusal)) => {
            let Failed { exit, message } = refusal.into();
            let text = format!("{message} `postkey password list {}` shows which there are", known.record.address);
            findings.push(Finding::problem("app password", exit, text));
            None
        }
        None => {
            findings.push(match &known.record.ended {
                Some(ended) => {
                    let (why, address) = (&ended.why, &known.record.address);
                    let text = format!("it has ended, on {}: {why}; run `postkey authorize {address}`", ended.at);
                    Finding::problem("authorization", Exit::NoPermission, text)
                }
                None => Finding::skipped("authorization", "no app password was given, so the tokens stay sealed"),
            });
            None
        }
    }
}

/// Gets new tokens, whatever was before: that this can be done is what keeps an account alive.
async fn renew(
    broker: &Arc<Broker>,
    account: Arc<Account>,
    is_reached: bool,
    findings: &mut Vec<Finding>,
) -> Option<(Arc<Account>, Arc<Held>)> {
    const SUBJECT: &str = "authorization";
    if !is_reached {
        findings.push(Finding::skipped(SUBJECT, "the token endpoint is not reached"));
        return None;
    }
    broker.insist(&account).await;
    match broker.bearer(&account, Protocol::Imap, Some(account.generation())).await {
        Ok(held) => {
            let end = held.life().expires;
            findings.push(Finding::ok(SUBJECT, format!("the provider has just given a new token, good until {end}")));
            Some((account, held))
        }
        Err(refusal) => {
            let Failed { exit, message } = refusal.into();
            findings.push(Finding::problem(SUBJECT, exit, message));
            None
        }
    }
}

/// A token that the provider has just given, and all that tells what it is good for.
struct Examined<'a> {
    broker: &'a Broker,
    known: &'a Known,
    account: &'a Account,
    held: &'a Held,
    claims: Option<Claims>,
}

impl Examined<'_> {
    fn rights(&self) -> [Finding; 2] {
        let provider = &self.known.reach.provider;
        let protocols: Vec<Protocol> = provider.servers.keys().copied().collect();
        let own = self.broker.config().account(&self.known.record.address).scope.clone();
        let asked = own.as_ref().unwrap_or(&provider.scope);
        let (granted, claims) = (self.held.scope(), self.claims.as_ref());
        let rights = Rights { asked, granted, claims, protocols: &protocols };
        [rights.audience(), rights.scope()]
    }

    /// Whether the right person has signed in. A mailbox may be open to somebody else: then its servers let them in.
    async fn person(&self, is_let_in: bool) -> Finding {
        const SUBJECT: &str = "who signed in";
        if matches!(self.known.record.flow, Flow::ClientCredentials | Flow::JwtBearer) {
            return Finding::skipped(SUBJECT, "nobody does, by this flow");
        }
        let address = &self.known.record.address;
        let expected = &self.broker.config().account(address).signs_in.clone().unwrap_or_else(|| address.clone());
        match self.name(expected).await {
            None => Finding::skipped(SUBJECT, "the authorization server does not tell"),
            Some(person) if person == *expected => Finding::ok(SUBJECT, person),
            Some(person) if is_let_in => {
                Finding::ok(SUBJECT, format!("{person}, to whom the mailbox of {address} is open"))
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

    /// Who has signed in, as the access token or the userinfo endpoint tells: `wanted`, if that is one of their names.
    async fn name(&self, wanted: &str) -> Option<String> {
        let name = self.claims.as_ref().map(|claims| claims.person.to_lowercase()).filter(|name| !name.is_empty());
        if name.is_some() {
            return name;
        }
        let expected = Expected { client_id: "", issuer: None, nonce: None, now: self.broker.now() };
        let Account { reach, endpoints, .. } = self.account;
        let identity = who(&reach.http, endpoints, None, self.held.access(), &expected).await.ok()?;
        let name = if identity.is(wanted) { Some(wanted) } else { identity.other_than(wanted) };
        name.map(str::to_owned)
    }
}

/// For each server how far a connection comes, and then a real login.
async fn examine_servers(broker: &Arc<Broker>, known: &Known, account: Option<&Arc<Account>>) -> Vec<[Finding; 2]> {
    let mut findings = Vec::new();
    for (protocol, server) in &known.reach.provider.servers {
        let reached = network::server(&known.reach, *protocol, server, broker.now()).await;
        let login = match account {
            None => Finding::skipped(format!("{protocol} login"), "there is no new token to log in with"),
            Some(_) if reached.is_problem() => {
                Finding::skipped(format!("{protocol} login"), "its server is not reached")
            }
            Some(account) => login(broker, account, *protocol).await,
        };
        findings.push([reached, login]);
    }
    findings
}

async fn login(broker: &Arc<Broker>, account: &Arc<Account>, protocol: Protocol) -> Finding {
    let subject = format!("{protocol} login");
    match log_in(broker, account, protocol, None).await {
        Ok(_) => Finding::ok(subject, "the provider lets this account in"),
        Err(refusal) => {
            let Failed { exit, message } = refusal.into();
            Finding::problem(subject, exit, message)
        }
    }
}
