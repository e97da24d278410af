//! A provider's limits for an account: the number of connections, and pauses that the provider asks for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::account::OpenAccount;
use super::context::Context;
use super::state::Mailbox;
use crate::clock::Moment;
use crate::mutex::lock;
use crate::protocol::Protocol;
use crate::wire::{Reason, Refusal};

/// How long a login over the limit waits for another session to end: less than mail programs wait for an answer.
const WAIT: Duration = Duration::from_secs(20);

/// The longest pause that a provider can ask for. People can bear an hour without mail.
const LONGEST: Duration = Duration::from_secs(3600);

/// More connections than anybody has. They are counted even if there is no limit.
const NO_LIMIT: usize = 1 << 20;

/// The right to one of a mailbox's connections to the provider. When it is dropped, the login that has waited longest gets it.
pub struct ConnectionPermit {
    permit: Option<OwnedSemaphorePermit>,
    connections: Arc<MailboxConnections>,
}

struct MailboxConnections {
    free: Arc<Semaphore>,
    size: Mutex<Size>,
    /// Cloned by each login that waits.
    waiting: Arc<()>,
}

struct Size {
    limit: usize,
    /// Permits beyond the limit, because it was lowered. They end with their sessions.
    surplus: usize,
}

/// A pause that a provider has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    pub until: Moment,
    /// The provider's words.
    pub why: String,
}

/// The number of a mailbox's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupancy {
    pub protocol: Protocol,
    /// How many are open or are being opened.
    pub open: usize,
    pub limit: Option<usize>,
    /// How many logins wait for one.
    pub waiting: usize,
}

/// The connections of all accounts together.
#[derive(Default)]
pub(super) struct Totals {
    /// By provider and protocol, how many are open or are being opened, and how many logins wait for one.
    pub(super) connections: BTreeMap<(String, Protocol), (usize, usize)>,
    /// By provider, how many mailboxes it wants to have left alone.
    pub(super) backoffs: BTreeMap<String, usize>,
}

/// The connections of all accounts, and the pauses that their providers have asked for.
pub struct Throttle {
    context: Arc<Context>,
    connections: Mutex<HashMap<Mailbox, Arc<MailboxConnections>>>,
    /// By address, with the time at which the pause ends.
    backoffs: Mutex<HashMap<String, (Instant, Backoff)>>,
}

impl Throttle {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), connections: Mutex::default(), backoffs: Mutex::default() }
    }

    /// Waits until another connection is allowed, in the order of the calls. A caller that stops waiting loses its turn.
    ///
    /// # Errors
    ///
    /// No connection has ended in time, or the provider has asked for a pause.
    pub async fn permit(&self, account: &OpenAccount, protocol: Protocol) -> Result<ConnectionPermit, Refusal> {
        self.check_backoff(account)?;
        let limit = self.context.config().connections(&account.address, &account.connector.provider, protocol);
        let connections = Arc::clone(lock(&self.connections).entry(account.mailbox(protocol)).or_default());
        connections.resize(limit.unwrap_or(NO_LIMIT));
        let permit = connections.permit().await.ok_or_else(|| {
            let text = format!(
                "All {} {protocol} connections that {} allows for {} are in use, and none has ended within {} seconds. Close a \
                 mail program, or change connections in postkey's configuration.",
                limit.unwrap_or(NO_LIMIT),
                account.connector.provider.name,
                account.address,
                WAIT.as_secs()
            );
            Refusal::new(Reason::Limit, text)
        })?;
        self.check_backoff(account)?;
        Ok(permit)
    }

    /// Refuses logins to this account for a time that the provider has asked for.
    pub fn back_off(&self, account: &OpenAccount, time: Duration, said: &str) {
        let time = time.min(LONGEST);
        let (address, seconds) = (&account.address, time.as_secs());
        warn!(
            account = address,
            seconds, said, "no logins to {address} for {seconds} s, because the provider asks for a pause: {said}"
        );
        let backoff = Backoff { until: self.context.now().after(seconds), why: said.to_owned() };
        let now = Instant::now();
        let mut backoffs = lock(&self.backoffs);
        backoffs.retain(|_, (end, _)| now < *end);
        backoffs.insert(account.address.clone(), (now + time, backoff));
    }

    /// Checks that the provider has not asked for a pause.
    ///
    /// # Errors
    ///
    /// It has; until when, and its words.
    pub fn check_backoff(&self, account: &OpenAccount) -> Result<(), Refusal> {
        let Some(Backoff { until, why }) = self.backoff(&account.address, Instant::now()) else { return Ok(()) };
        Err(Refusal::new(Reason::Limit, format!("Try again after {until}: the provider asks for a pause: {why}")))
    }

    pub(super) fn backoff(&self, address: &str, now: Instant) -> Option<Backoff> {
        let backoffs = lock(&self.backoffs);
        backoffs.get(address).filter(|(end, _)| now < *end).map(|(_, backoff)| backoff.clone())
    }

    /// The numbers of connections and of logins that wait for one, by provider and protocol, and how many mailboxes of each
    /// provider are to be left alone now.
    pub(super) fn totals(&self) -> Totals {
        let (config, now) = (self.context.config(), Instant::now());
        let provider = |address: &str| {
            let record = self.context.vault.account(config.owner_of(address));
            record.map(|record| record.provider.clone()).unwrap_or_default()
        };
        let mut totals = Totals::default();
        for (Mailbox { address, protocol }, connections) in &*lock(&self.connections) {
            let (open, waiting) = connections.numbers();
            let total = totals.connections.entry((provider(address), *protocol)).or_default();
            (total.0, total.1) = (total.0 + open, total.1 + waiting);
        }
        for (address, _) in lock(&self.backoffs).iter().filter(|(_, (end, _))| now < *end) {
            *totals.backoffs.entry(provider(address)).or_default() += 1;
        }
        totals
    }

    /// The number of an account's connections by protocol, without protocols that have neither connections nor a limit.
    pub(super) fn occupancies(&self, address: &str) -> Vec<Occupancy> {
        let all = lock(&self.connections);
        let occupancy = |protocol| {
            let limit = self.limit(address, protocol);
            let connections = all.get(&Mailbox { address: address.to_owned(), protocol });
            let (open, waiting) = connections.map(|connections| connections.numbers()).unwrap_or_default();
            (open > 0 || limit.is_some()).then_some(Occupancy { protocol, open, limit, waiting })
        };
        Protocol::ALL.into_iter().filter_map(occupancy).collect()
    }

    /// Applies the limits of a new configuration.
    pub(super) fn reconfigure(&self) {
        for (Mailbox { address, protocol }, connections) in &*lock(&self.connections) {
            connections.resize(self.limit(address, *protocol).unwrap_or(NO_LIMIT));
        }
    }

    /// Lets the next login try in spite of a pause.
    pub(super) fn forget_backoff(&self, address: &str) {
        lock(&self.backoffs).remove(address);
    }

    /// The configured limit of an account that may not have been opened yet.
    fn limit(&self, address: &str, protocol: Protocol) -> Option<usize> {
        let config = self.context.config();
        let record = self.context.vault.account(config.owner_of(address))?;
        config.connections(address, config.providers.get(&record.provider)?, protocol)
    }
}

