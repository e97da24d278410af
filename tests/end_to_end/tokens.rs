//! The lives of tokens: refreshed once for all that wait, never lost, and never requested needlessly.

use std::sync::Arc;
use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::TokenEndpoint;
use crate::support::house::{ANN, House, LIFE, Way, accepted, skip, until};

const REFRESH: &str = "refresh_token";

/// Sends a POP3 login and does not wait for its answer.
async fn begin_login(house: &House) -> crate::support::house::Program {
    let mut program = house.program(Protocol::Pop3, Security::Clear).await;
    program.client.ask(&format!("USER {ANN}")).await;
    program.client.say(&format!("PASS {}", house.password)).await;
    program
}

async fn expires(house: &House) -> u64 {
    house.state().await["token_expires"].as_u64().unwrap()
}

#[tokio::test]
async fn two_hundred_logins_at_once_share_one_refresh() {
    let house = Arc::new(House::open().await);
    let delay = TokenEndpoint::Delay(Duration::from_millis(200));
    house.provider.change(|settings| settings.token_endpoint = delay);
    house.pass(LIFE);
    let mut logins = JoinSet::new();
    for number in 0..200 {
        let (house, protocol) = (Arc::clone(&house), Protocol::ALL[number % 3]);
        logins.spawn(async move { house.logged_in(protocol).await.prove().await });
    }
    while let Some(result) = logins.join_next().await {
        result.unwrap();
    }
    assert_eq!(house.provider.requests(), [REFRESH]);
}

#[tokio::test]
async fn a_token_is_refreshed_before_it_ends_and_not_much_earlier() {
    let house = House::open().await;
    house.pass(LIFE / 2);
    house.logged_in(Protocol::Imap).await;
    assert_eq!(house.provider.token_requests(REFRESH), 0);
    house.pass(LIFE / 2 - 300);
    house.logged_in(Protocol::Imap).await;
    assert_eq!(house.provider.token_requests(REFRESH), 1, "five minutes are too few for a session");
}

#[tokio::test]
async fn rotated_refresh_tokens_survive_restarts() {
    let mut house = House::open().await;
    for round in 1..=6 {
        house.pass(LIFE);
        house.logged_in(Protocol::ALL[round % 3]).await.prove().await;
        assert_eq!(house.provider.token_requests(REFRESH), round);
        if round % 2 == 0 {
            house.restart().await;
            house.logged_in(Protocol::Pop3).await.prove().await;
            assert_eq!(house.provider.token_requests(REFRESH), round, "the access token is kept as well");
        }
    }
}

#[tokio::test]
async fn a_server_that_keeps_its_refresh_token_is_asked_with_it_again() {
    let mut house = House::open().await;
    house.provider.change(|settings| settings.rotate = false);
    for round in 1..=3 {
        house.pass(LIFE);
        house.restart().await;
        house.logged_in(Protocol::Imap).await;
        assert_eq!(house.provider.token_requests(REFRESH), round);
    }
}

#[tokio::test]
async fn a_revoked_token_costs_one_refresh_and_one_new_connection() {
    for protocol in Protocol::ALL {
        let house = House::open().await;
        house.provider.revoke_access_tokens();
        house.logged_in(protocol).await.prove().await;
        let tries: Vec<_> = house.provider.attempts(protocol).iter().map(|attempt| attempt.accepted).collect();
        assert_eq!((tries, house.provider.connections(protocol)), (vec![false, true], 2));
        assert_eq!(house.provider.requests(), [REFRESH]);
    }
}

#[tokio::test]
async fn a_token_that_stays_refused_is_no_reason_to_loop() {
    let said = ["NO [AUTHENTICATIONFAILED] no", "-ERR [AUTH] no", "535 5.7.8 no"];
    let told = ["a NO [AUTHENTICATIONFAILED]", "-ERR [AUTH]", "535 5.7.8"];
    for protocol in Protocol::ALL {
        let house = House::open().await;
        let said = said[protocol as usize].to_owned();
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = Some(said));
        let made = || (house.provider.attempts(protocol).len(), house.provider.requests().len());
        for _ in 0..100 {
            let reply = house.try_login(protocol).await;
            assert!(reply.starts_with(told[protocol as usize]), "{reply}");
            assert_eq!(made(), (2, 1), "one try with the token that was there, and one with a new one");
        }
        // After one minute, and then after two, one more new token is tried.
        for (seconds, attempts) in [(61, 3), (61, 3), (61, 4)] {
            skip(Duration::from_secs(seconds)).await;
            house.try_login(protocol).await;
            assert_eq!(made(), (attempts, attempts - 1));
        }
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = None);
        skip(Duration::from_secs(241)).await;
        house.logged_in(protocol).await.prove().await;
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_take_the_new_token_with_it() {
    let mut house = House::open().await;
    house.pass(LIFE);
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Delay(Duration::from_millis(200)));
    let (program, before) = (begin_login(&house).await, expires(&house).await);
    until("a request for a token", async || house.provider.requests().len() == 1).await;
    drop(program);
    until("the keeping of the token", async || expires(&house).await != before).await;
    house.restart().await;
    house.logged_in(Protocol::Pop3).await.prove().await;
    assert_eq!(house.provider.requests(), [REFRESH]);
}

