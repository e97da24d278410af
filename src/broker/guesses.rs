//! Guessing: how fast passwords can be tried, and how little others feel of it.
//!
//! Each source may be wrong ten times at once and then once a second; a wider source more often, and less often than all that
//! belong to it. One password of a source is checked at a time and the others wait behind it, so sources take turns at what a
//! check costs. Neither a password of the generated form waits, because nobody guesses 130 bits, nor one that was right since
//! the start, because it is not checked again.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::context::lock;
use crate::net::peer::Source;

/// How long a login waits for its turn; mail programs give up after 30 seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Logins of one source that may wait at a time. More have come to nothing, because their patience would end first.
const WAITING: usize = 64;

/// Sources that are told apart, each with half a KiB. Beyond them all others count as one.
const SOURCES: usize = 1024;

/// The last wrong passwords that a source is known by: those of the programs that have an old one.
const KNOWN: usize = 16;

/// Checks at a time, each a core for a tenth of a second: the other cores stay free for the sessions.
const CHECKS: usize = 1;

/// A password with its address, as an HMAC under a key of this process.
pub type Fingerprint = [u8; 32];

/// A login that is tried.
pub struct PasswordAttempt<'a> {
    /// From where.
    pub source: Source,
    /// Ends when nobody hears the answer any more.
    pub gone: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl PasswordAttempt<'_> {
    /// What somebody asks for who may command this process.
    pub fn of_this_process() -> Self {
        let source = Source::of_user(rustix::process::geteuid().as_raw());
        Self { source, gone: Box::pin(std::future::pending()) }
    }
}

/// Whether a password is to be checked.
pub enum CheckDecision {
    /// Yes.
    Allowed(Check),
    /// No: it was wrong a moment ago. To be wrong with the same one again does not count.
    KnownWrong,
    /// No: there were too many wrong ones.
    TooMany,
}

/// What all sources have tried.
pub struct Guesses {
    sources: Mutex<HashMap<Source, Tried>>,
    checks: Arc<Semaphore>,
}

/// What one source has tried.
struct Tried {
    /// When nothing of it counts any more: each wrong password puts that off by the pace.
    even: Instant,
    /// For the one whose turn it is. Others get it in the order in which they came.
    turn: Arc<Semaphore>,
    /// How many wait for it or have it.
    waiting: usize,
    /// The last wrong passwords.
    wrong: VecDeque<Fingerprint>,
    /// It had a right password.
    was_right: bool,
}

/// How often a source may be wrong: so many times at once, and then once in this time.
const fn allowance(source: Source) -> (u32, Duration) {
    match source {
        Source::Site(_) => (100, Duration::from_millis(100)),
        Source::Elsewhere => (100, Duration::from_millis(200)),
        _ => (10, Duration::from_secs(1)),
    }
}

impl Default for Guesses {
    fn default() -> Self {
        Self { sources: Mutex::default(), checks: Arc::new(Semaphore::new(CHECKS)) }
    }
}

impl Guesses {
    /// Waits until this password may be checked.
    pub async fn turn(self: &Arc<Self>, source: Source, fingerprint: &Fingerprint) -> CheckDecision {
        let place = QueueEntry::take(self, source);
        if place.is_known_wrong(fingerprint) {
            return CheckDecision::KnownWrong;
        }
        if place.waiting() > WAITING {
            return CheckDecision::TooMany;
        }
        timeout(PATIENCE, place.turn(fingerprint)).await.unwrap_or(CheckDecision::TooMany)
    }

    /// What was wrong may be right now.
    pub fn forget_wrong(&self) {
        lock(&self.sources).values_mut().for_each(|tried| tried.wrong.clear());
    }
}

/// A login that waits for its turn, or has it.
struct QueueEntry {
    guesses: Arc<Guesses>,
    /// Its source, and the wider ones that it counts for.
    sources: Vec<Source>,
}

