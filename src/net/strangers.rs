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

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::info;

use super::peer::Source;
use crate::mutex::lock;

/// One source may have a quarter of all places.
const SHARE: usize = 4;

/// The minimum number of places for a source, because a mail program opens five connections at once.
const LEAST: usize = 8;

/// The period over which lines of the log are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// A wider source may have this many times as many lines.
const WIDER: u32 = 10;

/// All connections that have not logged in, and the permits for sessions.
pub struct Strangers {
    most: usize,
    most_of_one: usize,
    sessions: Arc<Semaphore>,
    crowd: Mutex<Crowd>,
    pub log_limit: LogLimit,
}

/// A connection whose peer has not logged in. Dropping this frees its place.
pub struct Stranger {
    strangers: Arc<Strangers>,
    source: Source,
    /// The number of places for its source.
    most_of_one: usize,
    /// The key of its place; 0 while it has none.
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
        self.admit_up_to(self.most_of_one, source)
    }

    /// Admits a connection of a load balancer until it has named the client, whose source counts from then on. The load
    /// balancer may have all places, because one share would be too small for all its clients at once.
    pub fn admit_balancer(self: &Arc<Self>, source: Source) -> Stranger {
        self.admit_up_to(self.most, source)
    }

    fn admit_up_to(self: &Arc<Self>, most_of_one: usize, source: Source) -> Stranger {
        let (strangers, number, evicted) = (Arc::clone(self), AtomicU64::new(0), Arc::new(Notify::new()));
        let stranger = Stranger { strangers, source, most_of_one, number, evicted };
        stranger.wait_again();
        stranger
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        lock(&self.crowd)
    }
}

impl Stranger {
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
        if crowd.count(self.source) >= self.most_of_one {
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

/// The subject of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogTopic {
    /// A login was refused, or a connection rejected.
    Refusal,
    /// A TLS handshake failed, or a client used TLS on a port without it.
    Tls,
}

impl LogTopic {
    /// The topic's name in the log, and the number of lines per minute for one source.
    const fn limit(self) -> (&'static str, u32) {
        match self {
            Self::Refusal => ("refusals", 10),
            Self::Tls => ("failed TLS handshakes", 1),
        }
    }
}

/// Limits what the log says about strangers: enough to see what they do, but too little to fill a disk.
#[derive(Default)]
pub struct LogLimit(Mutex<HashMap<(Source, LogTopic), LineCount>>);

/// The lines about a source, wider or not, in this minute.
#[derive(Default)]
struct LineCount {
    logged: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether one more line about this source may be logged. Suppressed lines are counted.
    pub fn may_log(&self, source: Source, topic: LogTopic) -> bool {
        let mut counts = lock(&self.0);
        let (mut most, mut full) = (topic.limit().1, None);
        for source in source.and_wider() {
            if counts.get(&(source, topic)).is_some_and(|counted| counted.logged >= most) {
                full = Some(source);
            }
            most *= WIDER;
        }
        match full {
            // Count for the widest source only, so that many sources do not need a counter each.
            Some(full) => counts.entry((full, topic)).or_default().suppressed += 1,
            None => source.and_wider().for_each(|source| counts.entry((source, topic)).or_default().logged += 1),
        }
        full.is_none()
    }

