//! `postkey status`.

use std::fmt::Write as _;

use super::accounts;
use super::admin::{AdminClient, ask_running};
use super::arguments::StatusOptions;
use super::terminal::{page, say};
use crate::broker::{AccountStatus, Backoff, Census, Occupancy, PastFailure, Selection, SlotStatus};
use crate::config::{Config, Listening};
use crate::control::{ControlRequest, Status};
use crate::exit::{Exit, Failed};

/// Shows the listeners and the accounts that the options select.
pub async fn run(config: &Config, options: StatusOptions) -> Result<(), Failed> {
    if options.exit_code {
        return summarize(config).await;
    }
    let StatusOptions { address, needs_person, provider, json, json_lines, .. } = options;
    let admin = AdminClient::connect(config).await?;
    let selection = Selection { address: address.map(|address| config.address_of(&address)), needs_person, provider };
    let status: Status = admin.ask(ControlRequest::Select(selection.clone())).await?;
    if let (Some(address), true) = (&selection.address, status.accounts.is_empty() && status.damaged.is_empty()) {
        accounts::find(config, &admin, address).await?;
    }
    if json {
        say(serde_json::to_string_pretty(&status).map_err(|error| Failed::new(Exit::Software, error))?);
    } else if json_lines {
        show_lines(&status)?;
    } else {
        page(&text(&status, &selection));
    }
    Ok(())
}

/// Shows an object in each line: the accounts, and then the damaged records.
fn show_lines(status: &Status) -> Result<(), Failed> {
    let failed = |error| Failed::new(Exit::Software, error);
    for account in &status.accounts {
        say(serde_json::to_string(account).map_err(failed)?);
    }
    for address in &status.damaged {
        say(serde_json::json!({ "address": address, "state": "damaged" }));
    }
    Ok(())
}

/// For monitoring: shows one line, and fails if something is wrong. It needs a daemon, and does not log in anywhere.
async fn summarize(config: &Config) -> Result<(), Failed> {
    let census: Census = ask_running(config, &ControlRequest::Census).await?;
    let summary = census.summary();
    let Census { needing, older, damaged, is_degraded, .. } = census;
    if damaged.count > 0 || is_degraded {
        Err(Failed::new(Exit::Io, summary))
    } else if needing.count > 0 {
        Err(Failed::new(Exit::NoPermission, summary))
    } else if older.count > 0 {
        Err(Failed::new(Exit::Io, summary))
    } else {
        say(summary);
        Ok(())
    }
}

/// The text for people.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, line: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _written = writeln!(self.0, "{line}");
    }
}

fn text(status: &Status, selection: &Selection) -> String {
    let mut text = Lines::default();
    if status.listeners.is_empty() {
        text.add("No daemon is running; start it with `postkey`.");
    }
    if let Some(trouble) = &status.degraded {
        text.add(format_args!("degraded: not on stable storage since {}: {}", trouble.since, trouble.why));
    }
    for listening in &status.listeners {
        let Listening { protocol, address, security } = listening;
        text.add(format_args!("{:<5} {address} security {}", protocol.name(), security.name()));
    }
    let is_all = selection.address.is_none() && selection.provider.is_none() && !selection.needs_person;
    match status.accounts.is_empty() && status.damaged.is_empty() {
        true if is_all => text.add("There is no account yet; set one up with `postkey authorize you@example.com`."),
        true => text.add("No account is like that."),
        false => {}
    }
    for account in &status.accounts {
        add_account(&mut text, account);
    }
    for address in &status.damaged {
        text.add(format_args!(
            "{address}: its record in the vault is damaged; set it up again with `postkey authorize {address}`"
        ));
    }
    text.0
}

fn add_account(text: &mut Lines, account: &AccountStatus) {
    let AccountStatus { address, provider, state, authorized, token_expires, token_refreshed, .. } = account;
    text.add(format_args!("{address} ({provider}): {state}, authorized {authorized}, token until {token_expires}"));
    if let Some(reason) = &account.reason {
        text.add(format_args!("  {reason}"));
    }
    text.add(format_args!("  refreshed {token_refreshed}{}", keep_alive(account)));
    if let Some(PastFailure { at, why }) = account.last_failure.as_ref().filter(|_| account.reason.is_none()) {
        text.add(format_args!("  the last failure was {at}: {why}"));
    }
    if let Some(Backoff { until, why }) = &account.backoff {
        text.add(format_args!("  no logins until {until}: {why}"));
    }
    if !account.connections.is_empty() {
        let each: Vec<String> = account.connections.iter().map(in_use).collect();
        text.add(format_args!("  connections: {}", each.join("; ")));
    }
    if let Some(PastFailure { at, why }) = &account.last_login_failure {
        text.add(format_args!("  the provider's server refused a login on {at}: {why}"));
    }
    if account.doubtful {
        text.add(format_args!(
            "  one copy of its record in the vault was damaged, and the other one may be older; \
             if logins fail, run `postkey authorize {address}`"
        ));
    }
    if account.rolled_back {
        text.add(format_args!(
            "  its record in the vault is older than the last one that postkey wrote, because somebody has restored old \
             files, and removed app passwords may work again; check `postkey password list {address}`, then run \
             `postkey authorize {address}`"
        ));
    }
    for (what, names) in [("further login names", &account.aliases), ("shared mailboxes", &account.mailboxes)] {
        if !names.is_empty() {
            text.add(format_args!("  {what}: {}", names.join(", ")));
        }
    }
    let name = |slot: &SlotStatus| match slot.limits.is_none() {
        true => slot.name.clone(),
        false => format!("{} (only {})", slot.name, slot.limits),
    };
    let names: Vec<String> = account.slots.iter().map(name).collect();
    text.add(format_args!("  app passwords: {}", names.join(", ")));
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
