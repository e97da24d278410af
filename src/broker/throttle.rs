//! A provider's limits for an account: so many connections at a time, and no new ones during a pause that it has asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::account::OpenAccount;
use super::context::{Context, lock};
use super::state::Mailbox;

use crate::clock::Moment;
use crate::protocol::Protocol;
use crate::wire::{Reason, Refusal};

/// How long a login over the limit waits for the end of a session: less than mail programs wait for an answer.
const WAIT: Duration = Duration::from_secs(20);

/// The longest back-off that is kept. An hour without mail is what a person would bear.
const LONGEST: Duration = Duration::from_secs(3600);

/// As many connections as anybody could have. Without a limit they are still counted.
const NO_LIMIT: usize = 1 << 20;

/// A place among an account's connections to the provider by one protocol. When it is dropped, it goes to the login that has
/// waited longest.
pub struct ConnectionPermit {
    permit: Option<OwnedSemaphorePermit>,
    connections: Arc<MailboxConnections>,
}

/// The connections of a mailbox.
struct MailboxConnections {
    free: Arc<Semaphore>,
    size: Mutex<Size>,
    /// Shared by the logins that wait.
    waiting: Arc<()>,
}

/// How many places there are.
struct Size {
    limit: usize,
    /// Places that are taken and beyond the limit, because that was lowered: they end with their sessions.
    surplus: usize,
}

/// A pause that a provider has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Until when the provider wants no logins.
    pub until: Moment,
    /// In whose words.
    pub why: String,
}

/// The connections of a mailbox in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupancy {
    /// By which protocol.
    pub protocol: Protocol,
    /// How many are open or being opened.
    pub open: usize,
    /// How many there may be, where there is a limit.
    pub limit: Option<usize>,
    /// How many logins wait for one to end.
    pub waiting: usize,
}

/// The connections of all accounts, and the pauses that their providers have asked for.
pub struct Throttle {
    context: Arc<Context>,
    connections: Mutex<HashMap<Mailbox, Arc<MailboxConnections>>>,
    /// By address, and until when.
    backoffs: Mutex<HashMap<String, (Instant, Backoff)>>,
}

