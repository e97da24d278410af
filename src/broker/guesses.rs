//! Guessing: how fast passwords can be tried, and how little of that is felt by whose password is right.
//!
//! Each source may be wrong ten times at once and then once a second. Of those who wait, the newest first try of a connection
//! and the oldest of all get every second turn each: a right password mostly comes through soon, whether the guesses around it
//! go on where they failed before, or hang up and come again. Other sources feel nothing of them. A password of the generated form is never made to wait, for nobody guesses 130 bits; nor is
//! one that was right before, which is not checked again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::lock;
use crate::net::peer::Peer;

/// Wrong passwords that a source has free: a person who tries them all, or a few programs with an old one.
const BURST: u32 = 10;

/// How often there is one more after that.
const PACE: Duration = Duration::from_secs(1);

/// How long a login waits for its turn; mail programs give up after 30 seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How soon those who wait look again when a turn is free that is not theirs.
const LOOK: Duration = Duration::from_millis(20);

/// How soon those who wait look whether their password has been found wrong elsewhere.
const KNOWN_SOON: Duration = Duration::from_millis(200);

/// Sources that are told apart, each with half a KiB. Beyond them all others count as one.
const SOURCES: usize = 1024;

/// The last wrong passwords that a source is known by: those of the programs that have an old one.
const KNOWN: usize = 16;

/// A password with its address, as an HMAC under a key of this process.
pub type Fingerprint = [u8; 32];

/// Where logins come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A user of this machine.
    User(u32),
    /// Another machine, or what hides its user.
    Address(IpAddr),
}

impl Source {
    /// A network of IPv6 counts as one address, for it has 2^64 of them.
    pub fn of(peer: &Peer) -> Self {
        match (peer.user, peer.address.ip().to_canonical()) {
            (Some(user), _) => Self::User(user),
            (None, IpAddr::V6(address)) => {
                Self::Address(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into())
            }
            (None, address) => Self::Address(address),
        }
    }
}

/// A login that is tried.
pub struct Attempt<'a> {
    /// From where.
    pub source: Source,
    /// Whether it is its connection's first.
    pub is_first: bool,
    /// Ends when nobody waits for the answer any more.
    pub gone: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl Attempt<'_> {
    /// What somebody asks for who may command this process.
    pub fn of_this_process() -> Self {
        let source = Source::User(rustix::process::geteuid().as_raw());
        Self { source, is_first: true, gone: Box::pin(std::future::pending()) }
    }
}

/// Whether a password is to be checked.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Yes; it has been counted as a wrong one.
    Yours,
    /// No: it was wrong a moment ago. To be wrong with the same one again does not count.
    KnownWrong,
    /// No: there were too many wrong ones.
    TooMany,
}

/// What all sources have tried.
#[derive(Default)]
pub struct Guesses {
    sources: Mutex<HashMap<Source, Tried>>,
}

/// What one source has tried.
struct Tried {
    /// When nothing of it counts any more: each wrong password puts that off by [`PACE`].
    even: Instant,
    /// Who waits for a turn: whether it is its connection's first try, and its number.
    waiting: BTreeSet<(bool, u64)>,
    /// The last number.
    last: u64,
    /// Turns that were taken.
    turns: u64,
    /// The last wrong passwords.
    wrong: VecDeque<Fingerprint>,
}

impl Guesses {
    /// Waits until this password may be checked, which is its connection's first or not.
    pub async fn turn(&self, source: Source, is_first: bool, fingerprint: &Fingerprint) -> Turn {
        let deadline = Instant::now() + PATIENCE;
        let place = {
            let mut sources = lock(&self.sources);
            let source = known(&mut sources, source);
            let tried = sources.entry(source).or_insert_with(Tried::new);
            tried.last += 1;
            let number = (is_first, tried.last);
            tried.waiting.insert(number);
            Place { guesses: self, source, number }
        };
        loop {
            match place.take(fingerprint) {
                Ok(turn) => return turn,
                Err(free) if free > deadline => {
                    sleep_until(deadline).await;
                    return Turn::TooMany;
                }
                // What is tried in several places at once may be known by then.
                Err(free) => sleep_until(free.min(Instant::now() + KNOWN_SOON)).await,
            }
        }
    }

