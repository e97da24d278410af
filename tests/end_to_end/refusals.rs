//! Refused logins: their words, their cost, and that the connection continues.

use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use tokio::net::TcpSocket;

use crate::support::TokenEndpoint;
use crate::support::house::{ANN, BEN, House, LIFE, Program, Way, accepted, skip, until};

/// How each protocol reports it, in the order of [`Protocol::ALL`]: RFC 5530, RFC 3206, RFC 4954.
const WRONG_PASSWORD: [&str; 3] = ["a NO [AUTHENTICATIONFAILED] ", "-ERR [AUTH] ", "535 5.7.8 "];
const AUTHORIZATION_ENDED: [&str; 3] = ["a NO [ALERT] ", "-ERR [SYS/PERM] ", "535 5.7.8 "];
const TRY_LATER: [&str; 3] = ["a NO [UNAVAILABLE] ", "-ERR [SYS/TEMP] ", "454 4.7.0 "];
const LIMIT: [&str; 3] = ["a NO [LIMIT] ", "-ERR [IN-USE] ", "454 4.7.0 "];
const FORBIDDEN: [&str; 3] = ["a NO [CONTACTADMIN] ", "-ERR [SYS/PERM] ", "535 5.7.8 "];

/// Tries to log in with Ann's app password.
async fn refused(program: &mut Program, house: &House, words: [&str; 3]) -> String {
    let reply = program.log_in(Way::Plain, ANN, &house.password).await;
    let words = words[program.protocol as usize];
    assert!(reply.starts_with(words), "{reply:?} is not {words:?}");
    reply
}

async fn let_in(program: &mut Program, house: &House) {
    let reply = program.log_in(Way::Plain, ANN, &house.password).await;
    assert!(accepted(program.protocol, &reply), "{reply}");
    program.prove().await;
}

#[tokio::test]
async fn a_wrong_password_touches_nothing() {
    let house = House::open().await;
    // Even if a token has to be refreshed, the password is checked first.
    house.pass(LIFE);
    let before = (house.state().await, house.vault_bytes());
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        let wrong = program.log_in(Way::Plain, ANN, "not the password").await;
        let unknown = program.log_in(Way::Own, BEN, &house.password).await;
        let like_generated = program.log_in(Way::Login, ANN, "00000-00000-00000-00000-000000").await;
        assert!(wrong.starts_with(WRONG_PASSWORD[protocol as usize]), "{wrong}");
        assert_eq!([&wrong, &wrong], [&unknown, &like_generated], "all of them look the same from outside");
        assert_eq!(house.provider.connections(protocol), 0);
    }
    assert_eq!(house.provider.requests(), [""; 0]);
    assert_eq!((house.state().await, house.vault_bytes()), before);
}

#[tokio::test]
async fn after_a_wrong_password_the_right_one_is_taken_on_the_same_connection() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        for way in Way::ALL {
            let mut program = house.program(protocol, Security::Clear).await;
            for _ in 0..2 {
                let reply = program.log_in(way, ANN, "not the password").await;
                assert!(reply.starts_with(WRONG_PASSWORD[protocol as usize]), "{way:?}: {reply}");
            }
            let_in(&mut program, &house).await;
        }
    }
}

#[tokio::test]
async fn a_client_is_disconnected_after_six_failed_logins() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        for _ in 0..6 {
            let reply = program.log_in(Way::Plain, ANN, "not the password").await;
            assert!(reply.starts_with(WRONG_PASSWORD[protocol as usize]), "{reply}");
        }
        program.client.expect(["* BYE", "-ERR [SYS/TEMP]", "421"][protocol as usize]).await;
        assert!(program.client.is_closed().await);
        house.logged_in(protocol).await;
    }
}

#[tokio::test]
async fn every_login_reports_an_ended_authorization_until_it_is_given_again() {
    for protocol in Protocol::ALL {
        let house = House::open().await;
        house.provider.end_grant(ANN);
        house.pass(LIFE);
        let mut program = house.program(protocol, Security::Clear).await;
        let reply = refused(&mut program, &house, AUTHORIZATION_ENDED).await;
        assert!(reply.contains("postkey authorize ann@example.test"), "{reply}");
        assert_eq!(house.state().await["state"], "ended");
        house.authorize(ANN, None).await;
        let_in(&mut program, &house).await;
        assert_eq!(house.state().await["state"], "ready");
    }
}

#[tokio::test]
async fn trouble_at_the_token_endpoint_passes() {
    for protocol in Protocol::ALL {
        let house = House::open().await;
        house.pass(LIFE);
        let mut program = house.program(protocol, Security::Clear).await;
        let troubles = [TokenEndpoint::Status(500), TokenEndpoint::Status(429), TokenEndpoint::Html];
        // Three requests, if the trouble may be short; each failure stands longer than the one before.
        for ((count, stands), trouble) in [(3, 5), (4, 10), (5, 20)].into_iter().zip(troubles) {
            house.provider.change(|settings| settings.token_endpoint = trouble);
            refused(&mut program, &house, TRY_LATER).await;
            assert_eq!(house.provider.requests().len(), count);
            skip(Duration::from_secs(stands)).await;
        }
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
        let_in(&mut program, &house).await;
    }
}

