//! The overview: every account with its state, and a button for what to do about it.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::entrance::OwnSession;
use super::state::SetupState;
use super::view::{self, Shell, distance};
use crate::broker::{AccountState, AccountStatus, LoginJournal, LoginRecord, Occupancy};
use crate::clock::Moment;
use crate::control::Status;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    shell: Shell,
    accounts: Vec<AccountCard>,
    damaged: Vec<DamagedAccount>,
    /// Why changes are only in memory, if they are.
    degraded: Option<String>,
    listeners: Vec<String>,
    /// The newest first.
    logins: Vec<LoginLine>,
}

/// A login of a mail program.
struct LoginLine {
    time: String,
    login: LoginRecord,
}

/// An account in a list.
pub struct AccountCard {
    pub address: String,
    pub path: String,
    pub provider: String,
    /// For the style: `good`, `wait` or `bad`.
    pub tone: &'static str,
    pub state: &'static str,
    pub reason: Option<String>,
    /// The age of the token.
    pub token: String,
    pub connected: Vec<String>,
    /// The button: a section of the account's page, and a label.
    pub action: Option<(&'static str, &'static str)>,
}

struct DamagedAccount {
    address: String,
    is_newer: bool,
}

pub async fn show(State(site): State<Arc<SetupState>>, Extension(session): OwnSession) -> Response {
    let shell = Shell::new(&session, "overview");
    match site.status().await {
        Ok(status) => {
            let now = site.control.broker.context.now();
            view::shown(&Overview {
                shell,
                accounts: status.accounts.iter().map(|account| AccountCard::new(account, now)).collect(),
                damaged: damaged(&status),
                degraded: status.degraded.map(|trouble| trouble.why),
                logins: logins(&site.control.broker.journal, now),
                listeners: status.listeners.iter().map(|one| format!("{} {}", one.protocol, one.address)).collect(),
            })
        }
        Err(failed) => view::failed(&shell, StatusCode::INTERNAL_SERVER_ERROR, "No overview", &failed.message, "/"),
    }
}

fn logins(journal: &LoginJournal, now: Moment) -> Vec<LoginLine> {
    let lines = journal.after(0).into_iter().rev();
    lines.map(|login| LoginLine { time: distance(now, login.at), login }).collect()
}

fn damaged(status: &Status) -> Vec<DamagedAccount> {
    let newer = |address: &String| status.newer.contains(address);
    status.damaged.iter().map(|one| DamagedAccount { address: one.clone(), is_newer: newer(one) }).collect()
}

impl AccountCard {
    pub fn new(account: &AccountStatus, now: Moment) -> Self {
        let refused_login = account.last_login_failure.as_ref().map(|failure| failure.why.clone());
        let (tone, state, action) = match account.state {
            AccountState::Ended => ("bad", "Sign in again", Some(("sign-in", "Sign in again"))),
            AccountState::Refused => ("bad", "Needs you", Some(("doctor", "Find out why"))),
            AccountState::Ready if account.rolled_back || account.doubtful => {
                ("bad", "May be an old record", Some(("sign-in", "Sign in again")))
            }
            AccountState::Ready if refused_login.is_some() => {
                ("bad", "The mail server refused a login", Some(("doctor", "Find out why")))
            }
            AccountState::Ready if account.backoff.is_some() => ("wait", "Waiting for the mail server", None),
            AccountState::Ready if !account.open => ("wait", "Waits for its first login", None),
            AccountState::Ready => ("good", "Works", None),
        };
        let reason = account.reason.clone().or(refused_login).or(account.backoff.as_ref().map(|one| one.why.clone()));
        Self {
            address: account.address.clone(),
            path: view::account_path(&account.address),
            provider: account.provider.clone(),
            tone,
            state,
            reason: reason.as_deref().map(view::sentence),
            token: format!(
                "{}, expires {}",
                distance(now, account.token_refreshed),
                distance(now, account.token_expires)
            ),
            connected: account.connections.iter().filter(|one| one.open > 0).map(connected).collect(),
            action,
        }
    }
}

fn connected(Occupancy { protocol, open, .. }: &Occupancy) -> String {
    format!("{protocol} {open}")
}
