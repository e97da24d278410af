//! Keeps accounts alive: refreshes a token before a login needs a new one, and uses a refresh token before it expires.
//!
//! One task does this for all open accounts. The tokens of the others are sealed, so postkey can only notify a person in time
//! (`notices.rs`). Each account has its own part of the time in which a refresh is due (`share`), so that the tokens of accounts
//! that were authorized together are not all refreshed together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::account::OpenAccount;
use super::accounts::Accounts;
use super::context::Context;
use super::refresh::Refresher;
use super::status::{next_use, share};
use crate::clock::Moment;
use crate::config::Config;
use crate::protocol::Protocol;
use crate::random::shortened;

/// How often to check what is due. Short, because it is also the delay after resume from suspend: timers stop while the machine
/// sleeps, the clock does not.
const TICK: Duration = Duration::from_secs(20);

/// How long an account whose refresh failed is not refreshed in the background; doubled after each further failure. A login
/// in the meantime tries at once.
const PAUSE: Duration = Duration::from_secs(60);

/// The upper limit. A machine that is offline for a day tries a hundred times.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// Seconds by which the clock may run ahead of a timer. If it is more, the machine has slept or the clock was set.
const JUMP: u64 = 60;

/// Refreshes tokens when they are due. Never returns.
pub(super) async fn run(context: &Arc<Context>, accounts: &Accounts, refresher: &Arc<Refresher>) {
    let (mut pauses, mut last) = (Pauses::default(), LastCheck::at(context));
    // By owner, whether there are new tokens.
    let mut running = HashMap::<String, JoinHandle<bool>>::new();
    loop {
        tokio::time::sleep(shortened(TICK)).await;
        let ended: Vec<_> = running.extract_if(|_, task| task.is_finished()).collect();
        for (owner, task) in ended {
            // A panic has been logged.
            pauses.note(&owner, task.await.unwrap_or_default());
        }
        let now = LastCheck::at(context);
        if now.is_after_a_break(&last) {
            pauses = Pauses::default();
        }
        last = now;
        for (owner, account) in accounts.by_owner() {
            if !running.contains_key(&owner) && pauses.is_over(&owner) && is_due(context, &account) {
                let (context, refresher) = (Arc::clone(context), Arc::clone(refresher));
                running.insert(owner, tokio::spawn(refresh_ahead(context, refresher, account)));
            }
        }
    }
}

/// Whether to refresh an account's tokens although nobody waits for them.
fn is_due(context: &Context, account: &OpenAccount) -> bool {
    let record = context.vault.account(&account.owner);
    let Some(record) = record.filter(|record| record.ended.is_none()) else { return false };
    let life = account.tokens.current().tokens.life;
    let expires_soon = || life.is_due(account.usage(Protocol::Imap), share(&account.owner), context.now());
    let is_unused = next_use(&context.config(), &record).is_some_and(|next| next <= context.now());
    account.tokens.has_session() && expires_soon() || is_unused
}

/// Refreshes an account's tokens when it has a permit, and returns whether they are no longer due.
async fn refresh_ahead(context: Arc<Context>, refresher: Arc<Refresher>, account: Arc<OpenAccount>) -> bool {
    let of_server = refresher.server_permits.of(&account);
    // The semaphore is never closed.
    let _permit = of_server.ahead.acquire().await;
    // A login may have refreshed them while this one waited.
    if is_due(&context, &account) {
        // The outcome is in the account and in the log.
        let _outcome = refresher.renew(&account, account.generation()).await;
    }
    !is_due(&context, &account)
}

/// When the last check was made, and with which configuration.
struct LastCheck {
    timer: Instant,
    clock: Moment,
    config: Arc<Config>,
}

impl LastCheck {
    fn at(context: &Context) -> Self {
        Self { timer: Instant::now(), clock: context.now(), config: context.config() }
    }

    /// Whether what failed before may succeed now: the machine has slept, the clock was set, or the configuration changed.
    fn is_after_a_break(&self, last: &Self) -> bool {
        let passed = self.timer.duration_since(last.timer).as_secs();
        let has_jumped = self.clock.since(last.clock) > passed + JUMP;
        has_jumped || !Arc::ptr_eq(&self.config, &last.config)
    }
}

/// Until when accounts are not refreshed in the background, and after how many failures.
#[derive(Default)]
struct Pauses(HashMap<String, (Instant, u32)>);

impl Pauses {
    fn is_over(&self, address: &str) -> bool {
        self.0.get(address).is_none_or(|(until, _)| *until <= Instant::now())
    }

    fn note(&mut self, address: &str, succeeded: bool) {
        if succeeded {
            self.0.remove(address);
            return;
        }
        let (until, failures) = self.0.entry(address.to_owned()).or_insert((Instant::now(), 0));
        *until = Instant::now() + shortened(PAUSE.saturating_mul(1 << (*failures).min(10)).min(LONGEST_PAUSE));
        *failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pause_grows_with_each_failure_and_a_success_ends_it() {
        let mut pauses = Pauses::default();
        assert!(pauses.is_over("ann"));
        for seconds in [60, 120, 240, 480, 900, 900] {
            pauses.note("ann", false);
            tokio::time::advance(Duration::from_secs(seconds * 3 / 4 - 1)).await;
            assert!(!pauses.is_over("ann") && pauses.is_over("ben"), "{seconds}");
            tokio::time::advance(Duration::from_secs(seconds / 4 + 1)).await;
            assert!(pauses.is_over("ann"), "{seconds}");
        }
        pauses.note("ann", false);
        pauses.note("ann", true);
        assert!(pauses.is_over("ann"));
    }
}
