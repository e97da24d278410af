//! Guessing passwords over the wire: how fast it goes, and what others feel of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postkey::protocol::{Protocol, Security};

use crate::support::client::Client;
use crate::support::house::{ANN, House, Way, accepted, until};

const CHOSEN: &str = "Correct: horse & battery";

/// Guesses that a source has free, and how many more come within a second.
const FREE: usize = 10;

/// 64 connections that guess without a pause, never the same password twice.
struct Flood {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    /// Answers that tell whether a guess was right.
    told: Arc<AtomicUsize>,
    begun: Instant,
}

impl Flood {
    fn begin(port: u16) -> Self {
        let flood = Self { is_over: Arc::default(), sent: Arc::default(), told: Arc::default(), begun: Instant::now() };
        for _ in 0..64 {
            let (is_over, sent, told) = (Arc::clone(&flood.is_over), Arc::clone(&flood.sent), Arc::clone(&flood.told));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let guess = format!("guess {}", sent.fetch_add(1, Ordering::Relaxed));
                    // An answer that does not come at once is a no: who guesses does not wait, but comes again.
                    let answer = tokio::time::timeout(Duration::from_millis(300), one_guess(port, &guess)).await;
                    if answer.is_ok_and(|reply| reply.contains("AUTHENTICATIONFAILED")) {
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        flood
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

async fn one_guess(port: u16, password: &str) -> String {
    let mut client = Client::clear(port).await;
    client.expect("* OK").await;
    client.ask(&format!("a LOGIN {ANN} \"{password}\"")).await
}

/// One of the same user's programs guesses; that is the worst case, for the two have one turn between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_guesses_gets_nowhere_and_is_not_felt() {
    let mut house = House::open().await;
    let input = format!("{}\n{CHOSEN}", house.password);
    assert_eq!(house.run(&["password", "add", ANN, "chosen", "--choose"], &input).code, Some(0));
    house.restart().await;
    let before = house.provider.requests();
    let flood = Flood::begin(house.port(Protocol::Imap, Security::Clear));
    until("the flood", async || flood.sent.load(Ordering::Relaxed) > 500).await;

    let timed = async |password: &str| {
        let mut program = house.program(Protocol::Pop3, Security::Clear).await;
        let begun = Instant::now();
        let reply = program.log_in(Way::Plain, ANN, password).await;
        assert!(accepted(Protocol::Pop3, &reply), "{reply}");
        begun.elapsed()
    };
    let (generated, first) = (timed(&house.password).await, timed(CHOSEN).await);
    let mut later = Vec::new();
    for _ in 0..40 {
        later.push(timed(CHOSEN).await);
    }
    later.sort();
    flood.end();
    let (sent, told) = (flood.sent.load(Ordering::Relaxed), flood.told.load(Ordering::Relaxed));
    let seconds = flood.begun.elapsed().as_secs();
    println!(
        "{sent} guesses in {seconds} s, {told} answered; a generated password {generated:?}, a chosen one {first:?}"
    );
    println!("later logins: median {:?}, p99 {:?}", later[20], later[39]);
    assert!(told <= FREE + usize::try_from(seconds).unwrap() + 1, "{told} in {seconds} s");
    assert!(told > 0 && sent > 500, "there was a flood");
    assert_eq!(house.provider.requests(), before, "no token was asked for");
}

/// A mail program with an old password does not stop trying it, and keeps nobody from coming in.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_old_password_that_is_tried_again_and_again_counts_once() {
    let house = House::open().await;
    let port = house.port(Protocol::Imap, Security::Clear);
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..3 * FREE {
        tries.spawn(async move { one_guess(port, "my old password").await });
    }
    let begun = Instant::now();
    while let Some(reply) = tries.join_next().await {
        assert!(reply.unwrap().contains("AUTHENTICATIONFAILED"));
    }
    let first = begun.elapsed();
    // Those that came at once were all new. From here on it is known, and what else is tried is free again soon.
    for _ in 0..3 * FREE {
        tries.spawn(async move { one_guess(port, "my old password").await });
    }
    let begun = Instant::now();
    while let Some(reply) = tries.join_next().await {
        assert!(reply.unwrap().contains("AUTHENTICATIONFAILED"));
    }
    println!("at first {first:?}, again {:?}", begun.elapsed());
    assert!(begun.elapsed() < first, "nobody waits for a turn");
}