impl Default for MailboxConnections {
    fn default() -> Self {
        let size = Mutex::new(Size { limit: NO_LIMIT, surplus: 0 });
        Self { free: Arc::new(Semaphore::new(NO_LIMIT)), size, waiting: Arc::default() }
    }
}

impl MailboxConnections {
    /// Waits for a permit; None after too long.
    async fn permit(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let free = Arc::clone(&self.free);
        let permit = match free.try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Arc::clone(&self.waiting);
                // The semaphore is never closed.
                timeout(WAIT, Arc::clone(&self.free).acquire_owned()).await.ok()?.ok()?
            }
        };
        Some(ConnectionPermit { permit: Some(permit), connections: Arc::clone(self) })
    }

    fn resize(&self, limit: usize) {
        let mut size = lock(&self.size);
        if limit >= size.limit {
            let more = limit - size.limit;
            let still_used = more.min(size.surplus);
            size.surplus -= still_used;
            self.free.add_permits(more - still_used);
        } else {
            let fewer = size.limit - limit;
            size.surplus += fewer - self.free.forget_permits(fewer);
        }
        size.limit = limit;
    }

    /// How many permits are in use, and how many logins wait.
    fn numbers(&self) -> (usize, usize) {
        let size = lock(&self.size);
        let used = (size.limit + size.surplus).saturating_sub(self.free.available_permits());
        (used, Arc::strong_count(&self.waiting) - 1)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut size = lock(&self.connections.size);
        if size.surplus > 0 {
            size.surplus -= 1;
            // Nobody gets a permit beyond the limit.
            self.permit.take().into_iter().for_each(OwnedSemaphorePermit::forget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_login_that_has_waited_longest_gets_the_next_permit() {
        let connections = Arc::new(MailboxConnections::default());
        connections.resize(2);
        let mut permits = vec![connections.permit().await.unwrap(), connections.permit().await.unwrap()];
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let connections = Arc::clone(&connections);
                tokio::spawn(async move { connections.permit().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(connections.numbers(), (2, 3));
        let Ok([first, second, third]) = <[_; 3]>::try_from(waiters) else { panic!("not three") };
        second.abort();
        assert!(second.await.is_err());
        drop(permits.pop());
        permits.push(first.await.unwrap().unwrap());
        assert_eq!(connections.numbers(), (2, 1), "the aborted login does not wait");
        drop(permits.pop());
        permits.push(third.await.unwrap().unwrap());
        assert!(connections.permit().await.is_none(), "the wait has an end");
        assert_eq!(connections.numbers(), (2, 0));
    }

    #[tokio::test]
    async fn a_changed_limit_applies_at_once() {
        let connections = Arc::new(MailboxConnections::default());
        let mut permits = Vec::new();
        for _ in 0..4 {
            permits.push(connections.permit().await.unwrap());
        }
        connections.resize(2);
        assert_eq!((connections.numbers().0, connections.free.available_permits()), (4, 0));
        permits.truncate(2);
        assert_eq!((connections.numbers().0, connections.free.available_permits()), (2, 0));
        connections.resize(3);
        assert_eq!((connections.numbers().0, connections.free.available_permits()), (2, 1));
        connections.resize(1);
        connections.resize(2);
        assert_eq!((connections.numbers().0, connections.free.available_permits()), (2, 0));
        permits.clear();
        connections.resize(NO_LIMIT);
        assert_eq!(connections.numbers().0, 0);
    }
}
