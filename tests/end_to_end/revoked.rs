//! Tokens that the provider no longer accepts: each token is refused once, however many mail programs log in.

use std::sync::Arc;
use std::time::Duration;

use postkey::control::ControlRequest;
use postkey::protocol::{Mechanism, Protocol, Security};
use postkey::secret::Secret;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::TokenEndpoint;
use crate::support::house::{ANN, House, Way, accepted, skip};

/// More programs than one mailbox usually has.
const MANY: usize = 50;

/// A refused login at the provider by protocol, and postkey's answer to it.
const NO: [&str; 3] = ["NO [AUTHENTICATIONFAILED] no", "-ERR [AUTH] no", "535 5.7.8 no"];
const TOKEN_REFUSED: [&str; 3] = ["a NO [AUTHENTICATIONFAILED]", "-ERR [AUTH]", "535 5.7.8"];
const LATER: [&str; 3] = ["a NO [UNAVAILABLE]", "-ERR [SYS/TEMP]", "454 4.7.0"];
const ACT: [&str; 3] = ["a NO [ALERT]", "-ERR [SYS/PERM]", "535 5.7.8"];

/// The protocols of the programs in a test: each by itself, and all together.
fn mixes() -> Vec<Vec<Protocol>> {
    Protocol::ALL.map(|protocol| vec![protocol]).into_iter().chain([Protocol::ALL.to_vec()]).collect()
}

/// Logs in with many programs at once, with these protocols in turn. Returns their answers.
async fn log_in_with_many(house: &Arc<House>, protocols: &[Protocol]) -> Vec<(Protocol, String)> {
    let mut logins = JoinSet::new();
    for protocol in protocols.iter().copied().cycle().take(MANY) {
        let house = Arc::clone(house);
        logins.spawn(async move { (protocol, house.try_login(protocol).await) });
    }
    logins.join_all().await
}

fn all_accepted(replies: &[(Protocol, String)]) {
    for (protocol, reply) in replies {
        assert!(accepted(*protocol, reply), "{reply}");
    }
}

fn all_told(replies: &[(Protocol, String)], words: [&str; 3]) {
    for (protocol, reply) in replies {
        assert!(reply.starts_with(words[*protocol as usize]), "{reply}");
    }
}

/// The logins that the provider has refused.
fn bad_logins(house: &House) -> usize {
    let attempts = Protocol::ALL.map(|protocol| house.provider.attempts(protocol));
    attempts.iter().flatten().filter(|attempt| !attempt.accepted).count()
}

fn refreshes(house: &House) -> usize {
    house.provider.token_requests("refresh_token")
}

