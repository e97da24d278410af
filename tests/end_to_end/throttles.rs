//! A provider's limits for an account: connections, and pauses during which it wants no logins.

use std::sync::Arc;
use std::time::Duration;

use postkey::control::ControlRequest;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Secret;
use postkey::vault::password::Password;

use crate::support::house::{ANN, BEN, House, Program, Way, accepted, skip, until, without_spares};

/// postkey's words for "later, there are too many", by protocol.
const LIMIT: [&str; 3] = ["a NO [LIMIT]", "-ERR [IN-USE]", "4"];

/// The same from the provider, which asks for a pause.
const THROTTLED: [&str; 3] = [
    "BAD Request is throttled. Suggested Backoff Time: 30000 milliseconds",
    "-ERR Request is throttled. Suggested Backoff Time: 30000 milliseconds",
    "421 4.3.2 Request is throttled. Suggested Backoff Time: 30000 milliseconds",
];

/// A house whose provider allows two connections of an account with each protocol.
async fn house_for_two() -> House {
    let limit = |config: String| without_spares(&config).replace("mechanisms = ", "connections = 2\nmechanisms = ");
    House::with(Security::Tls, limit).await
}

/// A program that has sent its login and has no answer yet.
async fn begin(house: &House, protocol: Protocol) -> Program {
    let mut program = house.program(protocol, Security::Clear).await;
    match protocol {
        Protocol::Imap => program.client.say(&format!("a LOGIN {ANN} {}", house.password)).await,
        Protocol::Pop3 => {
            program.client.ask(&format!("USER {ANN}")).await;
            program.client.say(&format!("PASS {}", house.password)).await;
        }
        Protocol::Smtp => {
            program.client.ask("AUTH LOGIN").await;
            program.client.ask(&base64(ANN)).await;
            program.client.say(&base64(&house.password)).await;
        }
    }
    program
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}

/// Waits until this many connections are open, and this many logins wait.
async fn until_there_are(house: &House, protocol: Protocol, open: usize, waiting: usize) {
    until(&format!("{open} open and {waiting} waiting"), async || {
        let state = house.state().await;
        let all = state["connections"].as_array().unwrap();
        let one = all.iter().find(|one| one["protocol"] == protocol.name()).unwrap();
        (one["open"].as_u64(), one["waiting"].as_u64()) == (Some(open as u64), Some(waiting as u64))
    })
    .await;
}

#[tokio::test]
async fn a_login_over_the_limit_waits_for_the_end_of_a_session() {
    let house = house_for_two().await;
    for protocol in Protocol::ALL {
        let (first, mut second) = (house.logged_in(protocol).await, house.logged_in(protocol).await);
        let mut third = begin(&house, protocol).await;
        until_there_are(&house, protocol, 2, 1).await;
        let mut fourth = begin(&house, protocol).await;
        until_there_are(&house, protocol, 2, 2).await;
        assert_eq!(house.provider.connections(protocol), 2, "the provider hears nothing of those who wait");
        drop(first);
        let reply = third.client.line().await;
        assert!(accepted(protocol, &reply) || reply.starts_with('*'), "first come, first served: {reply}");
        until_there_are(&house, protocol, 2, 1).await;
        drop(third);
        let reply = fourth.client.line().await;
        assert!(accepted(protocol, &reply) || reply.starts_with('*'), "{reply}");
        second.prove().await;
        drop((second, fourth));
        until_there_are(&house, protocol, 0, 0).await;
    }
}

#[tokio::test]
async fn nobody_waits_longer_than_twenty_seconds_for_a_connection() {
    let house = house_for_two().await;
    for protocol in Protocol::ALL {
        let _sessions = (house.logged_in(protocol).await, house.logged_in(protocol).await);
        let mut third = begin(&house, protocol).await;
        until_there_are(&house, protocol, 2, 1).await;
        skip(Duration::from_secs(21)).await;
        let reply = third.client.line().await;
        assert!(
            reply.starts_with(LIMIT[protocol as usize])
                && reply.contains(" connections that own allows ")
                && reply.contains("All 2 "),
            "{reply}"
        );
        until_there_are(&house, protocol, 2, 0).await;
    }
}

