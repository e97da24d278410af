//! `postkey status`.

use super::admin::{AdminClient, ask_running};
use super::terminal::say;
use crate::broker::{AccountState, AccountStatus, Backoff, Occupancy, PastFailure, SlotStatus};
use crate::config::Config;
use crate::control::{ControlRequest, Listening, Status};
use crate::exit::{Exit, Failed};

pub async fn run(config: &Config, json: bool) -> Result<(), Failed> {
    let admin = AdminClient::connect(config).await?;
    let status = admin.status().await?;
    if json {
        let text = serde_json::to_string_pretty(&status).map_err(|error| Failed::new(Exit::Software, error))?;
        say(text);
    } else {
        show(&status);
    }
    Ok(())
}

/// For monitoring: a line, and an exit code. The daemon alone is asked, and no login is made.
pub async fn judge(config: &Config) -> Result<(), Failed> {
    let status = ask_running(config, &ControlRequest::Status).await?;
    let exit = match &status {
        Status { damaged, degraded, .. } if !damaged.is_empty() || degraded.is_some() => Exit::Io,
        Status { accounts, .. } if accounts.iter().any(|account| account.state != AccountState::Ready) => {
            Exit::NoPermission
        }
        Status { accounts, .. } if accounts.iter().any(|account| account.doubtful || account.rolled_back) => Exit::Io,
        _ => {
            say(status.summary());
            return Ok(());
        }
    };
    Err(Failed::new(exit, status.summary()))
}

fn show(status: &Status) {
    if status.listeners.is_empty() {
        say("The daemon does not run; `postkey` starts it.");
    }
    if let Some(trouble) = &status.degraded {
        say(format_args!("degraded: not on stable storage since {}: {}", trouble.since, trouble.why));
    }
    for listening in &status.listeners {
        let Listening { protocol, address, security } = listening;
        say(format_args!("{:<5} {address} {}", protocol.name(), security.name()));
    }
    if status.accounts.is_empty() {
        say("There is no account yet; `postkey --authorize you@example.com` sets one up.");
    }
    for account in &status.accounts {
        show_account(account);
    }
    for address in &status.damaged {
        say(format_args!(
            "{address}: its record in the vault is damaged; `postkey authorize {address}` sets it up again"
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
            "  a file of the vault was damaged, and the copy that was left may be older; \
             if logins fail, run `postkey authorize {address}`"
        ));
    }
    if account.rolled_back {
        say(format_args!(
            "  its record in the vault is older than the last one that postkey wrote: somebody has put older files back, and \
             removed app passwords may open it again; look at `postkey password list {address}`, then run \
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

/// How many connections there are by one protocol.
fn in_use(Occupancy { protocol, open, limit, waiting }: &Occupancy) -> String {
    let limit = limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let waiting = if *waiting == 0 { String::new() } else { format!(", {waiting} waiting") };
    format!("{} {open}{limit}{waiting}", protocol.name())
}

/// What becomes of a refresh token that nobody uses.
fn keep_alive(account: &AccountStatus) -> String {
    match (account.refresh_token_ends, account.next_keep_alive) {
        (None, _) => String::new(),
        (Some(end), Some(next)) => format!("; good without use until {end}, and used {next} at the latest"),
        (Some(end), None) => format!("; good without use until {end}, so a mail program has to log in before"),
    }
}
