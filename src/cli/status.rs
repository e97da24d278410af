//! `postkey status`.

use super::admin::{AdminClient, ask_running};
use super::terminal::say;
use crate::broker::{AccountState, AccountStatus, Backoff, Occupancy, PastFailure, SlotStatus};
use crate::config::{Config, Listening};
use crate::control::{ControlRequest, Status};
use crate::exit::{Exit, Failed};

pub async fn run(config: &Config, json: bool) -> Result<(), Failed> {
    let status = AdminClient::connect(config).await?.status().await?;
    if json {
        say(serde_json::to_string_pretty(&status).map_err(|error| Failed::new(Exit::Software, error))?);
    } else {
        show(&status);
    }
    Ok(())
}

/// For monitoring: shows one line, and fails if something is wrong. It needs a daemon, and does not log in anywhere.
pub async fn summarize(config: &Config) -> Result<(), Failed> {
    let status: Status = ask_running(config, &ControlRequest::Status).await?;
    let summary = status.summary();
    let Status { accounts, damaged, degraded, .. } = status;
    if !damaged.is_empty() || degraded.is_some() {
        Err(Failed::new(Exit::Io, summary))
    } else if accounts.iter().any(|account| account.state != AccountState::Ready) {
        Err(Failed::new(Exit::NoPermission, summary))
    } else if accounts.iter().any(|account| account.doubtful || account.rolled_back) {
        Err(Failed::new(Exit::Io, summary))
    } else {
        say(summary);
        Ok(())
    }
}

fn show(status: &Status) {
    if status.listeners.is_empty() {
        say("No daemon is running; start it with `postkey`.");
    }
    if let Some(trouble) = &status.degraded {
        say(format_args!("degraded: not on stable storage since {}: {}", trouble.since, trouble.why));
    }
    for listening in &status.listeners {
        let Listening { protocol, address, security } = listening;
        say(format_args!("{:<5} {address} security {}", protocol.name(), security.name()));
    }
    if status.accounts.is_empty() {
        say("There is no account yet; set one up with `postkey authorize you@example.com`.");
    }
    for account in &status.accounts {
        show_account(account);
    }
    for address in &status.damaged {
        say(format_args!(
            "{address}: its record in the vault is damaged; set it up again with `postkey authorize {address}`"
        ));
    }
}

fn show_account(account: &AccountStatus) {
    let AccountStatus { address, provider, state, authorized, token_expires, token_refreshed, .. } = account;
    say(format_args!("{address} ({provider}): {state}, authorized {authorized}, token until {token_expires}"));
    if let Some(reason) = &account.reason {
        say(format_args!("  {reason}"));
    }
    say(format_args!("  refreshed {token_refreshed}{}", keep_alive(account)));
    if let Some(PastFailure { at, why }) = account.last_failure.as_ref().filter(|_| account.reason.is_none()) {
        say(format_args!("  the last failure was {at}: {why}"));
    }
    if let Some(Backoff { until, why }) = &account.backoff {
        say(format_args!("  no logins until {until}: {why}"));
    }
    if !account.connections.is_empty() {
        let each: Vec<String> = account.connections.iter().map(in_use).collect();
        say(format_args!("  connections: {}", each.join("; ")));
    }
    if let Some(PastFailure { at, why }) = &account.last_login_failure {
        say(format_args!("  the provider's server refused a login on {at}: {why}"));
    }
    if account.doubtful {
        say(format_args!(
            "  one copy of its record in the vault was damaged, and the other one may be older; \
             if logins fail, run `postkey authorize {address}`"
        ));
    }
    if account.rolled_back {
        say(format_args!(
            "  its record in the vault is older than the last one that postkey wrote, because somebody has restored old \
             files, and removed app passwords may work again; check `postkey password list {address}`, then run \
             `postkey authorize {address}`"
        ));
    }
    for (what, names) in [("further login names", &account.aliases), ("shared mailboxes", &account.mailboxes)] {
        if !names.is_empty() {
            say(format_args!("  {what}: {}", names.join(", ")));
        }
    }
    let name = |slot: &SlotStatus| match slot.limits.is_none() {
        true => slot.name.clone(),
        false => format!("{} (only {})", slot.name, slot.limits),
    };
    let names: Vec<String> = account.slots.iter().map(name).collect();
    say(format_args!("  app passwords: {}", names.join(", ")));
}

/// The number of connections of one protocol.
fn in_use(Occupancy { protocol, open, limit, waiting }: &Occupancy) -> String {
    let limit = limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let waiting = if *waiting == 0 { String::new() } else { format!(", {waiting} waiting") };
    format!("{} {open}{limit}{waiting}", protocol.name())
}

/// When the refresh token expires if it is not used.
fn keep_alive(account: &AccountStatus) -> String {
    match (account.refresh_token_ends, account.next_keep_alive) {
        (None, _) => String::new(),
        (Some(end), Some(next)) => format!("; refresh token expires {end} if unused; postkey will use it by {next}"),
        (Some(end), None) => format!("; refresh token expires {end} if unused; a mail program has to log in before"),
    }
}