/// A house whose access token is revoked. If it `has_worked`, each protocol has logged in with it before.
async fn revoked(has_worked: bool) -> Arc<House> {
    let house = House::open().await;
    for protocol in Protocol::ALL.into_iter().filter(|_| has_worked) {
        house.logged_in(protocol).await.prove().await;
    }
    house.provider.revoke_access_tokens();
    Arc::new(house)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_refused_once_and_replaced_once_however_many_come() {
    for (protocols, has_worked) in mixes().into_iter().flat_map(|mix| [(mix.clone(), false), (mix, true)]) {
        let house = revoked(has_worked).await;
        for revocations in 1..=3 {
            all_accepted(&log_in_with_many(&house, &protocols).await);
            assert_eq!((bad_logins(&house), refreshes(&house)), (revocations, revocations), "{protocols:?}");
            house.provider.revoke_access_tokens();
        }
    }
}

/// Dovecot 2.3's words for a dead token about which its introspection endpoint says nothing.
const TROUBLE: [&str; 3] = [
    "NO [UNAVAILABLE] Temporary authentication failure.",
    "-ERR [SYS/TEMP] Temporary authentication failure.",
    "454 4.7.0 Temporary authentication failure.",
];

#[tokio::test]
async fn a_dead_token_that_a_server_calls_its_own_trouble_is_shown_once_and_replaced_once() {
    for (protocols, has_worked) in mixes().into_iter().flat_map(|mix| [(mix.clone(), false), (mix, true)]) {
        let house = revoked(has_worked).await;
        for protocol in Protocol::ALL {
            let words = Some(TROUBLE[protocol as usize].to_owned());
            house.provider.change(|settings| settings.server_mut(protocol).denial = words);
        }
        all_accepted(&log_in_with_many(&house, &protocols).await);
        assert_eq!((bad_logins(&house), refreshes(&house)), (1, 1), "{protocols:?}");
        house.provider.revoke_access_tokens();
        let reply = house.try_login(protocols[0]).await;
        all_told(&[(protocols[0], reply)], LATER);
        assert_eq!((bad_logins(&house), refreshes(&house)), (2, 1), "a token this young has hardly ended");
        skip(Duration::from_secs(600)).await;
        all_accepted(&log_in_with_many(&house, &protocols).await);
        assert_eq!((bad_logins(&house), refreshes(&house)), (3, 2), "{protocols:?}");
    }
}

/// A server with real trouble costs one token, however long that lasts, and a good token stays in use.
#[tokio::test]
async fn an_outage_costs_one_token_and_ends_by_itself() {
    for (protocol, is_down) in Protocol::ALL.into_iter().flat_map(|protocol| [(protocol, false), (protocol, true)]) {
        let house = House::open().await;
        house.logged_in(protocol).await.prove().await;
        let words = Some(TROUBLE[protocol as usize].to_owned());
        house.provider.change(|settings| {
            settings.server_mut(protocol).refuse_login = words;
            settings.token_endpoint = if is_down { TokenEndpoint::Status(429) } else { TokenEndpoint::Normal };
        });
        for round in 1..=3 {
            let reply = house.try_login(protocol).await;
            all_told(&[(protocol, reply)], LATER);
            assert_eq!(refreshes(&house), if is_down { round } else { 1 });
            skip(Duration::from_secs(601)).await;
        }
        let before = refreshes(&house);
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = None);
        house.logged_in(protocol).await.prove().await;
        assert_eq!(refreshes(&house), before, "the token is good");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_during_a_refresh_wait_for_it() {
    let house = revoked(true).await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Delay(Duration::from_millis(300)));
    let first = tokio::spawn({
        let house = Arc::clone(&house);
        async move { house.try_login(Protocol::Imap).await }
    });
    crate::support::house::until("the refresh", async || refreshes(&house) == 1).await;
    all_accepted(&log_in_with_many(&house, &Protocol::ALL).await);
    assert!(accepted(Protocol::Imap, &first.await.unwrap()));
    assert_eq!((bad_logins(&house), refreshes(&house)), (1, 1));
}

#[tokio::test]
async fn while_the_authorization_server_is_down_a_refused_token_is_not_shown_again() {
    for protocols in mixes() {
        let house = revoked(true).await;
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Status(429));
        for round in 1..=3 {
            all_told(&log_in_with_many(&house, &protocols).await, LATER);
            assert_eq!((bad_logins(&house), refreshes(&house)), (1, round), "{protocols:?}");
            skip(Duration::from_secs(61)).await;
        }
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
        all_accepted(&log_in_with_many(&house, &protocols).await);
        assert_eq!(bad_logins(&house), 1);
    }
}

#[tokio::test]
async fn corrected_settings_are_used_after_the_reload() {
    for protocols in mixes() {
        let house = revoked(true).await;
        let wrong = TokenEndpoint::Refuse(json!({ "error": "invalid_client" }));
        house.provider.change(|settings| settings.token_endpoint = wrong);
        for _ in 0..3 {
            all_told(&log_in_with_many(&house, &protocols).await, ACT);
        }
        assert_eq!((bad_logins(&house), refreshes(&house)), (1, 1));
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
        let mut house = Arc::into_inner(house).expect("nobody else has it");
        house.reload().await;
        let house = Arc::new(house);
        all_accepted(&log_in_with_many(&house, &protocols).await);
        assert_eq!((bad_logins(&house), refreshes(&house)), (1, 2));
    }
}