    /// It was the right one, and does not count.
    pub fn right(&self, source: Source) {
        let mut sources = lock(&self.sources);
        let source = known(&mut sources, source);
        if let Some(tried) = sources.get_mut(&source) {
            tried.even = tried.even.checked_sub(PACE).unwrap_or(tried.even);
        }
    }

    /// It was wrong.
    pub fn wrong(&self, source: Source, fingerprint: Fingerprint) {
        let mut sources = lock(&self.sources);
        let source = known(&mut sources, source);
        let tried = sources.entry(source).or_insert_with(Tried::new);
        if tried.wrong.len() >= KNOWN {
            tried.wrong.pop_front();
        }
        tried.wrong.push_back(fingerprint);
    }

    /// What was wrong may be right now.
    pub fn forget_wrong(&self) {
        lock(&self.sources).values_mut().for_each(|tried| tried.wrong.clear());
    }
}

/// The source itself, or the one that stands for all for whom there is no room.
fn known(sources: &mut HashMap<Source, Tried>, source: Source) -> Source {
    if sources.len() >= SOURCES && !sources.contains_key(&source) {
        let now = Instant::now();
        sources.retain(|_, tried| tried.even > now || !tried.waiting.is_empty());
        if sources.len() >= SOURCES {
            return Source::Address(Ipv6Addr::UNSPECIFIED.into());
        }
    }
    source
}

impl Tried {
    fn new() -> Self {
        Self { even: Instant::now(), waiting: BTreeSet::new(), last: 0, turns: 0, wrong: VecDeque::new() }
    }
}

/// A login that waits for its turn, or has it.
struct Place<'a> {
    guesses: &'a Guesses,
    source: Source,
    number: (bool, u64),
}

