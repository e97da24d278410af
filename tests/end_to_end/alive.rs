//! Accounts kept alive: tokens are refreshed before somebody waits for them, and refresh tokens before they expire.

use std::sync::Arc;
use std::time::Duration;

use postkey::control::ControlRequest;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Secret;
use postkey::vault::password::Password;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::support::TokenEndpoint;
use crate::support::house::{ANN, BEN, House, LIFE, Program, Way, skip, until, until_skipping};

/// A little more than the pause between two checks of what is due.
const TICK: Duration = Duration::from_secs(21);

const DAY: u64 = 24 * 3600;

/// A house whose provider has this additional line in its configuration.
async fn house_with(line: &str) -> House {
    House::with(Security::Tls, |config| config.replace("mechanisms = ", &format!("{line}\nmechanisms = "))).await
}

fn refreshes(house: &House) -> usize {
    house.provider.requests().len()
}

/// Waits until the tokens were refreshed at this moment, which took this many requests in all.
async fn until_refreshed(house: &House, times: usize) {
    until_skipping("a refresh ahead", TICK, async || {
        refreshes(house) == times && house.state().await["token_refreshed"] == json!(house.now())
    })
    .await;
}

/// Disconnects, and waits until postkey has ended the session.
async fn leave(house: &House, program: Program) {
    let none = format!("postkey_sessions{{protocol=\"{}\"}} 0", program.protocol.name());
    drop(program);
    until("the end of the session", async || house.metrics().await.contains(&none)).await;
}

/// Checks several times what is due, with a login in between, so that everything gets its turn.
async fn nothing_is_asked(house: &House) {
    let before = refreshes(house);
    for _ in 0..3 {
        skip(TICK).await;
        house.try_login(Protocol::Pop3).await;
    }
    assert_eq!(refreshes(house), before);
}

#[tokio::test]
async fn while_a_session_is_open_no_login_finds_a_stale_token() {
    let house = House::open().await;
    let mut session = house.logged_in(Protocol::Imap).await;
    for times in 1..=3 {
        house.pass(LIFE * 6 / 10);
        nothing_is_asked(&house).await;
        house.pass(LIFE * 15 / 100);
        until_refreshed(&house, times).await;
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Hang);
        house.logged_in(Protocol::Smtp).await.prove().await;
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    }
    session.prove().await;
    leave(&house, session).await;
    leave(&house, house.logged_in(Protocol::Pop3).await).await;
    house.pass(LIFE);
    skip(TICK).await;
    skip(TICK).await;
    assert_eq!(refreshes(&house), 3, "nobody is there any more");
}

#[tokio::test]
async fn the_accounts_take_turns() {
    // Half of the two may be ahead of expiry.
    let mut house = house_with("concurrent_refreshes = 2").await;
    let password = Password::generate();
    house.authorize(BEN, Some(("main", &password))).await;
    let ann = house.logged_in(Protocol::Imap).await;
    house.password = String::from_utf8(password.expose()).unwrap();
    let mut ben = house.program(Protocol::Imap, Security::Clear).await;
    ben.log_in(Way::Plain, BEN, &house.password).await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Hang);
    house.pass(LIFE * 8 / 10);
    skip(TICK).await;
    until("a request", async || refreshes(&house) == 1).await;
    skip(Duration::from_secs(5)).await;
    ben.prove().await;
    assert_eq!(refreshes(&house), 1, "one at a time");
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    // After a lost answer there is one more request, and then it is the other's turn.
    skip(Duration::from_secs(10)).await;
    until("the same once more", async || refreshes(&house) == 2).await;
    skip(Duration::from_secs(2)).await;
    until("the other's turn", async || refreshes(&house) == 3).await;
    drop(ann);
}

#[tokio::test]
async fn an_authorization_server_gets_only_so_many_refreshes_at_a_time() {
    let house = house_with("concurrent_refreshes = 1").await;
    let password = Password::generate();
    house.authorize(BEN, Some(("main", &password))).await;
    let bens = String::from_utf8(password.expose()).unwrap();
    house.pass(LIFE);
    let gate = Arc::new(Semaphore::new(0));
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Gate(Arc::clone(&gate)));
    let ben = async {
        let mut program = house.program(Protocol::Pop3, Security::Clear).await;
        program.log_in(Way::Plain, BEN, &bens).await
    };
    let watch = async {
        until("a request", async || refreshes(&house) == 1).await;
        skip(Duration::from_secs(2)).await;
        assert_eq!(refreshes(&house), 1, "the other one waits for its place");
        gate.add_permits(2);
    };
    let (ann, ben, ()) = tokio::join!(house.try_login(Protocol::Pop3), ben, watch);
    assert!(ann.starts_with("+OK") && ben.starts_with("+OK"), "{ann} {ben}");
    assert_eq!(refreshes(&house), 2);
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_is_not_stormed_and_is_asked_at_once_after_a_sleep() {
    let house = House::open().await;
    let mut session = house.logged_in(Protocol::Imap).await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Status(503));
    house.pass(LIFE * 8 / 10);
    for _ in 0..180 {
        skip(TICK).await;
        session.prove().await;
    }
    // 1, 2, 4, 8 and then 15 minutes apart, less a quarter at most. Each is tried once, because nobody waits.
    assert!((5..=9).contains(&refreshes(&house)), "{} requests in an hour", refreshes(&house));
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    let before = refreshes(&house);
    house.pass(300);
    until_refreshed(&house, before + 1).await;
}