#[tokio::test]
async fn a_mail_server_that_fails_meanwhile_does_not_take_the_new_token_with_it() {
    let mut house = House::open().await;
    house.pass(LIFE);
    let before = expires(&house).await;
    house.provider.change(|settings| {
        settings.token_endpoint = TokenEndpoint::Delay(Duration::from_millis(200));
        settings.pop3.close_at_connect = true;
    });
    let reply = house.try_login(Protocol::Pop3).await;
    assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{reply}");
    until("the keeping of the token", async || expires(&house).await != before).await;
    house.provider.change(|settings| settings.pop3.close_at_connect = false);
    house.restart().await;
    house.logged_in(Protocol::Pop3).await.prove().await;
    assert_eq!(house.provider.requests(), [REFRESH]);
}

#[tokio::test]
async fn while_the_token_lives_nobody_notices_that_the_token_endpoint_is_down() {
    let house = House::open().await;
    house.pass(LIFE - 120);
    for trouble in [TokenEndpoint::Status(500), TokenEndpoint::Html] {
        house.provider.change(|settings| settings.token_endpoint = trouble);
        // At once, because a failure stands for some seconds.
        let [imap, pop3, smtp] = Protocol::ALL.map(|protocol| house.logged_in(protocol));
        let programs = tokio::join!(imap, pop3, smtp);
        for mut program in [programs.0, programs.1, programs.2] {
            program.prove().await;
        }
        // It no longer stands then, and it is not yet time for the refresh ahead.
        skip(Duration::from_secs(6)).await;
    }
    assert_eq!(house.provider.requests().len(), 2, "one for each trouble");
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    skip(Duration::from_secs(6)).await;
    house.logged_in(Protocol::Imap).await;
    assert_eq!(house.provider.requests().len(), 3);
}

/// The provider has rotated the refresh token, and its answer was lost: nothing is left to refresh with. This counts as
/// a temporary problem at first, because nobody can know, and then as the end, which is reported.
#[tokio::test]
async fn a_lost_answer_ends_in_a_clear_message() {
    let house = House::open().await;
    house.pass(LIFE);
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::LoseAnswer);
    let mut program = begin_login(&house).await;
    until("a request for a token", async || house.provider.requests().len() == 1).await;
    skip(Duration::from_secs(15)).await;
    until("the same request once more", async || house.provider.requests().len() == 2).await;
    skip(Duration::from_secs(15)).await;
    program.client.expect("-ERR [SYS/TEMP]").await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    let reply = house.try_login(Protocol::Pop3).await;
    assert!(reply.starts_with("-ERR [SYS/TEMP]"), "the failure stands for some seconds: {reply}");
    skip(Duration::from_secs(6)).await;
    let reply = house.try_login(Protocol::Pop3).await;
    assert!(reply.starts_with("-ERR [SYS/PERM]") && reply.contains("postkey authorize"), "{reply}");
    assert_eq!(house.provider.requests().len(), 3);
}

#[tokio::test]
async fn an_ended_authorization_requests_nothing_until_it_is_given_again() {
    let mut house = House::open().await;
    house.provider.end_grant(ANN);
    house.pass(LIFE);
    for _ in 0..2 {
        for protocol in Protocol::ALL {
            let reply = house.try_login(protocol).await;
            assert!(reply.contains("postkey authorize"), "{reply}");
        }
        skip(Duration::from_secs(600)).await;
        assert_eq!(house.provider.requests(), [REFRESH]);
        house.restart().await;
    }
    house.authorize(ANN, None).await;
    for protocol in Protocol::ALL {
        house.logged_in(protocol).await.prove().await;
    }
    assert_eq!(house.provider.requests(), [REFRESH]);
    house.pass(LIFE);
    house.logged_in(Protocol::Imap).await;
    assert_eq!(house.provider.requests().len(), 2);
}

#[tokio::test]
async fn an_authorization_is_not_overwritten_by_a_refresh_of_the_one_before() {
    let mut house = House::open().await;
    house.pass(LIFE);
    let gate = Arc::new(Semaphore::new(0));
    house.provider.change(|settings| {
        settings.token_endpoint = TokenEndpoint::Gate(Arc::clone(&gate));
        settings.token_life = Duration::from_secs(2 * LIFE);
    });
    let mut program = begin_login(&house).await;
    until("a request for a token", async || house.provider.requests().len() == 1).await;
    house.authorize(ANN, None).await;
    let authorized = expires(&house).await;
    gate.add_permits(1);
    program.client.expect("+OK").await;
    assert_eq!(expires(&house).await, authorized);
    drop(program);
    house.restart().await;
    house.logged_in(Protocol::Pop3).await.prove().await;
}

#[tokio::test]
async fn an_authorization_is_not_ended_by_the_end_of_the_one_before() {
    let house = House::open().await;
    house.pass(LIFE);
    house.provider.end_grant(ANN);
    let gate = Arc::new(Semaphore::new(0));
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Gate(Arc::clone(&gate)));
    let mut program = begin_login(&house).await;
    until("a request for a token", async || house.provider.requests().len() == 1).await;
    house.authorize(ANN, None).await;
    gate.add_permits(1);
    let reply = program.client.line().await;
    assert!(reply.starts_with("-ERR [SYS/PERM]"), "who waited for the old one hears of its end: {reply}");
    assert_eq!(house.state().await["state"], "ready");
    let reply = program.log_in(Way::Own, ANN, &house.password).await;
    assert!(accepted(Protocol::Pop3, &reply), "and is let in by the new one: {reply}");
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    house.pass(LIFE);
    house.logged_in(Protocol::Pop3).await.prove().await;
}