#[tokio::test]
async fn a_client_that_disconnects_while_it_waits_makes_room_for_the_next() {
    let house = house_for_two().await;
    let (first, _second) = (house.logged_in(Protocol::Imap).await, house.logged_in(Protocol::Imap).await);
    let third = begin(&house, Protocol::Imap).await;
    until_there_are(&house, Protocol::Imap, 2, 1).await;
    let mut fourth = begin(&house, Protocol::Imap).await;
    until_there_are(&house, Protocol::Imap, 2, 2).await;
    drop(third);
    until_there_are(&house, Protocol::Imap, 2, 1).await;
    drop(first);
    let reply = fourth.client.line().await;
    assert!(accepted(Protocol::Imap, &reply) || reply.starts_with('*'), "{reply}");
    assert_eq!(house.provider.connections(Protocol::Imap), 3);
}

#[tokio::test]
async fn other_protocols_and_other_accounts_have_places_of_their_own() {
    let house = house_for_two().await;
    let password = Password::generate();
    house.authorize(BEN, Some(("main", &password))).await;
    let _sessions = (house.logged_in(Protocol::Imap).await, house.logged_in(Protocol::Imap).await);
    house.logged_in(Protocol::Pop3).await.prove().await;
    let mut ben = house.program(Protocol::Imap, Security::Clear).await;
    let reply = ben.log_in(Way::Plain, BEN, &String::from_utf8(password.expose()).unwrap()).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
}

#[tokio::test]
async fn a_limit_that_is_raised_by_a_reload_lets_those_in_who_wait() {
    let mut house = house_for_two().await;
    let _sessions = (house.logged_in(Protocol::Imap).await, house.logged_in(Protocol::Imap).await);
    let mut third = begin(&house, Protocol::Imap).await;
    until_there_are(&house, Protocol::Imap, 2, 1).await;
    for provider in house.config.providers.values_mut().filter(|provider| provider.name == "own") {
        Arc::make_mut(provider).connections.insert(Protocol::Imap, Some(3));
    }
    house.reload().await;
    let reply = third.client.line().await;
    assert!(accepted(Protocol::Imap, &reply) || reply.starts_with('*'), "{reply}");
}

#[tokio::test]
async fn a_pause_that_the_provider_names_holds_new_logins_for_that_long() {
    for protocol in Protocol::ALL {
        let house = House::open().await;
        let mut session = house.logged_in(Protocol::Imap).await;
        let said = Some(THROTTLED[protocol as usize].to_owned());
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = said);
        let before = house.provider.connections(protocol);
        for _ in 0..20 {
            let reply = house.try_login(protocol).await;
            let is_temporary = ["a NO [LIMIT]", "a NO [UNAVAILABLE]", "-ERR [IN-USE]", "-ERR [SYS/TEMP]", "4"];
            assert!(is_temporary.iter().any(|words| reply.starts_with(words)), "{reply}");
            assert!(reply.contains("Backoff"), "the provider's words are told: {reply}");
        }
        assert_eq!(house.provider.connections(protocol), before + 1, "{protocol}: nobody asks again");
        let text = house.metrics().await;
        assert!(text.contains("postkey_accounts_backoff{provider=\"own\"} 1\n"), "{text}");
        assert_eq!(house.state().await["backoff"]["until"], serde_json::json!(house.now().after(30)));
        session.prove().await;
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = None);
        skip(Duration::from_secs(31)).await;
        house.logged_in(protocol).await.prove().await;
        assert!(house.state().await["backoff"].is_null());
    }
}

#[tokio::test]
async fn a_person_who_tests_does_not_wait_for_the_pause() {
    let house = House::open().await;
    house.provider.change(|settings| settings.imap.refuse_login = Some(THROTTLED[0].to_owned()));
    house.try_login(Protocol::Imap).await;
    house.provider.change(|settings| settings.imap.refuse_login = None);
    let password = Secret::new(house.password.clone().into_bytes());
    house.command(&ControlRequest::Test { address: ANN.to_owned(), password }).await;
    house.logged_in(Protocol::Imap).await.prove().await;
}