#[tokio::test]
async fn a_new_token_that_is_refused_is_refused_once_and_is_the_only_loop() {
    for protocol in Protocol::ALL {
        let house = revoked(true).await;
        let no = Some(NO[protocol as usize].to_owned());
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = no);
        for _ in 0..3 {
            all_told(&log_in_with_many(&house, &[protocol]).await, TOKEN_REFUSED);
            assert_eq!((bad_logins(&house), refreshes(&house)), (2, 1), "{protocol}");
        }
        let state = house.state().await;
        let said = state["last_login_failure"]["why"].as_str().unwrap();
        assert!(said.contains(" no"), "{said}");
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = None);
        let password = Secret::new(house.password.clone().into_bytes());
        house.command(&ControlRequest::Test { address: ANN.to_owned(), password }).await;
        all_accepted(&log_in_with_many(&house, &[protocol]).await);
        assert_eq!((bad_logins(&house), refreshes(&house)), (2, 2), "{protocol}");
        assert_eq!(house.state().await["last_login_failure"], serde_json::Value::Null);
    }
}

#[tokio::test]
async fn a_mailbox_that_refuses_all_tokens_does_not_affect_the_others() {
    let house = Arc::new(House::open().await);
    house.provider.change(|settings| settings.smtp.refuse_login = Some(NO[2].to_owned()));
    house.logged_in(Protocol::Imap).await.prove().await;
    for _ in 0..3 {
        all_told(&log_in_with_many(&house, &[Protocol::Smtp]).await, TOKEN_REFUSED);
        all_accepted(&log_in_with_many(&house, &[Protocol::Imap, Protocol::Pop3]).await);
    }
    assert_eq!((bad_logins(&house), refreshes(&house)), (2, 1));
}

#[tokio::test]
async fn an_ended_authorization_gives_every_try_the_same_answer_at_once() {
    for protocol in Protocol::ALL {
        let house = revoked(true).await;
        house.provider.end_grant(ANN);
        let mut program = house.program(protocol, Security::Clear).await;
        let mut replies = Vec::new();
        for way in [Way::Plain, Way::Login, Way::Own, Way::PlainInTwo] {
            replies.push(program.log_in(way, ANN, &house.password).await);
        }
        assert!(replies[0].contains("postkey authorize"), "{}", replies[0]);
        assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
        all_told(&log_in_with_many(&house, &[protocol]).await, ACT);
        skip(Duration::from_secs(3600)).await;
        all_told(&log_in_with_many(&house, &[protocol]).await, ACT);
        assert_eq!((bad_logins(&house), refreshes(&house)), (1, 1), "{protocol}");
        house.authorize(ANN, None).await;
        all_accepted(&log_in_with_many(&house, &[protocol]).await);
        assert_eq!(bad_logins(&house), 1);
    }
}

#[tokio::test]
async fn a_restart_finds_out_with_one_login_and_an_ended_authorization_stays_ended() {
    let house = revoked(true).await;
    house.provider.end_grant(ANN);
    all_told(&log_in_with_many(&house, &Protocol::ALL).await, ACT);
    let mut house = Arc::into_inner(house).expect("nobody else has it");
    house.restart().await;
    let house = Arc::new(house);
    for _ in 0..2 {
        all_told(&log_in_with_many(&house, &Protocol::ALL).await, ACT);
        assert_eq!((bad_logins(&house), refreshes(&house)), (2, 1));
    }
}

