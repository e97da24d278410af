//! A token endpoint that fails in every way: the client is answered in time, the refresh token is kept, and the server
//! is not asked too often.

use std::pin::pin;
use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use postkey::vault::password::Password;
use tokio::time::{Instant, timeout};

use super::certificates::Flaw;
use super::front::{Answer, Front};
use super::watch::{ACT, Belongings, TRY_LATER, answered, begin_login, begin_logins, timed};
use crate::support::house::{ANN, House, LIFE, Way, accepted, skip};

use Answer::{Bytes, Drip, Flood, HangUp, Lose, LoseOnce, Pass, Reset, Stall};

/// The longest wait for an answer, in seconds: 30, and some for the machine.
const ALL: u64 = 30 + 6;

/// The most requests for one refresh.
const TRIES: usize = 3;

/// How much of all endless answers postkey may read, in bytes: 64 KiB of each. The rest is what sockets' buffers hold.
const SWALLOWED: usize = 24 * 1024 * 1024;

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn json(status: &str, body: &str) -> Answer {
    Bytes(http(status, "Content-Type: application/json\r\n", body))
}

fn page(status: &str) -> Answer {
    Bytes(http(status, "Content-Type: text/html\r\n", "<p>Welcome to our hotel!</p>"))
}

fn redirect(status: &str) -> Answer {
    Bytes(http(status, "Location: /token\r\n", ""))
}

/// The head of an endless answer.
fn head(more: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{more}\r\n").into_bytes()
}

/// A gzip stream that promises more at its beginning than its end has.
fn gzip_bomb() -> Answer {
    let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n".to_vec();
    bytes.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    bytes.extend([0; 50_000]);
    Bytes(bytes)
}

