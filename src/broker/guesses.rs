//! Limits how fast passwords can be guessed, with little effect on other logins.
//!
//! A source may be wrong ten times at once, and then once a second. A wider source may be wrong more often, but less often
//! than all its members together. One password of each source is checked at a time, and the others wait in a queue, so that
//! sources take turns. Generated passwords do not wait, because nobody can guess 130 bits. Passwords that were correct since
//! the start do not wait, because they are not checked again.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::mutex::lock;
use crate::net::peer::Source;

/// How long a login waits for its turn. Mail programs give up after 30 seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many logins of a source may wait. Any more would only run out of patience.
const WAITING: usize = 64;

/// How many sources are distinguished, each with half a KiB. All others count as one.
const SOURCES: usize = 1024;

/// How many wrong passwords of a source are remembered: those of its programs that still have an old one.
const REMEMBERED: usize = 16;

/// How many checks run at a time. Each keeps a core busy for a tenth of a second; the other cores stay free for the sessions.
const CHECKS: usize = 1;

/// An HMAC of a password and its address, under a key of this process.
pub type Fingerprint = [u8; 32];

/// The client that tries a password.
pub struct PasswordAttempt<'a> {
    pub source: Source,
    /// Completes when the client no longer waits for the answer.
    pub gone: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl PasswordAttempt<'_> {
    /// An attempt by somebody who may control this process.
    pub fn of_this_process() -> Self {
        let source = Source::of_user(rustix::process::geteuid().as_raw());
        Self { source, gone: Box::pin(std::future::pending()) }
    }
}

/// Whether to check a password.
pub enum CheckDecision {
    Allowed(Check),
    /// It was wrong a moment ago. Trying the same one again does not count.
    KnownWrong,
    /// There were too many wrong ones.
    TooMany,
}

/// The wrong passwords of all sources.
pub struct Guesses {
    sources: Mutex<HashMap<Source, SourceHistory>>,
    checks: Arc<Semaphore>,
    /// How many replicas share what a source may try.
    replicas: AtomicU32,
}

struct SourceHistory {
    /// When its wrong passwords stop counting. Each of them adds one pace.
    cleared: Instant,
    /// Held during a check. The others wait in the order in which they came.
    turn: Arc<Semaphore>,
    /// How many logins wait for the turn or have it.
    waiting: usize,
    wrong: VecDeque<Fingerprint>,
    has_logged_in: bool,
}

/// How many wrong passwords a source may try at once, and the pace after that, at each of so many replicas.
fn allowance(source: Source, replicas: u32) -> (u32, Duration) {
    let (burst, pace) = match source {
        Source::Site(_) => (100, Duration::from_millis(100)),
        Source::Elsewhere => (100, Duration::from_millis(200)),
        _ => (10, Duration::from_secs(1)),
    };
    ((burst / replicas).max(1), pace * replicas)
}

impl Default for Guesses {
    fn default() -> Self {
        let (sources, replicas) = (Mutex::default(), AtomicU32::new(1));
        Self { sources, checks: Arc::new(Semaphore::new(CHECKS)), replicas }
    }
}

impl Guesses {
    /// Waits until this password may be checked.
    pub async fn wait_for_turn(self: &Arc<Self>, source: Source, fingerprint: &Fingerprint) -> CheckDecision {
        let entry = QueueEntry::new(self, source);
        if entry.own(|history| history.wrong.contains(fingerprint)) {
            return CheckDecision::KnownWrong;
        }
        if entry.own(|history| history.waiting) > WAITING {
            return CheckDecision::TooMany;
        }
        timeout(PATIENCE, entry.wait(fingerprint)).await.unwrap_or(CheckDecision::TooMany)
    }

    /// Divides what a source may try by the number of replicas, at least 1, because it can try at each of them.
    pub fn share_with(&self, replicas: u32) {
        self.replicas.store(replicas.max(1), Ordering::Relaxed);
    }

    fn allowance(&self, source: Source) -> (u32, Duration) {
        allowance(source, self.replicas.load(Ordering::Relaxed))
    }

    /// Forgets which passwords were wrong, because they may be correct now.
    pub fn forget_wrong(&self) {
        lock(&self.sources).values_mut().for_each(|history| history.wrong.clear());
    }
}

/// A login that waits for its turn, or has it.
struct QueueEntry {
    guesses: Arc<Guesses>,
    /// The client's source, and the wider ones that it counts for, too.
    sources: Vec<Source>,
}

impl QueueEntry {
    fn new(guesses: &Arc<Guesses>, source: Source) -> Self {
        let mut known = lock(&guesses.sources);
        let has_logged_in = known.get(&source).is_some_and(|history| history.has_logged_in);
        // What strangers on other machines do does not delay a source that has logged in before.
        let counted = source.and_wider().filter(|wider| !has_logged_in || *wider != Source::Elsewhere);
        let mut sources: Vec<_> = counted.map(|source| with_room(&mut known, source)).collect();
        sources.dedup();
        for source in &sources {
            known.entry(*source).or_insert_with(SourceHistory::new).waiting += 1;
        }
        drop(known);
        Self { guesses: Arc::clone(guesses), sources }
    }