impl Place<'_> {
    /// Takes a turn if it needs one, or says when to try again.
    fn take(&self, fingerprint: &Fingerprint) -> Result<Turn, Instant> {
        let now = Instant::now();
        let mut sources = lock(&self.guesses.sources);
        // One that somebody waits in is never dropped.
        let tried = sources.entry(self.source).or_insert_with(Tried::new);
        if tried.wrong.contains(fingerprint) {
            return Ok(Turn::KnownWrong);
        }
        let free = tried.even.checked_sub(PACE * (BURST - 1)).unwrap_or(now);
        let oldest = || tried.waiting.iter().min_by_key(|(_, number)| *number);
        let next = if tried.turns.is_multiple_of(2) { tried.waiting.last() } else { oldest() };
        match next {
            _ if free > now => Err(free),
            Some(next) if *next != self.number => Err(now + LOOK),
            _ => {
                tried.even = tried.even.max(now) + PACE;
                tried.turns += 1;
                // Who has had its turn does not stand in the way of the next one.
                tried.waiting.remove(&self.number);
                Ok(Turn::Yours)
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(tried) = lock(&self.guesses.sources).get_mut(&self.source) {
            tried.waiting.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::timeout;

    const MALLORY: Source = Source::User(1234);

    fn fingerprint(number: u32) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    /// 64 connections that guess without a pause, never the same password twice. Each gives a guess up that takes longer than
    /// `patience`. How many were checked.
    fn flood(guesses: &Arc<Guesses>, patience: Duration) -> Arc<AtomicU32> {
        let (checked, next) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        for _ in 0..64 {
            let (guesses, checked, next) = (Arc::clone(guesses), Arc::clone(&checked), Arc::clone(&next));
            tokio::spawn(async move {
                // A connection has six tries, and ends with one that was given up.
                for number in (0..6).cycle() {
                    let guess = fingerprint(next.fetch_add(1, Ordering::Relaxed));
                    let is_first = number == 0 || patience < PATIENCE;
                    if let Ok(Turn::Yours) = timeout(patience, guesses.turn(MALLORY, is_first, &guess)).await {
                        checked.fetch_add(1, Ordering::Relaxed);
                        guesses.wrong(MALLORY, guess);
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            });
        }
        checked
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_guesses_comes_to_one_a_second() {
        let guesses = Arc::new(Guesses::default());
        let checked = flood(&guesses, PATIENCE);
        tokio::time::sleep(Duration::from_secs(300)).await;
        let checked = checked.load(Ordering::Relaxed);
        assert!((300..=300 + BURST).contains(&checked), "{checked}");
    }

    /// The same user's programs included.
    #[tokio::test(start_paused = true)]
    async fn who_comes_with_the_right_password_hardly_waits() {
        for patience in [Duration::from_millis(300), Duration::from_millis(1700), PATIENCE] {
            hardly_waits(patience).await;
        }
    }

    async fn hardly_waits(patience: Duration) {
        let guesses = Arc::new(Guesses::default());
        flood(&guesses, patience);
        let mut at_once = 0;
        for login in 0..30 {
            tokio::time::sleep(Duration::from_millis(1234)).await;
            for source in [MALLORY, Source::User(1000), Source::Address("192.0.2.1".parse().unwrap())] {
                let begun = Instant::now();
                let turn = guesses.turn(source, true, &fingerprint(u32::MAX - login)).await;
                let waited = begun.elapsed();
                if source == MALLORY {
                    at_once += u32::from(turn == Turn::Yours && waited <= 4 * PACE);
                } else {
                    assert!(turn == Turn::Yours && waited.is_zero(), "others feel nothing");
                }
                if turn == Turn::Yours {
                    guesses.right(source);
                }
            }
        }
        // No order is fair to one among many of whom nothing else is known; the next try comes through.
        assert!(at_once >= 25, "{at_once} of 30, where guesses wait for {patience:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_wrong_password_counts_once() {
        let guesses = Guesses::default();
        for guess in 0..BURST {
            assert_eq!(guesses.turn(MALLORY, true, &fingerprint(guess)).await, Turn::Yours);
            guesses.wrong(MALLORY, fingerprint(guess));
        }
        for guess in 0..BURST {
            let begun = Instant::now();
            assert_eq!(guesses.turn(MALLORY, true, &fingerprint(guess)).await, Turn::KnownWrong);
            assert!(begun.elapsed().is_zero());
        }
        let begun = Instant::now();
        guesses.forget_wrong();
        assert_eq!(guesses.turn(MALLORY, true, &fingerprint(0)).await, Turn::Yours);
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert_eq!(
            guesses.turn(Source::User(1), true, &fingerprint(0)).await,
            Turn::Yours,
            "others learn nothing of it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told() {
        let guesses = Arc::new(Guesses::default());
        flood(&guesses, PATIENCE);
        // Between two turns, when others are both older and newer.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let waiting = tokio::spawn({
            let guesses = Arc::clone(&guesses);
            async move { guesses.turn(MALLORY, true, &fingerprint(u32::MAX)).await }
        });
        tokio::task::yield_now().await;
        // Newer ones all the time.
        let newer = async {
            for login in 1.. {
                guesses.turn(MALLORY, true, &fingerprint(u32::MAX - login)).await;
            }
        };
        tokio::select! {
            turn = waiting => assert_eq!(turn.unwrap(), Turn::TooMany),
            () = newer => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_has_an_end() {
        let guesses = Guesses::default();
        let address = |number: u32| Source::Address(std::net::Ipv4Addr::from_bits(number).into());
        for number in 0..3 * SOURCES as u32 {
            assert_eq!(guesses.turn(address(number), true, &fingerprint(0)).await, Turn::Yours);
            for guess in 0..2 * KNOWN as u32 {
                guesses.wrong(address(number), fingerprint(guess));
            }
        }
        let sources = lock(&guesses.sources);
        assert!(sources.len() <= SOURCES + 1, "{}", sources.len());
        assert!(sources.values().all(|tried| tried.wrong.len() <= KNOWN && tried.waiting.is_empty()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let source = |address: &str, user| Source::of(&Peer { address: address.parse().unwrap(), user });
        assert_eq!(source("[2001:db8::1]:1", None), source("[2001:db8::ffff:0:0:2]:9", None));
        assert_ne!(source("[2001:db8::1]:1", None), source("[2001:db8:0:1::1]:1", None));
        assert_eq!(source("[::ffff:192.0.2.1]:1", None), source("192.0.2.1:7", None));
        assert_eq!(source("127.0.0.1:1", Some(7)), Source::User(7));
    }
}