/// Temporary failures. The number is the longest time in seconds until postkey asks again.
fn passing() -> Vec<(&'static str, Answer, u64)> {
    let soon = 60;
    let after = |status: &str, value: &str| Bytes(http(status, &format!("Retry-After: {value}\r\n"), ""));
    let date = "Sun, 06 Nov 1994 08:51:37 GMT\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT";
    vec![
        ("500", Bytes(http("500 Internal Server Error", "", "")), soon),
        ("502 with a page", page("502 Bad Gateway"), soon),
        ("503 with seconds", after("503 Service Unavailable", "90"), 90),
        ("429", Bytes(http("429 Too Many Requests", "", "")), soon),
        ("429 with seconds", after("429 Too Many Requests", "120"), 120),
        ("429 with a date", after("429 Too Many Requests", date), 120),
        ("429 with an age", after("429 Too Many Requests", "999999999"), 3600),
        ("429 with nonsense", after("429 Too Many Requests", "soon"), soon),
        ("400 that passes", json("400 Bad Request", r#"{"error":"temporarily_unavailable"}"#), soon),
        ("200 that passes", json("200 OK", r#"{"error":"server_error"}"#), soon),
        ("slow_down", json("400 Bad Request", r#"{"error":"slow_down"}"#), soon),
        ("a page", page("200 OK"), soon),
        ("a page with 400", page("400 Bad Request"), soon),
        ("nothing", Bytes(http("200 OK", "", "")), soon),
        ("nothing as JSON", json("200 OK", ""), soon),
        ("half of the JSON", json("200 OK", r#"{"access_token":"abc","#), soon),
        ("half of the answer", Bytes(head("Content-Length: 1000\r\n")), soon),
        ("half of the head", Bytes(b"HTTP/1.1 200 OK\r\nContent-Ty".to_vec()), soon),
        ("a token with a line end", json("200 OK", r#"{"access_token":"a\r\nb"}"#), soon),
        ("the wrong content type", Bytes(http("200 OK", "Content-Type: text/plain\r\n", "access_token: abc")), soon),
        ("no HTTP", Bytes(b"* OK IMAP4rev1 ready\r\n".to_vec()), soon),
        ("a gigabyte", Flood(head("Content-Length: 1073741824\r\n")), soon),
        ("no end", Flood(head("")), soon),
        ("a head without end", Flood(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), soon),
        ("a gzip bomb", gzip_bomb(), soon),
        ("302", redirect("302 Found"), soon),
        ("307", redirect("307 Temporary Redirect"), soon),
        ("308", redirect("308 Permanent Redirect"), soon),
        ("silence", Stall(Vec::new()), soon),
        ("silence after the head", Stall(head("Content-Length: 10\r\n")), soon),
        ("a drip", Drip(head("Content-Length: 1000\r\n")), soon),
        ("a reset", Reset, soon),
        ("the end", HangUp, soon),
    ]
}

/// Waits until postkey asks again and the login works, which shows that the refresh token was kept.
async fn recover(house: &House, front: &Front, seconds: u64) {
    front.set(Pass);
    skip(Duration::from_secs(seconds)).await;
    house.logged_in(Protocol::Pop3).await.prove().await;
}

#[tokio::test]
async fn temporary_failures_are_survived() {
    let mut front = Front::new().await;
    let house = front.house().await;
    let mut bystander = house.logged_in(Protocol::Imap).await;
    let before = Belongings::of(&house, &[front.port]);
    for (what, answer, seconds) in passing() {
        house.pass(LIFE);
        front.set(answer);
        let requests = front.requests();
        let mut logins = begin_logins(&house).await;
        let took = answered(&mut logins, TRY_LATER, what).await;
        assert!(took <= ALL, "{what}: {took} s");
        // Mail programs try again and again.
        answered(&mut begin_logins(&house).await, TRY_LATER, what).await;
        let made = front.requests() - requests;
        assert!((1..=TRIES).contains(&made), "{what}: {made} requests");
        bystander.prove().await;
        drop(logins);
        before.are_all(what).await;
        if seconds > 60 {
            skip(Duration::from_secs(seconds - 2)).await;
            answered(&mut begin_logins(&house).await, TRY_LATER, what).await;
            assert_eq!(front.requests() - requests, made, "{what}: asked again too early");
        }
        recover(&house, &front, seconds).await;
    }
    assert!(front.flooded() < SWALLOWED, "{} bytes were taken", front.flooded());
}

/// The memory of the process now, and its peak since the last question, in KiB (proc(5)).
fn memory(process: u32) -> [i64; 2] {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    };
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
    ["VmRSS:", "VmHWM:"].map(figure)
}

/// The program itself, with an account for each answer, because a failure stands for a while, and here no time is
/// skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_end_takes_no_memory() {
    let mut front = Front::new().await;
    let mut house = front.house().await;
    house.stop().await;
    let daemon = house.serve().await;
    let cases = [
        ("500", Bytes(http("500 Internal Server Error", "", ""))),
        ("a gigabyte", Flood(head("Content-Length: 1073741824\r\n"))),
        ("no end", Flood(head(""))),
        ("a head without end", Flood(b"HTTP/1.1 200 OK\r\nX: ".to_vec())),
        ("a gzip bomb", gzip_bomb()),
        ("a gzip bomb without end", Flood(head("Content-Encoding: gzip\r\n"))),
    ];
    let user = |number: usize| format!("user{number}@example.test");
    let password = Password::generate();
    for number in 0..cases.len() {
        house.authorize(&user(number), Some(("main", &password))).await;
    }
    house.provider.revoke_access_tokens();
    house.password = String::from_utf8(password.expose()).unwrap();
    let mut before = memory(daemon.id())[0];
    for (number, (what, answer)) in cases.into_iter().enumerate() {
        front.set(answer);
        let mut program = house.program(Protocol::Pop3, Security::Clear).await;
        let reply = program.log_in(Way::Own, &user(number), &house.password).await;
        assert!(reply.starts_with(TRY_LATER[Protocol::Pop3 as usize]), "{what}: {reply}");
        let [after, peak] = memory(daemon.id());
        println!("{what}: {before} KiB before, {peak} at most, {after} after");
        // The very first failure loads code that was not needed before. 1 MiB, half of one for the wiping allocator,
        // because a growing buffer is copied, and a quarter for what the threads' heaps take meanwhile.
        assert!(number == 0 || peak - before <= 1792, "{what}: {before} KiB before, {peak} at most");
        before = after;
    }
}

#[tokio::test]
async fn a_permanent_failure_is_reported_and_requested_once() {
    for (error, status) in [("invalid_grant", "400 Bad Request"), ("invalid_client", "401 Unauthorized")] {
        let mut front = Front::new().await;
        let mut house = front.house().await;
        house.pass(LIFE);
        front.set(json(status, &format!("{{\"error\":\"{error}\"}}")));
        for _ in 0..3 {
            let took = answered(&mut begin_logins(&house).await, ACT, error).await;
            assert!(took <= ALL, "{error}: {took} s");
        }
        assert_eq!(front.requests(), 1, "{error}");
        front.set(Pass);
        skip(Duration::from_secs(3600)).await;
        if error == "invalid_grant" {
            assert!(house.try_login(Protocol::Pop3).await.contains("postkey authorize"));
            assert_eq!(front.requests(), 1, "an ended authorization is not asked for again");
            house.authorize(ANN, None).await;
        } else {
            answered(&mut begin_logins(&house).await, ACT, error).await;
            assert_eq!(front.requests(), 1, "a setting does not correct itself");
            house.reload().await;
        }
        house.logged_in(Protocol::Imap).await.prove().await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_the_servers_gets_nothing() {
    for flaw in [Flaw::Expired, Flaw::NotYet, Flaw::WrongName, Flaw::UnknownAuthority] {
        let mut front = Front::with_tls(Some(flaw)).await;
        let house = front.house().await;
        house.pass(LIFE);
        let took = answered(&mut [begin_login(&house, Protocol::Pop3).await], TRY_LATER, "TLS").await;
        assert!(took <= ALL, "{flaw:?}: {took} s");
        assert_eq!(front.requests(), 0, "{flaw:?}: no refresh token has left");
    }
}

#[tokio::test]
async fn many_persistent_clients_cause_few_requests() {
    let mut front = Front::new().await;
    let house = front.house().await;
    house.pass(LIFE);
    front.set(page("502 Bad Gateway"));
    let begun = Instant::now();
    for _ in 0..100 {
        answered(&mut [begin_login(&house, Protocol::Pop3).await], TRY_LATER, "502").await;
        skip(Duration::from_secs(2)).await;
    }
    // 5, 10, 20, 40, and then 60 seconds between two, less a quarter at most.
    let most = 5 + usize::try_from(begun.elapsed().as_secs().saturating_sub(56) / 45).unwrap();
    assert!(front.requests() <= most * TRIES, "{} requests in {:?}", front.requests(), begun.elapsed());
    recover(&house, &front, 60).await;
}

/// The provider rotates, and the answer with the new refresh token is lost. The token that was sent is the only one.
#[tokio::test]
async fn a_lost_answer_is_asked_for_once_more_at_once() {
    for rotate in [false, true] {
        let mut front = Front::new().await;
        let house = front.house().await;
        house.provider.change(|settings| settings.rotate = rotate);
        house.pass(LIFE);
        front.set(Lose);
        let mut logins = [begin_login(&house, Protocol::Pop3).await];
        let took = answered(&mut logins, TRY_LATER, "lost").await;
        assert!(took <= ALL, "{took} s");
        assert_eq!(front.requests(), 2, "rotate: {rotate}");
        front.set(Pass);
        skip(Duration::from_secs(5)).await;
        let reply = house.try_login(Protocol::Pop3).await;
        // A provider that ends the grant at a second use has ended it. With any other, nothing is lost.
        let words = if rotate { ACT } else { ["", "+OK", ""] };
        assert!(reply.starts_with(words[Protocol::Pop3 as usize]), "rotate: {rotate}: {reply}");
    }
}

#[tokio::test]
async fn a_login_survives_an_answer_that_is_lost_once() {
    let mut front = Front::new().await;
    let house = front.house().await;
    house.provider.change(|settings| settings.rotate = false);
    house.pass(LIFE);
    front.set(LoseOnce);
    let mut login = begin_login(&house, Protocol::Pop3).await;
    let (reply, _) = timed(login.answer()).await;
    assert!(reply.starts_with("+OK"), "{reply}");
    assert_eq!(front.requests(), 2);
}

#[tokio::test]
async fn a_valid_token_is_used_while_the_token_endpoint_is_down() {
    let mut front = Front::new().await;
    let house = front.house().await;
    let mut now = 0;
    // Due for a refresh from 48 minutes on, and valid until 30 seconds before its end.
    for (age, answer) in [(2879, Stall(Vec::new())), (2890, Reset), (3000, page("200 OK")), (3569, Stall(Vec::new()))] {
        front.set(answer);
        house.pass(age - std::mem::replace(&mut now, age));
        let mut logins = begin_logins(&house).await;
        let mut work = pin!(async {
            for login in &mut logins {
                let reply = login.answer().await;
                assert!(accepted(login.protocol, &reply), "{age}: {reply}");
            }
        });
        // Three seconds of the timers at most, and some for the machine.
        if timeout(Duration::from_millis(500), &mut work).await.is_err() {
            skip(Duration::from_secs(3)).await;
            timeout(Duration::from_secs(6), work).await.expect("nobody waits longer for what is not needed");
        }
    }
    house.pass(2);
    answered(&mut begin_logins(&house).await, TRY_LATER, "expired").await;
}

#[tokio::test]
async fn after_hours_without_a_network_the_first_login_works() {
    let mut front = Front::new().await;
    let house = front.house().await;
    front.set(HangUp);
    house.pass(12 * 3600);
    for _ in 0..20 {
        answered(&mut begin_logins(&house).await, TRY_LATER, "no network").await;
        skip(Duration::from_secs(1800)).await;
    }
    let before = front.requests();
    front.set(Pass);
    for protocol in Protocol::ALL {
        house.logged_in(protocol).await.prove().await;
    }
    assert_eq!(front.requests() - before, 1);
}