impl Throttle {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), connections: Mutex::default(), backoffs: Mutex::default() }
    }

    /// A place for one more connection. Over the limit it waits for one, first come, first served; whoever stops waiting
    /// gives its turn away.
    ///
    /// # Errors
    ///
    /// None has become free in time, or the provider wants to be left alone.
    pub async fn permit(&self, account: &OpenAccount, protocol: Protocol) -> Result<ConnectionPermit, Refusal> {
        self.check_backoff(account)?;
        let limit = self.context.config().connections(&account.address, &account.connector.provider, protocol);
        let connections = Arc::clone(lock(&self.connections).entry(account.mailbox(protocol)).or_default());
        connections.resize(limit.unwrap_or(NO_LIMIT));
        let place = connections.take().await.ok_or_else(|| {
            let text = format!(
                "All {} connections by {protocol} that {} allows {} are in use, and none has ended for {} seconds: close a \
                 mail program, or change connections in postkey's configuration.",
                limit.unwrap_or(NO_LIMIT),
                account.connector.provider.name,
                account.address,
                WAIT.as_secs()
            );
            Refusal::new(Reason::Limit, text)
        })?;
        self.check_backoff(account)?;
        Ok(place)
    }

    /// The provider has named a time for which it wants no logins to this account.
    pub fn back_off(&self, account: &OpenAccount, time: Duration, said: &str) {
        let time = time.min(LONGEST);
        let (address, seconds) = (&account.address, time.as_secs());
        warn!(
            account = address,
            seconds, said, "no logins to {address} for {seconds} s, because the provider asks for a pause: {said}"
        );
        let backoff = Backoff { until: self.context.now().after(seconds), why: said.to_owned() };
        lock(&self.backoffs).insert(account.address.clone(), (Instant::now() + time, backoff));
    }

    /// Whether the provider may be asked to log this account in.
    ///
    /// # Errors
    ///
    /// Until when it wants to be left alone, and its words.
    pub fn check_backoff(&self, account: &OpenAccount) -> Result<(), Refusal> {
        let Some(Backoff { until, why }) = self.backoff(&account.address) else { return Ok(()) };
        Err(Refusal::new(Reason::Limit, format!("Try again after {until}: the provider asks for a pause: {why}")))
    }

    /// Until when the provider wants no logins to this account, and its words.
    pub(super) fn backoff(&self, address: &str) -> Option<Backoff> {
        let mut backoffs = lock(&self.backoffs);
        backoffs.retain(|_, (end, _)| Instant::now() < *end);
        backoffs.get(address).map(|(_, backoff)| backoff.clone())
    }

    /// How many connections an account has, by protocol. A protocol with neither connections nor a limit is left out.
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

    /// Gives those who wait the places that a new configuration allows.
    pub(super) fn reconfigure(&self) {
        for (Mailbox { address, protocol }, connections) in &*lock(&self.connections) {
            connections.resize(self.limit(address, *protocol).unwrap_or(NO_LIMIT));
        }
    }

    /// Lets the next login try whether the provider's pause is over.
    pub(super) fn forget_backoff(&self, address: &str) {
        lock(&self.backoffs).remove(address);
    }

    /// The configuration's limit, also where nobody has logged in yet.
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
    /// Waits for a place, in turn; None if there was none for too long.
    async fn take(self: &Arc<Self>) -> Option<ConnectionPermit> {
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
            let still_taken = more.min(size.surplus);
            size.surplus -= still_taken;
            self.free.add_permits(more - still_taken);
        } else {
            let fewer = size.limit - limit;
            size.surplus += fewer - self.free.forget_permits(fewer);
        }
        size.limit = limit;
    }

    /// How many are taken, and how many wait.
    fn numbers(&self) -> (usize, usize) {
        let size = lock(&self.size);
        let taken = (size.limit + size.surplus).saturating_sub(self.free.available_permits());
        (taken, Arc::strong_count(&self.waiting) - 1)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut size = lock(&self.connections.size);
        if size.surplus > 0 {
            size.surplus -= 1;
            // What goes beyond the limit is nobody's place any more.
            self.permit.take().into_iter().for_each(OwnedSemaphorePermit::forget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_go_to_whoever_has_waited_longest_and_come_back_at_once() {
        let connections = Arc::new(MailboxConnections::default());
        connections.resize(2);
        let mut places = vec![connections.take().await.unwrap(), connections.take().await.unwrap()];
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let connections = Arc::clone(&connections);
                tokio::spawn(async move { connections.take().await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(connections.numbers(), (2, 3));
        let Ok([first, second, third]) = <[_; 3]>::try_from(waiters) else { panic!("there are three") };
        second.abort();
        assert!(second.await.is_err());
        drop(places.pop());
        places.push(first.await.unwrap().unwrap());
        assert_eq!(connections.numbers(), (2, 1), "whoever went away does not wait");
        drop(places.pop());
        places.push(third.await.unwrap().unwrap());
        assert!(connections.take().await.is_none(), "nobody waits for ever");
        assert_eq!(connections.numbers(), (2, 0));
    }

    #[tokio::test]
    async fn a_limit_that_changes_counts_from_now_on() {
        let connections = Arc::new(MailboxConnections::default());
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(connections.take().await.unwrap());
        }
        connections.resize(2);
        assert_eq!((connections.numbers().0, connections.free.available_permits()), (4, 0));
        places.truncate(2);
        assert_eq!((connections.numbers().0, connections.free.available_permits()), (2, 0));
        connections.resize(3);
        assert_eq!((connections.numbers().0, connections.free.available_permits()), (2, 1));
        connections.resize(1);
        connections.resize(2);
        assert_eq!((connections.numbers().0, connections.free.available_permits()), (2, 0));
        places.clear();
        connections.resize(NO_LIMIT);
        assert_eq!(connections.numbers().0, 0);
    }
}