    /// Waits for the turn of each source, the wider the later, so that one login of each source waits for the next wider turn.
    async fn wait(self, fingerprint: &Fingerprint) -> CheckDecision {
        let mut permits = Vec::new();
        for source in &self.sources {
            let turn = self.with(*source, |history| Arc::clone(&history.turn));
            permits.extend(turn.acquire_owned().await);
            if self.own(|history| history.wrong.contains(fingerprint)) {
                return CheckDecision::KnownWrong;
            }
            let (burst, pace) = self.guesses.allowance(*source);
            let cleared = self.with(*source, |history| history.cleared);
            sleep_until(cleared.checked_sub(pace * (burst - 1)).unwrap_or(cleared)).await;
        }
        permits.extend(Arc::clone(&self.guesses.checks).acquire_owned().await);
        CheckDecision::Allowed(Check { entry: self, fingerprint: *fingerprint, counts: true, _permits: permits })
    }

    /// The history of the client's own source.
    fn own<T>(&self, work: impl FnOnce(&mut SourceHistory) -> T) -> T {
        self.with(self.sources.first().copied().unwrap_or(Source::Elsewhere), work)
    }

    fn with<T>(&self, source: Source, work: impl FnOnce(&mut SourceHistory) -> T) -> T {
        // A source with waiting logins is never removed.
        work(lock(&self.guesses.sources).entry(source).or_insert_with(SourceHistory::new))
    }
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        for source in &self.sources {
            self.with(*source, |history| history.waiting = history.waiting.saturating_sub(1));
        }
    }
}

/// The source itself, or the one that stands for all others if there is no room for it.
fn with_room(known: &mut HashMap<Source, SourceHistory>, source: Source) -> Source {
    let now = Instant::now();
    let is_full = |known: &HashMap<Source, SourceHistory>| known.len() >= SOURCES && !known.contains_key(&source);
    for spares_the_known in [true, false] {
        if is_full(known) {
            known.retain(|_, history| {
                history.cleared > now || history.waiting > 0 || (spares_the_known && history.has_logged_in)
            });
        }
    }
    match is_full(known) {
        true if source.wider().is_none() => Source::ThisMachine,
        true => Source::Elsewhere,
        false => source,
    }
}

impl SourceHistory {
    fn new() -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self { cleared: Instant::now(), turn, waiting: 0, wrong: VecDeque::new(), has_logged_in: false }
    }
}