#[tokio::test]
async fn a_token_endpoint_that_never_answers_is_not_waited_for_for_ever() {
    let house = House::open().await;
    house.pass(LIFE);
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Hang);
    let mut program = house.program(Protocol::Pop3, Security::Clear).await;
    program.client.ask(&format!("USER {ANN}")).await;
    program.client.say(&format!("PASS {}", house.password)).await;
    until("a request for a token", async || house.provider.requests().len() == 1).await;
    skip(Duration::from_secs(31)).await;
    program.client.expect(TRY_LATER[Protocol::Pop3 as usize]).await;

    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    // After a lost answer there is one more request, which hangs as well. Then the failure stands for some seconds.
    skip(Duration::from_secs(15)).await;
    skip(Duration::from_secs(6)).await;
    let_in(&mut program, &house).await;
}

#[tokio::test]
async fn a_token_endpoint_that_is_not_there_passes_as_well() {
    // Bound, so that no other process gets the port, but not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nowhere = format!("token_endpoint = \"http://{}/token\"\n", socket.local_addr().unwrap());
    let house = House::with(Security::Tls, |config| {
        let replaced =
            |line: &str| if line.starts_with("token_endpoint") { nowhere.clone() } else { format!("{line}\n") };
        config.lines().map(replaced).collect()
    })
    .await;
    for protocol in Protocol::ALL {
        house.logged_in(protocol).await;
    }
    house.pass(LIFE);
    for protocol in Protocol::ALL {
        refused(&mut house.program(protocol, Security::Clear).await, &house, TRY_LATER).await;
    }
}

#[tokio::test]
async fn a_mail_server_that_closes_passes() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        house.provider.change(|settings| settings.server_mut(protocol).close_at_connect = true);
        let mut program = house.program(protocol, Security::Clear).await;
        refused(&mut program, &house, TRY_LATER).await;
        house.provider.change(|settings| settings.server_mut(protocol).close_at_connect = false);
        let_in(&mut program, &house).await;
    }
    assert_eq!(house.provider.requests(), [""; 0], "a token is no cure for that");
}

#[tokio::test]
async fn a_provider_without_starttls_gets_nothing() {
    let house = House::with(Security::StartTls, |config| config).await;
    for protocol in Protocol::ALL {
        house.provider.change(|settings| settings.server_mut(protocol).starttls = false);
        let mut program = house.program(protocol, Security::Clear).await;
        refused(&mut program, &house, TRY_LATER).await;
        assert_eq!(house.provider.attempts(protocol), []);
    }
}

#[tokio::test]
async fn the_providers_limit_and_its_ban_are_reported_as_what_they_are() {
    let house = House::open().await;
    let limits = ["NO [LIMIT] Slow down.", "-ERR [IN-USE] Slow down.", "454 4.7.0 Too many logins"];
    let bans = ["NO [CONTACTADMIN] Off.", "-ERR [SYS/PERM] Off.", "535 5.7.139 SmtpClientAuthentication is disabled"];
    for protocol in Protocol::ALL {
        for (said, words) in [(limits, LIMIT), (bans, FORBIDDEN)] {
            let said = said[protocol as usize].to_owned();
            house.provider.change(|settings| settings.server_mut(protocol).refuse_login = Some(said));
            let mut program = house.program(protocol, Security::Clear).await;
            refused(&mut program, &house, words).await;
            house.provider.change(|settings| settings.server_mut(protocol).refuse_login = None);
            let_in(&mut program, &house).await;
        }
        assert_eq!(house.provider.attempts(protocol).len(), 4, "one for each login, and no second try");
    }
    assert_eq!(house.provider.requests(), [""; 0], "a token is no cure for that");
}

#[tokio::test]
async fn a_provider_without_our_mechanisms_is_a_matter_of_settings() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        house.provider.change(|settings| settings.server_mut(protocol).mechanisms.clear());
        refused(&mut house.program(protocol, Security::Clear).await, &house, FORBIDDEN).await;
    }
}

#[tokio::test]
async fn the_four_kinds_of_refusal_never_look_alike() {
    for protocol in Protocol::ALL {
        let house = House::open().await;
        let mut program = house.program(protocol, Security::Clear).await;
        let mut replies = vec![program.log_in(Way::Plain, ANN, "not the password").await];
        let limit = ["NO [LIMIT] Slow down.", "-ERR [IN-USE] Slow down.", "454 4.7.0 Too many logins"];
        let server = |refuse_login| {
            house.provider.change(|settings| settings.server_mut(protocol).refuse_login = refuse_login);
        };
        server(Some(limit[protocol as usize].to_owned()));
        replies.push(refused(&mut program, &house, LIMIT).await);
        server(None);
        house.pass(LIFE);
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Status(503));
        replies.push(refused(&mut program, &house, TRY_LATER).await);
        skip(Duration::from_secs(6)).await;
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::InvalidGrant);
        replies.push(refused(&mut program, &house, AUTHORIZATION_ENDED).await);
        replies.sort();
        replies.dedup();
        assert_eq!(replies.len(), 4, "{replies:?}");
    }
}
