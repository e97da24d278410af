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
    // By owner, the generation to replace, and whether that has worked.
    let mut running = HashMap::<String, (u64, JoinHandle<bool>)>::new();
    loop {
        tokio::time::sleep(shortened(TICK)).await;
        let ended: Vec<_> = running.extract_if(|_, (_, task)| task.is_finished()).collect();
        for (owner, (generation, task)) in ended {
            // A panic has been logged.
            match task.await.unwrap_or(false) {
                true => pauses.end(&owner),
                false => pauses.begin(&owner, generation),
            }
        }
        let now = LastCheck::at(context);
        if now.is_after_a_break(&last) {
            pauses = Pauses::default();
        }
        last = now;
        for (owner, account) in accounts.by_owner() {
            let generation = account.generation();
            if !running.contains_key(&owner) && pauses.is_over(&owner, generation) && is_due(context, &account) {
                let (context, refresher) = (Arc::clone(context), Arc::clone(refresher));
                running.insert(owner, (generation, tokio::spawn(refresh_ahead(context, refresher, account))));
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

/// Refreshes an account's tokens when it has a permit. Returns whether it has new ones.
async fn refresh_ahead(context: Arc<Context>, refresher: Arc<Refresher>, account: Arc<OpenAccount>) -> bool {
    let of_server = refresher.server_permits.of(&account);
    // The semaphore is never closed.
    let _permit = of_server.ahead.acquire().await;
    // A login may have refreshed them while this one waited.
    if !is_due(&context, &account) {
        return true;
    }
    let before = account.generation();
    // The outcome is in the account and in the log.
    let _outcome = refresher.renew(&account, before).await;
    account.generation() != before
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

/// The accounts that are not refreshed in the background for a while, because that failed.
#[derive(Default)]
struct Pauses(HashMap<String, Pause>);

struct Pause {
    /// The generation that could not be replaced. If a login has replaced it, the pause is over.
    generation: u64,
    until: Instant,
    failures: u32,
}

impl Pauses {
    fn is_over(&self, address: &str, generation: u64) -> bool {
        self.0.get(address).is_none_or(|pause| pause.generation != generation || pause.until <= Instant::now())
    }

    fn end(&mut self, address: &str) {
        self.0.remove(address);
    }

    /// Begins a pause. It is twice as long as the one before, if that was for the same generation.
    fn begin(&mut self, address: &str, generation: u64) {
        let before = self.0.get(address).filter(|pause| pause.generation == generation);
        let failures = before.map_or(0, |pause| pause.failures);
        let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
        let until = Instant::now() + shortened(pause);
        self.0.insert(address.to_owned(), Pause { generation, until, failures: failures + 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pause_grows_with_each_failure_and_a_new_generation_ends_it() {
        let mut pauses = Pauses::default();
        assert!(pauses.is_over("ann", 1));
        for seconds in [60, 120, 240, 480, 900, 900] {
            pauses.begin("ann", 1);
            tokio::time::advance(Duration::from_secs(seconds * 3 / 4 - 1)).await;
            assert!(!pauses.is_over("ann", 1) && pauses.is_over("ben", 1), "{seconds}");
            tokio::time::advance(Duration::from_secs(seconds / 4 + 1)).await;
            assert!(pauses.is_over("ann", 1), "{seconds}");
        }
        pauses.begin("ann", 1);
        assert!(!pauses.is_over("ann", 1) && pauses.is_over("ann", 2), "a login has got new tokens");
        pauses.begin("ann", 2);
        tokio::time::advance(PAUSE).await;
        assert!(pauses.is_over("ann", 2), "the earlier failures do not count");
        pauses.begin("ann", 2);
        pauses.end("ann");
        assert!(pauses.is_over("ann", 2));
    }
}