    /// Logs at the end of each minute how many lines were suppressed. Never ends.
    pub async fn log_suppressed(&self) {
        loop {
            sleep(MINUTE).await;
            let counts = std::mem::take(&mut *lock(&self.0));
            for ((source, topic), counted) in counts {
                if counted.suppressed > 0 {
                    let (what, count) = (topic.limit().0, counted.suppressed);
                    info!(%source, count, "{count} more {what} from {source} within a minute are not logged one by one");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const ANN: Source = Source::User(1000);
    const MALLORY: Source = Source::User(1234);

    async fn is_evicted(stranger: &Stranger) -> bool {
        timeout(Duration::ZERO, stranger.evicted()).await.is_ok()
    }

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
    async fn a_load_balancer_has_more_than_one_share_until_it_has_named_its_clients() {
        let strangers = Strangers::new(64, 10);
        let ann = strangers.admit(ANN);
        let waiting: Vec<_> = (0..63).map(|_| strangers.admit_balancer(network(1))).collect();
        assert_eq!(evicted(&waiting).await, 0);
        let next = strangers.admit_balancer(network(1));
        assert_eq!(evicted(&waiting).await, 1, "there are no more places");
        assert!(!is_evicted(&ann).await && !is_evicted(&next).await);
        drop((waiting, next));
        let clients: Vec<_> = (2..65).map(|number| strangers.admit(network(number))).collect();
        assert_eq!(evicted(&clients).await, 0, "the clients count, and no longer the load balancer");
    }

    #[tokio::test]
    async fn many_sources_do_not_evict_a_small_one() {
        let strangers = Strangers::new(64, 10);
        let ann = [strangers.admit(ANN), strangers.admit(ANN)];
        let few = [strangers.admit(Source::of_address("192.0.2.1".parse().unwrap()))];
        // Each is from a different network, and all networks have one owner.
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
        let permits: Vec<_> = sessions.iter().map(|session| session.enter().unwrap()).collect();
        let flood: Vec<_> = (0..100).map(|user| strangers.admit(Source::User(user % 3))).collect();
        assert_eq!(evicted(&sessions).await, 0);
        assert!(flood.last().unwrap().enter().is_none(), "two sessions are the limit");
        drop(permits);
        assert!(flood.last().unwrap().enter().is_some());
    }

    #[tokio::test]
    async fn a_connection_whose_login_failed_is_a_stranger_again() {
        let strangers = Strangers::new(8, 2);
        let back = strangers.admit(ANN);
        drop(back.enter().unwrap());
        back.wait_again();
        let more: Vec<_> = (0..8).map(|_| strangers.admit(ANN)).collect();
        assert!(is_evicted(&back).await);
        assert_eq!(evicted(&more).await, 0);
    }

    fn logged(log_limit: &LogLimit, sources: impl Iterator<Item = Source>, topic: LogTopic) -> usize {
        sources.filter(|source| log_limit.may_log(*source, topic)).count()
    }

    fn suppressed(log_limit: &LogLimit, source: Source) -> u64 {
        log_limit.0.lock().unwrap().get(&(source, LogTopic::Refusal)).map_or(0, |counted| counted.suppressed)
    }

    #[test]
    fn ten_refusals_of_a_source_are_logged_in_a_minute_and_the_others_counted() {
        let log_limit = LogLimit::default();
        assert_eq!(logged(&log_limit, std::iter::repeat_n(MALLORY, 1000), LogTopic::Refusal), 10);
        assert_eq!(suppressed(&log_limit, MALLORY), 990);
        assert_eq!(logged(&log_limit, std::iter::repeat_n(MALLORY, 1000), LogTopic::Tls), 1);
        assert_eq!(
            logged(&log_limit, std::iter::once(Source::User(1)), LogTopic::Refusal),
            1,
            "another source has its own limit"
        );
    }

    #[test]
    fn a_thousand_addresses_do_not_make_a_thousand_times_as_many_lines() {
        let log_limit = LogLimit::default();
        let addresses = || (0..10_000).map(|number| Source::Address(std::net::Ipv4Addr::from_bits(number)));
        assert_eq!(logged(&log_limit, addresses(), LogTopic::Refusal), 100);
        assert_eq!(suppressed(&log_limit, Source::Elsewhere), 9900);
        assert!(log_limit.0.lock().unwrap().len() <= 101, "suppressed sources need no counter");
    }

    #[tokio::test(start_paused = true)]
    async fn the_count_starts_again_each_minute() {
        let log_limit = LogLimit::default();
        logged(&log_limit, std::iter::repeat_n(MALLORY, 11), LogTopic::Refusal);
        let _never = timeout(MINUTE + Duration::from_secs(1), log_limit.log_suppressed()).await;
        assert!(log_limit.may_log(MALLORY, LogTopic::Refusal));
    }
}