/// The right to check a password, which belongs to the check, because that continues when the client has disconnected. Without
/// a result, the password counts as wrong. The next login's turn comes when this is dropped.
pub struct Check {
    entry: QueueEntry,
    fingerprint: Fingerprint,
    counts: bool,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Check {
    /// The password is correct.
    pub fn correct(mut self) {
        self.counts = false;
        self.entry.own(|history| history.has_logged_in = true);
    }

    /// The password is wrong, and is remembered as wrong.
    pub fn wrong(self) {
        self.entry.own(|history| {
            if history.wrong.len() >= REMEMBERED {
                history.wrong.pop_front();
            }
            history.wrong.push_back(self.fingerprint);
        });
    }

    /// The check was not necessary.
    pub fn not_needed(mut self) {
        self.counts = false;
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if self.counts {
            for source in &self.entry.sources {
                let (_, pace) = self.entry.guesses.allowance(*source);
                self.entry.with(*source, |history| history.cleared = history.cleared.max(Instant::now()) + pace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    const MALLORY: Source = Source::User(1234);

    /// How long a check takes.
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
        match guesses.wait_for_turn(source, &fingerprint(number)).await {
            CheckDecision::Allowed(check) => {
                tokio::time::sleep(WORK).await;
                check.wrong();
                "wrong"
            }
            CheckDecision::KnownWrong => "known",
            CheckDecision::TooMany => "too many",
        }
    }

    /// Starts connections that guess without a pause from these sources in turn, never the same password twice, and wait up to
    /// `patience` for an answer. Returns how many passwords were checked.
    fn flood(guesses: &Arc<Guesses>, sources: &[Source], patience: Duration) -> Arc<AtomicU32> {
        let (checked, next) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        for source in sources.iter().copied().cycle().take(sources.len().max(200)) {
            let (guesses, checked, next) = (Arc::clone(guesses), Arc::clone(&checked), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let outcome = timeout(patience, wrong(&guesses, source, number)).await;
                    checked.fetch_add(u32::from(outcome == Ok("wrong")), Ordering::Relaxed);
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
    async fn a_flood_of_guesses_gets_one_check_a_second() {
        let checked = checked_in(300, &[MALLORY]).await;
        assert!((280..=311).contains(&checked), "{checked}");
        assert!(checked_in(10, &[MALLORY]).await <= 20);
    }

    #[tokio::test(start_paused = true)]
    async fn many_networks_of_one_site_get_ten_times_as_many_guesses_and_no_more() {
        let networks: Vec<_> = (0..1000).map(network).collect();
        // A check takes its time, so no more than six of them fit into a second.
        assert!(checked_in(300, &networks).await <= 300 * 6 + 100);
        let addresses: Vec<_> = (0..1000).map(address).collect();
        assert!(checked_in(300, &addresses).await <= 300 * 5 + 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_delays_others_by_one_check_at_most() {
        for sources in [vec![MALLORY], (0..300).map(address).collect()] {
            for patience in [Duration::from_millis(300), Duration::from_millis(1700), PATIENCE] {
                let guesses = Arc::new(Guesses::default());
                flood(&guesses, &sources, patience);
                for login in 0..10 {
                    tokio::time::sleep(Duration::from_millis(1234)).await;
                    let begun = Instant::now();
                    let CheckDecision::Allowed(check) =
                        guesses.wait_for_turn(Source::User(1000), &fingerprint(u32::MAX - login)).await
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
    async fn a_remote_source_that_has_logged_in_is_not_delayed_by_other_machines() {
        let guesses = Arc::new(Guesses::default());
        let ann = address(u32::MAX);
        let CheckDecision::Allowed(check) = guesses.wait_for_turn(ann, &fingerprint(0)).await else {
            panic!("refused")
        };
        check.correct();
        flood(&guesses, &(0..1000).map(address).collect::<Vec<_>>(), PATIENCE);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        assert!(matches!(guesses.wait_for_turn(ann, &fingerprint(1)).await, CheckDecision::Allowed(_)));
        assert!(begun.elapsed() <= WORK, "{:?}", begun.elapsed());
    }

    #[test]
    fn replicas_together_allow_what_one_does() {
        for source in [MALLORY, Source::Elsewhere] {
            let (burst, pace) = allowance(source, 1);
            assert_eq!(allowance(source, 2), (burst / 2, pace * 2));
            assert_eq!(allowance(source, 1000).0, 1);
        }
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
        assert_eq!(wrong(&guesses, Source::User(1), 0).await, "wrong", "other sources learn nothing from it");
        guesses.forget_wrong();
        assert_eq!(wrong(&guesses, MALLORY, 0).await, "wrong");
    }

    /// Several programs may try the same old password at once. The first check is enough for all.
    #[tokio::test(start_paused = true)]
    async fn a_password_that_is_tried_several_times_at_once_is_checked_once() {
        let guesses = Arc::new(Guesses::default());
        let (begun, mut tries) = (Instant::now(), tokio::task::JoinSet::new());
        for _ in 0..30 {
            let guesses = Arc::clone(&guesses);
            tries.spawn(async move { wrong(&guesses, MALLORY, 7).await });
        }
        let outcomes = tries.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == "wrong").count(), 1, "{outcomes:?}");
        assert_eq!(begun.elapsed(), WORK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_correct_password_does_not_count() {
        let guesses = Arc::new(Guesses::default());
        let begun = Instant::now();
        for login in 0..100 {
            let CheckDecision::Allowed(check) = guesses.wait_for_turn(MALLORY, &fingerprint(login)).await else {
                panic!("refused")
            };
            if login % 2 == 0 { check.correct() } else { check.not_needed() }
        }
        assert!(begun.elapsed().is_zero());
    }

    /// Otherwise a guess would be free for a client that disconnects during the check.
    #[tokio::test(start_paused = true)]
    async fn a_check_that_nobody_waits_for_counts() {
        let guesses = Arc::new(Guesses::default());
        for guess in 0..10 {
            drop(guesses.wait_for_turn(MALLORY, &fingerprint(guess)).await);
        }
        let begun = Instant::now();
        assert_eq!(wrong(&guesses, MALLORY, 10).await, "wrong");
        assert_eq!(begun.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_beyond_64_waiting_ones_is_refused_at_once() {
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
        let outcomes = waiting.join_all().await;
        let checked = outcomes.iter().filter(|outcome| **outcome == "wrong").count();
        assert!((29..=30).contains(&checked), "{checked}");
        assert!(begun.elapsed() <= PATIENCE + WORK);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_limited() {
        let guesses = Arc::new(Guesses::default());
        let mut entries = Vec::new();
        for number in 0..3 * SOURCES as u32 {
            for source in [address(number), network(number), Source::User(number)] {
                entries.push(QueueEntry::new(&guesses, source));
            }
        }
        assert!(lock(&guesses.sources).len() <= SOURCES + 2);
        drop(entries);
        for guess in 0..2 * REMEMBERED as u32 {
            wrong(&guesses, MALLORY, guess).await;
        }
        let sources = lock(&guesses.sources);
        assert!(sources.values().all(|history| history.wrong.len() <= REMEMBERED && history.waiting == 0));
    }
}
