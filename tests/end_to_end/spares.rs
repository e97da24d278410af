//! Spare connections: while logins keep coming, the next one finds the provider's server ready.

use postkey::protocol::{Protocol, Security};

use crate::support::house::{ANN, BEN, House, Program, Way, accepted, until, without_spares};

/// A house in which two logins have come close together, so that a spare connection is made.
async fn house_with_spare(upstream: Security, protocol: Protocol) -> House {
    let house = House::with(upstream, |config| config).await;
    for _ in 0..2 {
        house.logged_in(protocol).await;
    }
    until("the spare connection", async || house.provider.connections(protocol) == 3).await;
    house
}

#[tokio::test]
async fn the_next_login_takes_the_connection_that_is_ready() {
    for upstream in [Security::Tls, Security::StartTls] {
        for protocol in Protocol::ALL {
            let house = house_with_spare(upstream, protocol).await;
            house.provider.change(|settings| settings.server_mut(protocol).close_at_connect = true);
            // As long as the spare one is not ready, a login makes its own connection, which is closed now.
            until("a login on the spare connection", async || {
                let mut program = house.program(protocol, Security::Clear).await;
                let is_accepted = accepted(protocol, &program.log_in(Way::Plain, ANN, &house.password).await);
                if is_accepted {
                    program.prove().await;
                }
                is_accepted
            })
            .await;
            assert!(!accepted(protocol, &house.try_login(protocol).await), "there is one spare connection, not two");
        }
    }
}

#[tokio::test]
async fn any_account_takes_it() {
    let house = House::open().await;
    let password = postkey::vault::password::Password::generate();
    house.authorize(BEN, Some(("main", &password))).await;
    let before = house.provider.connections(Protocol::Imap);
    for _ in 0..2 {
        house.logged_in(Protocol::Imap).await;
    }
    until("the spare connection", async || house.provider.connections(Protocol::Imap) == before + 3).await;
    house.provider.change(|settings| settings.imap.close_at_connect = true);
    let password = String::from_utf8(password.expose()).unwrap();
    until("a login of another account on the spare connection", async || {
        let mut program = house.program(Protocol::Imap, Security::Clear).await;
        accepted(Protocol::Imap, &program.log_in(Way::Plain, BEN, &password).await)
    })
    .await;
    assert_eq!(house.provider.attempts(Protocol::Imap).last().map(|attempt| attempt.user.as_str()), Some(BEN));
}

#[tokio::test]
async fn a_spare_connection_that_has_died_costs_no_error() {
    for protocol in Protocol::ALL {
        let house = house_with_spare(Security::Tls, protocol).await;
        for round in 0..10 {
            let connections = house.provider.connections(protocol);
            house.provider.hang_up();
            house.logged_in(protocol).await.prove().await;
            until("the next spare connection", async || house.provider.connections(protocol) > connections + 1).await;
            assert!(house.provider.attempts(protocol).len() >= round + 3);
        }
        assert!(house.provider.attempts(protocol).iter().all(|attempt| attempt.accepted));
    }
}

#[tokio::test]
async fn an_smtp_client_with_another_name_gets_its_own_connection() {
    let house = house_with_spare(Security::Tls, Protocol::Smtp).await;
    house.provider.change(|settings| settings.smtp.close_at_connect = true);
    let mut client = house.greeted(Protocol::Smtp, Security::Clear).await;
    client.say("EHLO other.example.test").await;
    while client.line().await.starts_with("250-") {}
    let mut program = Program { client, protocol: Protocol::Smtp };
    let reply = program.log_in(Way::Plain, ANN, &house.password).await;
    assert!(reply.starts_with("454"), "{reply}");
}

#[tokio::test]
async fn without_spare_connections_each_login_makes_its_own() {
    let house = House::with(Security::Tls, |config| without_spares(&config)).await;
    for count in 1..=4 {
        house.logged_in(Protocol::Imap).await;
        assert_eq!(house.provider.connections(Protocol::Imap), count);
    }
}

#[tokio::test]
async fn logins_that_keep_coming_make_one_connection_more_than_they_need() {
    let house = House::open().await;
    let mut logins = 0;
    // A queue of mails, a mail program that starts, and a machine that wakes up; and one that shows whether there were more.
    for at_once in [[1; 20].as_slice(), &[5], &[8], &[1]].concat() {
        let programs = (0..at_once).map(|_| house.logged_in(Protocol::Smtp));
        futures_util::future::join_all(programs).await;
        logins += at_once;
    }
    until("the last spare connection", async || house.provider.connections(Protocol::Smtp) == logins + 1).await;
}
