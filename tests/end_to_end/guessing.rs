//! Guessing passwords over the network: how fast it goes, and what others notice of it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postkey::control::ControlRequest;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Secret;
use postkey::vault::Limits;
use postkey::vault::password::Password;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::support::client::Client;
use crate::support::house::{ANN, BEN, House, Way, accepted, until};
use crate::users::{MALLORY, can_be_others, is_in, log_in_as};

const CHOSEN: &str = "Correct: horse & battery";

/// The number of guesses that a source has at once, and how many more it gets within a second.
const FREE: usize = 10;

/// 64 connections that guess without a pause, never the same password twice. Most of them take an answer that is late for a no,
/// because an attacker does not wait, but tries again. On a slow machine each of their answers may be late, so some wait.
struct Flood {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    /// Answers that show whether a guess was right.
    told: Arc<AtomicUsize>,
    begun: Instant,
}

impl Flood {
    fn begin(port: u16) -> Self {
        let flood = Self { is_over: Arc::default(), sent: Arc::default(), told: Arc::default(), begun: Instant::now() };
        for connection in 0..64 {
            let patience = Duration::from_millis(if connection % 8 == 0 { 30_000 } else { 300 });
            let (is_over, sent, told) = (Arc::clone(&flood.is_over), Arc::clone(&flood.sent), Arc::clone(&flood.told));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let guess = format!("guess {}", sent.fetch_add(1, Ordering::Relaxed));
                    let answer = tokio::time::timeout(patience, one_guess(port, &guess)).await;
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

/// Another user's password is checked at once, and the same user's as soon as it has been correct once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_guesses_gets_nowhere_and_is_not_felt() {
    let mut house = House::open().await;
    let input = format!("{}\n{CHOSEN}", house.password);
    assert_eq!(house.run(&["password", "add", ANN, "chosen", "--choose"], &input).code, Some(0));
    house.restart().await;
    let before = house.provider.requests();
    let flood = Flood::begin(house.port(Protocol::Imap, Security::Clear));
    until("the flood", async || flood.sent.load(Ordering::Relaxed) > 100).await;

    let timed = async |password: &str| {
        let mut program = house.program(Protocol::Pop3, Security::Clear).await;
        let begun = Instant::now();
        let reply = program.log_in(Way::Plain, ANN, password).await;
        assert!(accepted(Protocol::Pop3, &reply), "{reply}");
        begun.elapsed()
    };
    let generated = timed(&house.password).await;
    if !can_be_others() {
        return flood.end();
    }
    let begun = Instant::now();
    let heard = log_in_as(MALLORY, &house, Protocol::Pop3, CHOSEN).await;
    assert!(is_in(Protocol::Pop3, &heard), "{heard}");
    let first = begun.elapsed();
    let mut later = Vec::new();
    for _ in 0..40 {
        later.push(timed(CHOSEN).await);
    }
    later.sort();
    // Wrong passwords are answered late, and these logins do not take long.
    until("an answer to a guess", async || flood.told.load(Ordering::Relaxed) > 0).await;
    flood.end();
    let (sent, told) = (flood.sent.load(Ordering::Relaxed), flood.told.load(Ordering::Relaxed));
    let seconds = flood.begun.elapsed().as_secs();
    println!(
        "{sent} guesses in {seconds} s, {told} answered; a generated password {generated:?}, a chosen one {first:?}"
    );
    println!("later logins: median {:?}, p99 {:?}", later[20], later[39]);
    assert!(told <= FREE + usize::try_from(seconds).unwrap() + 1, "{told} in {seconds} s");
    assert!(sent > 100, "there was a flood");
    assert_eq!(house.provider.requests(), before, "no token was asked for");
}

/// Each guess comes from another address of this machine, on a connection that has ended its own side. Such a client is
/// still known, or at least belongs to one source.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guesser_gains_nothing_by_other_addresses_and_half_closes() {
    let house = House::open().await;
    let port = house.port(Protocol::Imap, Security::Clear);
    let begun = Instant::now();
    let mut guesses = tokio::task::JoinSet::new();
    for number in 0..200 {
        guesses.spawn(async move { half_closed_guess(port, number, &format!("guess {number}")).await });
    }
    let told = guesses.join_all().await;
    let (checked, seconds) =
        (told.iter().filter(|said| said.contains("AUTHENTICATIONFAILED")).count(), begun.elapsed());
    let refused = told.iter().filter(|said| said.contains("[LIMIT]")).count();
    assert!(checked <= FREE + usize::try_from(seconds.as_secs()).unwrap() + 1, "{checked} in {seconds:?}");
    assert_eq!(checked + refused, 200, "each is answered");
}

/// A one-shot login from a separate address. Returns everything it receives.
async fn half_closed_guess(port: u16, number: u32, password: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number), 0).into()).unwrap();
    let mut stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
    let mut said = String::new();
    stream.write_all(format!("a LOGIN {ANN} \"{password}\"\r\n").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_ends_its_own_side_gets_its_login() {
    let mut house = House::open().await;
    let input = format!("{}\n{CHOSEN}", house.password);
    assert_eq!(house.run_beside(&["password", "add", ANN, "chosen", "--choose"], &input).await.code, Some(0));
    for _ in 0..8 {
        // Only the first login with a chosen password waits for a turn.
        house.restart().await;
        let said = half_closed_guess(house.port(Protocol::Imap, Security::Clear), 0, CHOSEN).await;
        assert!(said.contains("a OK ["), "{said}");
    }
}

/// Most letters of a generated password can be typed in two ways that mean the same.
fn spelling(generated: &str, number: usize) -> String {
    let mut spelled = generated.to_owned();
    let letters = generated.char_indices().filter(|(_, letter)| letter.is_ascii_lowercase());
    for (place, (at, letter)) in letters.enumerate() {
        if number >> place & 1 == 1 {
            spelled.replace_range(at..=at, &letter.to_uppercase().to_string());
        }
    }
    spelled
}

/// Her own program writes hers in more ways than are remembered, and somebody else has more app passwords than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_passwords_and_spellings_do_not_make_others_be_forgotten() {
    const MORE_THAN_REMEMBERED: usize = 70;
    const GUESSES: usize = 60;
    let house = House::open().await;
    let bens: Vec<_> = (0..MORE_THAN_REMEMBERED).map(|_| Password::generate().expose()).collect();
    house.authorize(BEN, Some(("0", &Password::read(&bens[0])))).await;
    let add = async |address: &str, password: &[u8], name: String, new: &[u8]| {
        let (password, new) = (Secret::new(password.to_vec()), Password::read(new));
        let (address, limits) = (address.to_owned(), Limits::default());
        house.command(&ControlRequest::AddSlot { address, password, name, new, limits }).await;
    };
    add(ANN, house.password.as_bytes(), "chosen".to_owned(), CHOSEN.as_bytes()).await;
    for (number, password) in bens.iter().enumerate().skip(1) {
        add(BEN, &bens[0], number.to_string(), password).await;
    }
    let port = house.port(Protocol::Imap, Security::Clear);
    let log_in = async |name: &str, password: &str| {
        let reply = house.program(Protocol::Imap, Security::Clear).await.log_in(Way::Plain, name, password).await;
        assert!(accepted(Protocol::Imap, &reply), "{reply}");
    };
    log_in(ANN, CHOSEN).await;
    for (number, password) in bens.iter().enumerate() {
        log_in(ANN, &spelling(&house.password, number)).await;
        log_in(BEN, str::from_utf8(password).unwrap()).await;
    }
    let told = Arc::new(AtomicUsize::new(0));
    for number in 0..GUESSES {
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            one_guess(port, &format!("guess {number}")).await;
            told.fetch_add(1, Ordering::Relaxed);
        });
    }
    until("the free guesses", async || told.load(Ordering::Relaxed) >= FREE).await;
    log_in(ANN, CHOSEN).await;
    // A login that waits for a turn gets it after all that came before.
    let before = told.load(Ordering::Relaxed);
    assert!(before < GUESSES / 2, "she has waited behind {before} guesses");
}

