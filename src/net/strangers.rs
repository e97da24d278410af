//! Connections that have not logged in yet: how many there may be, which one is evicted when there is no room, and what
//! the log says about them.
//!
//! A process has one [`Strangers`] for all its ports and protocols. A connection is admitted as soon as its source is
//! known, before TLS and before anything is sent:
//!
//! ```text
//! let peer = Peer::of(&socket)?;
//! let stranger = strangers.admit(Source::of(&peer));
//! tokio::select! {
//!     served = serve(socket) => served,
//!     () = stranger.evicted() => close,
//! }
//! ```
//!
//! Dropping the [`Stranger`] frees its place. Connections that never log in, such as those of browsers, stay strangers.

mod log_limit;
mod source;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub use log_limit::{LogLimit, LogTopic};
pub use source::Source;

/// One source may have a quarter of all places.
const SHARE: usize = 4;

/// The minimum number of places for a source, because a mail program opens five connections at once.
const LEAST: usize = 8;

/// All connections that have not logged in, and the room for sessions.
pub struct Strangers {
    most: usize,
    most_of_one: usize,
    sessions: Arc<Semaphore>,
    crowd: Mutex<Crowd>,
    /// Limits what the log says about them.
    pub log_limit: LogLimit,
}

/// A connection whose peer has not logged in. Dropping this frees its place.
pub struct Stranger {
    strangers: Arc<Strangers>,
    source: Source,
    /// Its number; 0 while it has no place.
    number: AtomicU64,
    evicted: Arc<Notify>,
}

/// Permits one session after its login, until it is dropped.
pub struct SessionPermit {
    _permit: OwnedSemaphorePermit,
}

impl Strangers {
    /// Allows at most `most` connections before their login, and `sessions` after it.
    pub fn new(most: usize, sessions: usize) -> Arc<Self> {
        let sessions = Arc::new(Semaphore::new(sessions.min(Semaphore::MAX_PERMITS)));
        let most_of_one = (most / SHARE).max(LEAST);
        Arc::new(Self { most, most_of_one, sessions, crowd: Mutex::default(), log_limit: LogLimit::default() })
    }