#[tokio::test]
async fn a_session_that_ends_with_its_token_begins_with_half_of_it() {
    let house = house_with("session_ends_with_token = true").await;
    house.pass(LIFE / 2 + 10);
    for protocol in [Protocol::Pop3, Protocol::Smtp] {
        house.logged_in(protocol).await.prove().await;
    }
    assert_eq!(refreshes(&house), 0, "these sessions are short");
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Hang);
    let begun = Instant::now();
    let login = async {
        house.logged_in(Protocol::Imap).await.prove().await;
    };
    timeout(Duration::from_secs(10), login).await.expect("the token at hand is good");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // Twice the time of a request; after that, the failure stands for some seconds.
    for _ in 0..40 {
        skip(Duration::from_secs(1)).await;
    }
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    let before = refreshes(&house);
    house.logged_in(Protocol::Imap).await.prove().await;
    assert_eq!(refreshes(&house), before + 1);
    house.logged_in(Protocol::Imap).await.prove().await;
    assert_eq!(refreshes(&house), before + 1);
}

#[tokio::test]
async fn a_refresh_token_that_ages_is_used_while_the_account_is_open() {
    let mut house = house_with("refresh_token_life = 90").await;
    let sealed = house.state().await;
    assert_eq!((&sealed["open"], &sealed["next_keep_alive"]), (&json!(false), &json!(null)));
    leave(&house, house.logged_in(Protocol::Pop3).await).await;
    let open = house.state().await;
    let [refreshed, next, end] =
        ["token_refreshed", "next_keep_alive", "refresh_token_ends"].map(|key| open[key].as_u64().unwrap());
    assert_eq!(end - refreshed, 90 * DAY);
    assert!((27 * DAY..=30 * DAY).contains(&(next - refreshed)), "a third of it, or a little earlier");
    house.pass(next - refreshed - 60);
    skip(TICK).await;
    skip(TICK).await;
    assert_eq!(refreshes(&house), 0);
    for times in 1..=3 {
        house.pass(next - refreshed);
        until_refreshed(&house, times).await;
    }
    house.restart().await;
    house.pass(50 * DAY);
    skip(TICK).await;
    skip(TICK).await;
    assert_eq!(house.state().await["open"], json!(false));
    assert_eq!(refreshes(&house), 3, "its tokens are sealed");
    house.logged_in(Protocol::Pop3).await.prove().await;
}

fn refusal(number: u32) -> TokenEndpoint {
    TokenEndpoint::Refuse(json!({
        "error": "invalid_grant",
        "error_description": format!("AADSTS{number}: The server's own words.\r\nTrace ID: 1"),
        "error_codes": [number],
    }))
}

#[tokio::test]
async fn an_error_for_an_administrator_stops_requests_until_a_reload() {
    let mut house = House::open().await;
    let mut session = house.logged_in(Protocol::Imap).await;
    house.pass(LIFE);
    house.provider.change(|settings| settings.token_endpoint = refusal(53003));
    let told = ["a NO [ALERT] ", "-ERR [SYS/PERM] ", "535 5.7.8 "];
    for protocol in Protocol::ALL {
        let reply = house.try_login(protocol).await;
        assert!(reply.starts_with(told[protocol as usize]), "{reply}");
        for part in ["administrator", "Conditional Access", "AADSTS53003: The server's own words"] {
            assert!(reply.contains(part), "{reply}");
        }
        skip(Duration::from_secs(3600)).await;
    }
    let state = house.state().await;
    assert_eq!((refreshes(&house), state["state"].as_str()), (1, Some("refused")));
    assert!(state["reason"].as_str().unwrap().contains("Conditional Access"), "{state}");
    assert!(state["last_failure"]["why"].as_str().unwrap().contains("AADSTS53003"), "{state}");
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    house.try_login(Protocol::Pop3).await;
    assert_eq!(refreshes(&house), 1);
    house.reload().await;
    until_refreshed_by_somebody(&house).await;
    house.logged_in(Protocol::Pop3).await.prove().await;
    assert_eq!(house.state().await["state"], json!("ready"));
    session.prove().await;
}

/// The session is open, so the background task may be first.
async fn until_refreshed_by_somebody(house: &House) {
    house.try_login(Protocol::Pop3).await;
    until("a second request", async || refreshes(house) == 2).await;
}

#[tokio::test]
async fn a_person_may_insist() {
    for number in [50173, 53003, 7_000_222] {
        let house = House::open().await;
        house.pass(LIFE);
        house.provider.change(|settings| settings.token_endpoint = refusal(number));
        house.try_login(Protocol::Pop3).await;
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
        house.try_login(Protocol::Pop3).await;
        assert_eq!(refreshes(&house), 1, "{number}");
        let password = Secret::new(house.password.clone().into_bytes());
        house.command(&ControlRequest::Test { address: ANN.to_owned(), password }).await;
        assert_eq!((refreshes(&house), &house.state().await["state"]), (2, &json!("ready")), "{number}");
        house.logged_in(Protocol::Pop3).await.prove().await;
    }
}

#[tokio::test]
async fn a_loop_that_the_provider_sees_is_broken_for_minutes() {
    let house = House::open().await;
    house.pass(LIFE);
    house.provider.change(|settings| settings.token_endpoint = refusal(50196));
    for _ in 0..9 {
        let reply = house.try_login(Protocol::Pop3).await;
        assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
        skip(Duration::from_secs(60)).await;
    }
    assert_eq!(refreshes(&house), 1);
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    skip(Duration::from_secs(120)).await;
    house.logged_in(Protocol::Pop3).await.prove().await;
}