/// A mail program with an old password keeps trying it, and keeps nobody out.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_old_password_that_is_tried_again_and_again_counts_once() {
    let house = House::open().await;
    let port = house.port(Protocol::Imap, Security::Clear);
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..3 * FREE {
        tries.spawn(async move { one_guess(port, "my old password").await });
    }
    while let Some(reply) = tries.join_next().await {
        assert!(reply.unwrap().contains("AUTHENTICATIONFAILED"));
    }
    // Other attempts are free, as if it had been tried once.
    for number in 1..FREE {
        let reply = one_guess(port, &format!("another password {number}")).await;
        assert!(reply.contains("AUTHENTICATIONFAILED"), "{reply}");
    }
}

/// The time that shows over the network whether there is an account: nothing below the 200 ms that every refusal takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn the_time_of_an_unknown_account_and_of_a_wrong_password_on_the_wire() {
    let mut house = House::furnished(Security::Tls, |config| config).await;
    let _daemon = house.serve().await;
    let wrong = String::from_utf8(Password::generate().expose()).unwrap();
    let mut times = [Vec::new(), Vec::new()];
    // One of each in turn, so that other activity of the machine affects both.
    for sample in 0..60 {
        let user = [ANN, "eve@example.test"][sample % 2];
        let mut program = house.program(Protocol::Imap, Security::Clear).await;
        let begun = Instant::now();
        let reply = program.log_in(Way::Own, user, &wrong).await;
        times[sample % 2].push(begun.elapsed().as_secs_f64() * 1000.0);
        assert!(!accepted(Protocol::Imap, &reply));
    }
    let [known, unknown] = times.map(|times| {
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        (mean, times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0) / count)
    });
    let t = (known.0 - unknown.0) / (known.1 + unknown.1).sqrt();
    println!("wrong password {:.2} ms, unknown account {:.2} ms, t = {t:.2}", known.0, unknown.0);
}