impl QueueEntry {
    fn take(guesses: &Arc<Guesses>, source: Source) -> Self {
        let mut known = lock(&guesses.sources);
        let was_right = known.get(&source).is_some_and(|tried| tried.was_right);
        // What strangers elsewhere do does not slow down who is none.
        let counted = source.and_wider().filter(|wider| !was_right || *wider != Source::Elsewhere);
        let mut sources: Vec<_> = counted.map(|source| with_room(&mut known, source)).collect();
        sources.dedup();
        for source in &sources {
            known.entry(*source).or_insert_with(Tried::new).waiting += 1;
        }
        Self { guesses: Arc::clone(guesses), sources }
    }

    /// One turn after the other, the wider the later: of each source one waits for the next.
    async fn turn(self, fingerprint: &Fingerprint) -> CheckDecision {
        let mut held = Vec::new();
        for source in &self.sources {
            let turn = self.with(*source, |tried| Arc::clone(&tried.turn));
            held.extend(turn.acquire_owned().await);
            if self.is_known_wrong(fingerprint) {
                return CheckDecision::KnownWrong;
            }
            let (burst, pace) = allowance(*source);
            let even = self.with(*source, |tried| tried.even);
            sleep_until(even.checked_sub(pace * (burst - 1)).unwrap_or(even)).await;
        }
        held.extend(Arc::clone(&self.guesses.checks).acquire_owned().await);
        CheckDecision::Allowed(Check { place: self, fingerprint: *fingerprint, counts: true, _held: held })
    }

    fn is_known_wrong(&self, fingerprint: &Fingerprint) -> bool {
        self.sources.first().is_some_and(|own| self.with(*own, |tried| tried.wrong.contains(fingerprint)))
    }

    /// How many there are of this source, this one included.
    fn waiting(&self) -> usize {
        self.sources.first().map_or(0, |own| self.with(*own, |tried| tried.waiting))
    }

    fn with<T>(&self, source: Source, look: impl FnOnce(&mut Tried) -> T) -> T {
        // One that somebody waits in is never dropped.
        look(lock(&self.guesses.sources).entry(source).or_insert_with(Tried::new))
    }
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        for source in &self.sources {
            self.with(*source, |tried| tried.waiting = tried.waiting.saturating_sub(1));
        }
    }
}

/// The source itself, or the one that stands for all for whom there is no room.
fn with_room(known: &mut HashMap<Source, Tried>, source: Source) -> Source {
    let now = Instant::now();
    let is_full = |known: &HashMap<Source, Tried>| known.len() >= SOURCES && !known.contains_key(&source);
    for spares_the_right in [true, false] {
        if is_full(known) {
            known.retain(|_, tried| tried.even > now || tried.waiting > 0 || (spares_the_right && tried.was_right));
        }
    }
    match is_full(known) {
        true if source.wider().is_none() => Source::ThisMachine,
        true => Source::Elsewhere,
        false => source,
    }
}

impl Tried {
    fn new() -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self { even: Instant::now(), turn, waiting: 0, wrong: VecDeque::new(), was_right: false }
    }
}

/// A password whose turn it is. It belongs to whatever checks the password and goes on doing so when the client has gone; it
/// counts as wrong unless something else is said. The next one's turn comes when it is dropped.
pub struct Check {
    place: QueueEntry,
    fingerprint: Fingerprint,
    counts: bool,
    _held: Vec<OwnedSemaphorePermit>,
}

impl Check {
    /// It was the right one.
    pub fn correct(mut self) {
        self.counts = false;
        if let Some(own) = self.place.sources.first() {
            self.place.with(*own, |tried| tried.was_right = true);
        }
    }

    /// It was wrong, and is known to be.
    pub fn wrong(self) {
        if let Some(own) = self.place.sources.first() {
            self.place.with(*own, |tried| {
                if tried.wrong.len() >= KNOWN {
                    tried.wrong.pop_front();
                }
                tried.wrong.push_back(self.fingerprint);
            });
        }
    }