    /// Admits a connection. If its source already has its share, that source's oldest connection is evicted; if there
    /// is no place at all, the oldest of the largest source.
    pub fn admit(self: &Arc<Self>, source: Source) -> Stranger {
        let evicted = Arc::new(Notify::new());
        let stranger = Stranger { strangers: Arc::clone(self), source, number: AtomicU64::new(0), evicted };
        stranger.wait_again();
        stranger
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Where the connection comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether one more line about this source may be logged.
    pub fn may_log(&self, topic: LogTopic) -> bool {
        self.strangers.log_limit.may_log(self.source, topic)
    }

    /// Waits until the connection is evicted because others need its place.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Promotes the connection after a correct password, so that it can no longer be evicted. None if there is no room
    /// for another session.
    pub fn enter(&self) -> Option<SessionPermit> {
        let permit = Arc::clone(&self.strangers.sessions).try_acquire_owned().ok()?;
        self.leave();
        Some(SessionPermit { _permit: permit })
    }

    /// Demotes the connection if its login failed in spite of a correct password. It becomes the newest stranger.
    pub fn wait_again(&self) {
        let mut crowd = self.strangers.crowd();
        if crowd.count(self.source) >= self.strangers.most_of_one {
            crowd.evict(self.source);
        } else if crowd.members.len() >= self.strangers.most
            && let Some(largest) = crowd.largest()
        {
            crowd.evict(largest);
        }
        self.number.store(crowd.add(self.source, Arc::clone(&self.evicted)), Ordering::Relaxed);
    }

    fn leave(&self) {
        self.strangers.crowd().remove(self.number.swap(0, Ordering::Relaxed));
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The connections before their login. When it is full, an admission takes time proportional to its bounded size.
#[derive(Default)]
struct Crowd {
    last: u64,
    /// Ordered by number, so that the oldest comes first.
    members: BTreeMap<u64, (Source, Arc<Notify>)>,
    /// The number of connections of each source, and of each wider source.
    counts: HashMap<Source, usize>,
}

impl Crowd {
    fn add(&mut self, source: Source, evicted: Arc<Notify>) -> u64 {
        self.last += 1;
        self.members.insert(self.last, (source, evicted));
        for source in source.and_wider() {
            *self.counts.entry(source).or_default() += 1;
        }
        self.last
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (source, evicted) = self.members.remove(&number)?;
        for source in source.and_wider() {
            let count = self.count(source);
            if count > 1 {
                self.counts.insert(source, count - 1)
            } else {
                self.counts.remove(&source)
            };
        }
        Some(evicted)
    }

    fn evict(&mut self, source: Source) {
        let oldest = self.members.iter().find(|(_, (its, _))| *its == source).map(|(number, _)| *number);
        if let Some(evicted) = oldest.and_then(|oldest| self.remove(oldest)) {
            evicted.notify_one();
        }
    }

    fn count(&self, source: Source) -> usize {
        self.counts.get(&source).copied().unwrap_or_default()
    }

    /// The largest source within the largest wider source, so that somebody with many networks does not count as many
    /// small sources.
    fn largest(&self) -> Option<Source> {
        let mut largest = None;
        loop {
            let within = self.counts.iter().filter(|(source, _)| source.wider() == largest);
            match within.max_by_key(|(_, count)| **count) {
                Some((source, _)) => largest = Some(*source),
                None => return largest,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const ANN: Source = Source::User(1000);
    const MALLORY: Source = Source::User(1234);

    async fn is_evicted(stranger: &Stranger) -> bool {
        timeout(Duration::ZERO, stranger.evicted()).await.is_ok()
    }

    /// How many of them have been evicted.
    async fn evicted(strangers: &[Stranger]) -> usize {
        let mut count = 0;
        for stranger in strangers {
            count += usize::from(is_evicted(stranger).await);
        }
        count
    }

    fn network(number: u32) -> Source {
        Source::of_address(std::net::Ipv6Addr::from_bits(u128::from(number) << 64 | 0x2001 << 112).into())
    }

    #[tokio::test]
    async fn a_source_that_has_its_share_loses_its_own_oldest_connection() {
        let strangers = Strangers::new(64, 10);
        let ann = strangers.admit(ANN);
        let flood: Vec<_> = (0..20).map(|_| strangers.admit(MALLORY)).collect();
        assert!(!is_evicted(&ann).await);
        assert_eq!(evicted(&flood[..4]).await, 4);
        assert_eq!(evicted(&flood[4..]).await, 0);
    }

    #[tokio::test]
    async fn a_crowd_of_many_sources_does_not_push_out_a_small_one() {
        let strangers = Strangers::new(64, 10);
        let ann = [strangers.admit(ANN), strangers.admit(ANN)];
        let few = [strangers.admit(Source::of_address("192.0.2.1".parse().unwrap()))];
        // Each from a network of its own, and all of one owner.
        let flood: Vec<_> = (0..1000).map(|number| strangers.admit(network(number))).collect();
        assert_eq!(evicted(&ann).await + evicted(&few).await, 0);
        assert_eq!(evicted(&flood).await, 1000 - 61);
    }

    #[tokio::test]
    async fn a_place_is_free_when_its_connection_ends() {
        let strangers = Strangers::new(8, 10);
        for _ in 0..100 {
            let all: Vec<_> = (0..8).map(|user| strangers.admit(Source::User(user))).collect();
            assert_eq!(evicted(&all).await, 0);
        }
        let crowd = strangers.crowd();
        assert!(crowd.members.is_empty() && crowd.counts.is_empty());
    }

    #[tokio::test]
    async fn a_session_does_not_compete_with_strangers() {
        let strangers = Strangers::new(8, 2);
        let sessions = [strangers.admit(ANN), strangers.admit(ANN)];
        let rooms: Vec<_> = sessions.iter().map(|session| session.enter().unwrap()).collect();
        let flood: Vec<_> = (0..100).map(|user| strangers.admit(Source::User(user % 3))).collect();
        assert_eq!(evicted(&sessions).await, 0);
        assert!(flood.last().unwrap().enter().is_none(), "there is no room for a third session");
        drop(rooms);
        assert!(flood.last().unwrap().enter().is_some());
    }

    #[tokio::test]
    async fn a_login_that_came_to_nothing_is_a_stranger_again() {
        let strangers = Strangers::new(8, 2);
        let back = strangers.admit(ANN);
        drop(back.enter().unwrap());
        back.wait_again();
        let more: Vec<_> = (0..8).map(|_| strangers.admit(ANN)).collect();
        assert!(is_evicted(&back).await);
        assert_eq!(evicted(&more).await, 0);
    }
}
