//! Keeping accounts alive: a token is refreshed before somebody waits for a new one, and a refresh token is used before it
//! dies of idleness.
//!
//! One task looks after all accounts that passwords have opened. The tokens of the others are sealed: all that can be done
//! for them is to tell a person in time (`attention.rs`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::account::{Account, Wanted, ended};
use super::patience::shortened;
use super::{Broker, lock};
use crate::clock::Moment;
use crate::config::Config;
use crate::config::flow::Flow;
use crate::protocol::Protocol;
use crate::vault;

/// How often it is looked what is due. Short, for it is also how soon after a machine has woken up everything is looked at:
/// timers stand still while it sleeps, and the clock does not.
const TICK: Duration = Duration::from_secs(20);

/// Between two accounts, at most: who has many does not ask for all their tokens at once.
const APART: Duration = Duration::from_secs(1);

/// How long one that has failed is left alone in the background; twice as long after each further failure. Whoever logs in
/// meanwhile has it tried at once.
const PAUSE: Duration = Duration::from_secs(60);

/// At most. A machine that is offline for a day asks a hundred times.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// How much more than a timer the clock may go ahead, in seconds: beyond, the machine has slept, or the clock was set.
const JUMP: u64 = 60;

/// A refresh token is used after this part of the time that it may lie idle: two more chances are left then.
const IDLE_PART: u64 = 3;

/// How an account's tokens are, for people.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// Whether a password has opened it since the start, so that it can be looked after.
    pub is_open: bool,
    /// When the tokens were last refreshed, or authorized.
    pub refreshed: Moment,
    /// When the refresh token ends unless it is used before, where the provider has such a time.
    pub idle_end: Option<Moment>,
    /// When it is used at the latest, where that can be done.
    pub next_use: Option<Moment>,
    /// When the last refresh failed since the start, and why.
    pub failure: Option<(Moment, String)>,
    /// What a person has to do, if so.
    pub needed: Option<String>,
}

impl Broker {
    /// Refreshes whatever is due, whenever it is due. Never ends.
    pub async fn keep_alive(self: Arc<Self>) {
        let (mut pauses, mut last) = (Pauses::default(), Glance::at(&self));
        loop {
            tokio::time::sleep(shortened(TICK)).await;
            let glance = Glance::at(&self);
            if glance.is_after_a_break(&last) {
                pauses = Pauses::default();
            }
            last = glance;
            for account in self.due() {
                self.refresh_ahead(&account, &mut pauses).await;
            }
        }
    }

    /// The open accounts whose tokens are to be refreshed though nobody waits for them.
    fn due(&self) -> Vec<Arc<Account>> {
        let now = self.now();
        let is_due = |account: &Arc<Account>| {
            let Some(record) = self.vault.account(&account.owner).filter(|record| record.ended.is_none()) else {
                return false;
            };
            let wears_out = account.held().tokens.life.is_due(account.usage(Protocol::Imap), now);
            let ages = self.next_use(&record).is_some_and(|next| next <= now);
            account.is_in_use() && wears_out || ages
        };
        self.open_owners().into_values().filter(is_due).collect()
    }

    async fn refresh_ahead(self: &Arc<Self>, account: &Arc<Account>, pauses: &mut Pauses) {
        if !pauses.is_over(&account.owner) {
            return;
        }
        let before = account.held().generation;
        // What came of it shows in the account; the log has said it.
        let _outcome = self.begin_refresh(account, None, Wanted::Newer(before)).await;
        pauses.note(&account.owner, account.held().generation != before);
        tokio::time::sleep(shortened(APART)).await;
    }

    /// Has the next refresh of an account tried, whatever was before: a person wants to see whether it works now.
    pub async fn insist(&self, account: &Account) {
        account.tokens.refreshing.lock().await.insist();
    }

    /// How the tokens of an account are.
    pub fn condition(&self, record: &vault::Account) -> Condition {
        let open = self.open_owners().remove(&record.address);
        let health = open.as_ref().map(|account| lock(&account.tokens.health).clone()).unwrap_or_default();
        let ended = record.ended.as_ref().map(|end| ended(&record.address, &end.why));
        Condition {
            is_open: open.is_some(),
            refreshed: record.life().issued,
            idle_end: self.idle_life(record).map(|life| record.life().issued.after(life)),
            next_use: self.next_use(record).filter(|_| open.is_some() && ended.is_none()),
            failure: health.failure,
            needed: health.needed.or(ended),
        }
    }

    /// When the refresh token is to be used at the latest.
    fn next_use(&self, record: &vault::Account) -> Option<Moment> {
        self.idle_life(record).map(|life| record.life().issued.after(life / IDLE_PART))
    }

    /// How long a refresh token of this account may lie idle, in seconds.
    fn idle_life(&self, record: &vault::Account) -> Option<u64> {
        // The other grants ask anew; their tokens do not age.
        if !matches!(record.flow, Flow::AuthorizationCode | Flow::DeviceCode) {
            return None;
        }
        let life = self.config().providers.get(&record.provider)?.refresh_token_life?;
        Some(life.as_secs())
    }
}

/// When it was looked what is due, and by which configuration.
struct Glance {
    timer: Instant,
    clock: Moment,
    config: Arc<Config>,
}

impl Glance {
    fn at(broker: &Broker) -> Self {
        Self { timer: Instant::now(), clock: broker.now(), config: broker.config() }
    }

    /// Whether what has failed before the last glance may well succeed now: the machine has slept, or the clock was set; or
    /// the configuration is another one.
    fn is_after_a_break(&self, last: &Self) -> bool {
        let passed = self.timer.duration_since(last.timer).as_secs();
        let has_jumped = self.clock.since(last.clock) > passed + JUMP;
        has_jumped || !Arc::ptr_eq(&self.config, &last.config)
    }
}

/// Which accounts are left alone in the background for now, and after how many failures.
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
    async fn failures_are_left_alone_longer_and_longer_and_a_success_ends_that() {
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