#[tokio::test]
async fn a_login_that_gets_no_answer_holds_up_nobody_for_ever() {
    let house = Arc::new(House::open().await);
    house.provider.change(|settings| settings.imap.login_delay = Duration::from_secs(3600));
    let stuck = tokio::spawn({
        let house = Arc::clone(&house);
        async move { house.try_login(Protocol::Imap).await }
    });
    crate::support::house::until("a login", async || house.provider.attempts(Protocol::Imap).len() == 1).await;
    let waiting = tokio::spawn({
        let house = Arc::clone(&house);
        async move { house.try_login(Protocol::Pop3).await }
    });
    crate::support::house::until_skipping("the next one's turn", Duration::from_secs(1), async || {
        waiting.is_finished()
    })
    .await;
    assert!(accepted(Protocol::Pop3, &waiting.await.unwrap()));
    stuck.abort();
}

#[tokio::test]
async fn a_mechanism_that_is_offered_and_does_not_work_is_left_for_the_next() {
    for protocol in Protocol::ALL {
        let mut house = House::open().await;
        house.provider.change(|settings| settings.server_mut(protocol).broken = vec![Mechanism::XOAuth2]);
        let used = |house: &House| {
            let attempts = house.provider.attempts(protocol);
            attempts.iter().map(|attempt| (attempt.mechanism, attempt.accepted)).collect::<Vec<_>>()
        };
        let found = [(Mechanism::XOAuth2, false), (Mechanism::OAuthBearer, true)];
        house.logged_in(protocol).await.prove().await;
        assert_eq!((used(&house), refreshes(&house)), (found.to_vec(), 1), "{protocol}");
        let shared = Arc::new(house);
        all_accepted(&log_in_with_many(&shared, &[protocol]).await);
        assert_eq!((bad_logins(&shared), refreshes(&shared)), (1, 1), "{protocol}: it is remembered");
        house = Arc::into_inner(shared).expect("nobody else has it");
        house.reload().await;
        house.logged_in(protocol).await.prove().await;
        house.restart().await;
        house.provider.revoke_access_tokens();
        house.logged_in(protocol).await.prove().await;
        assert_eq!(bad_logins(&house), 2, "{protocol}: also for the token after a revoked one, and after a restart");
    }
}

#[tokio::test]
async fn many_that_come_at_once_find_the_mechanism_that_works_with_one_bad_login() {
    for protocol in Protocol::ALL {
        let house = Arc::new(House::open().await);
        house.provider.change(|settings| settings.server_mut(protocol).broken = vec![Mechanism::XOAuth2]);
        all_accepted(&log_in_with_many(&house, &[protocol]).await);
        assert_eq!((bad_logins(&house), refreshes(&house)), (1, 1), "{protocol}");
    }
}

#[tokio::test]
async fn a_refusal_without_a_word_is_an_end_when_it_comes_again_and_again() {
    for status in [400, 401] {
        let house = revoked(true).await;
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Status(status));
        for round in 1..5 {
            all_told(&log_in_with_many(&house, &Protocol::ALL).await, LATER);
            assert_eq!(refreshes(&house), round, "{status}");
            skip(Duration::from_secs(61)).await;
        }
        for _ in 0..3 {
            all_told(&log_in_with_many(&house, &Protocol::ALL).await, ACT);
            skip(Duration::from_secs(3600)).await;
        }
        assert_eq!((bad_logins(&house), refreshes(&house)), (1, 5), "{status}");
        let state = house.state().await;
        assert!(
            state["state"] == "ended" && state["reason"].as_str().unwrap().contains(&status.to_string()),
            "{state}"
        );
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
        house.authorize(ANN, None).await;
        all_accepted(&log_in_with_many(&house, &Protocol::ALL).await);
    }
}

#[tokio::test]
async fn an_error_of_the_server_itself_never_ends_an_authorization() {
    let house = revoked(true).await;
    for status in [500, 503, 429, 500, 503, 429, 500, 503, 429, 500] {
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Status(status));
        all_told(&log_in_with_many(&house, &[Protocol::Imap]).await, LATER);
        skip(Duration::from_secs(61)).await;
    }
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    all_accepted(&log_in_with_many(&house, &Protocol::ALL).await);
}