    /// It could not be checked, or need not be.
    pub fn not_needed(mut self) {
        self.counts = false;
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if self.counts {
            for source in &self.place.sources {
                let (_, pace) = allowance(*source);
                self.place.with(*source, |tried| tried.even = tried.even.max(Instant::now()) + pace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;
    use std::sync::atomic::{AtomicU32, Ordering};

    const MALLORY: Source = Source::User(1234);

    /// What a check takes.
    const WORK: Duration = Duration::from_millis(150);

    fn fingerprint(number: u32) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn network(number: u32) -> Source {
        Source::of_address(Ipv6Addr::from_bits(0x2001 << 112 | u128::from(number) << 64).into())
    }

    fn address(number: u32) -> Source {
        Source::Address(std::net::Ipv4Addr::from_bits(number))
    }

    async fn wrong(guesses: &Arc<Guesses>, source: Source, number: u32) -> &'static str {
        match guesses.turn(source, &fingerprint(number)).await {
            CheckDecision::Allowed(check) => {
                tokio::time::sleep(WORK).await;
                check.wrong();
                "wrong"
            }
            CheckDecision::KnownWrong => "known",
            CheckDecision::TooMany => "too many",
        }
    }

    /// Connections that guess without a pause, never the same password twice, from these sources in turn, and wait so long
    /// for an answer. How many were checked.
    fn flood(guesses: &Arc<Guesses>, sources: &[Source], patience: Duration) -> Arc<AtomicU32> {
        let (checked, next) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        for source in sources.iter().copied().cycle().take(sources.len().max(200)) {
            let (guesses, checked, next) = (Arc::clone(guesses), Arc::clone(&checked), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let told = timeout(patience, wrong(&guesses, source, number)).await;
                    checked.fetch_add(u32::from(told == Ok("wrong")), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        }
        checked
    }

    async fn checked_in(seconds: u64, sources: &[Source]) -> u32 {
        let guesses = Arc::new(Guesses::default());
        let checked = flood(&guesses, sources, PATIENCE);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        checked.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_guesses_comes_to_one_a_second() {
        let checked = checked_in(300, &[MALLORY]).await;
        assert!((280..=311).contains(&checked), "{checked}");
        assert!(checked_in(10, &[MALLORY]).await <= 20);
    }

    #[tokio::test(start_paused = true)]
    async fn many_networks_of_one_owner_have_ten_times_as_many_guesses_and_no_more() {
        let networks: Vec<_> = (0..1000).map(network).collect();
        // A check takes its time, so no more than six of them fit into a second.
        assert!(checked_in(300, &networks).await <= 300 * 6 + 100);
        let addresses: Vec<_> = (0..1000).map(address).collect();
        assert!(checked_in(300, &addresses).await <= 300 * 5 + 100);
    }

    #[tokio::test(start_paused = true)]
    async fn others_feel_nothing_of_a_flood_but_one_check() {
        for sources in [vec![MALLORY], (0..300).map(address).collect()] {
            for patience in [Duration::from_millis(300), Duration::from_millis(1700), PATIENCE] {
                let guesses = Arc::new(Guesses::default());
                flood(&guesses, &sources, patience);
                for login in 0..10 {
                    tokio::time::sleep(Duration::from_millis(1234)).await;
                    let begun = Instant::now();
                    let CheckDecision::Allowed(check) =
                        guesses.turn(Source::User(1000), &fingerprint(u32::MAX - login)).await
                    else {
                        panic!("refused")
                    };
                    check.correct();
                    assert!(begun.elapsed() <= WORK, "{:?}", begun.elapsed());
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_elsewhere_who_was_right_once_feels_nothing_of_other_machines() {
        let guesses = Arc::new(Guesses::default());
        let ann = address(u32::MAX);
        let CheckDecision::Allowed(check) = guesses.turn(ann, &fingerprint(0)).await else { panic!("refused") };
        check.correct();
        flood(&guesses, &(0..1000).map(address).collect::<Vec<_>>(), PATIENCE);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        assert!(matches!(guesses.turn(ann, &fingerprint(1)).await, CheckDecision::Allowed(_)));
        assert!(begun.elapsed() <= WORK, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_wrong_password_counts_once() {
        let guesses = Arc::new(Guesses::default());
        for guess in 0..10 {
            assert_eq!(wrong(&guesses, MALLORY, guess).await, "wrong");
        }
        let begun = Instant::now();
        for guess in 0..10 {
            assert_eq!(wrong(&guesses, MALLORY, guess).await, "known");
        }
        assert!(begun.elapsed().is_zero());
        assert_eq!(wrong(&guesses, Source::User(1), 0).await, "wrong", "others learn nothing of it");
        guesses.forget_wrong();
        assert_eq!(wrong(&guesses, MALLORY, 0).await, "wrong");
    }

    /// Programs that come at once with one old password: the first finds out for all.
    #[tokio::test(start_paused = true)]
    async fn what_is_tried_in_several_places_at_once_is_checked_once() {
        let guesses = Arc::new(Guesses::default());
        let (begun, mut tries) = (Instant::now(), tokio::task::JoinSet::new());
        for _ in 0..30 {
            let guesses = Arc::clone(&guesses);
            tries.spawn(async move { wrong(&guesses, MALLORY, 7).await });
        }
        let told = tries.join_all().await;
        assert_eq!(told.iter().filter(|told| **told == "wrong").count(), 1, "{told:?}");
        assert_eq!(begun.elapsed(), WORK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_password_does_not_count() {
        let guesses = Arc::new(Guesses::default());
        let begun = Instant::now();
        for login in 0..100 {
            let CheckDecision::Allowed(check) = guesses.turn(MALLORY, &fingerprint(login)).await else {
                panic!("refused")
            };
            if login % 2 == 0 { check.correct() } else { check.not_needed() }
        }
        assert!(begun.elapsed().is_zero());
    }

    /// Whoever hangs up in the middle of a check would else have it for nothing.
    #[tokio::test(start_paused = true)]
    async fn a_check_that_nobody_waits_for_counts() {
        let guesses = Arc::new(Guesses::default());
        for guess in 0..10 {
            drop(guesses.turn(MALLORY, &fingerprint(guess)).await);
        }
        let begun = Instant::now();
        assert_eq!(wrong(&guesses, MALLORY, 10).await, "wrong");
        assert_eq!(begun.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn of_more_than_64_who_wait_the_next_is_told_at_once_and_the_others_in_time() {
        let guesses = Arc::new(Guesses::default());
        let mut waiting = tokio::task::JoinSet::new();
        for guess in 0..WAITING as u32 {
            let guesses = Arc::clone(&guesses);
            waiting.spawn(async move { wrong(&guesses, MALLORY, guess).await });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        assert_eq!(wrong(&guesses, MALLORY, u32::MAX).await, "too many");
        assert!(begun.elapsed().is_zero());
        let told = waiting.join_all().await;
        let checked = told.iter().filter(|told| **told == "wrong").count();
        assert!((29..=30).contains(&checked), "{checked}");
        assert!(begun.elapsed() <= PATIENCE + WORK);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_has_an_end() {
        let guesses = Arc::new(Guesses::default());
        let mut places = Vec::new();
        for number in 0..3 * SOURCES as u32 {
            for source in [address(number), network(number), Source::User(number)] {
                places.push(QueueEntry::take(&guesses, source));
            }
        }
        assert!(lock(&guesses.sources).len() <= SOURCES + 2);
        drop(places);
        for guess in 0..2 * KNOWN as u32 {
            wrong(&guesses, MALLORY, guess).await;
        }
        let sources = lock(&guesses.sources);
        assert!(sources.values().all(|tried| tried.wrong.len() <= KNOWN && tried.waiting == 0));
    }
}
