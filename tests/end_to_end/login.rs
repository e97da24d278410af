//! Every way to log in: each protocol, each kind of TLS on both sides, each mechanism on both sides.

use postkey::protocol::{Mechanism, Protocol, Security};

use crate::support::house::{ANN, BEN, House, SECURITIES, Way, accepted, until};

#[tokio::test]
async fn every_way_to_log_in_works_on_every_listener() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        for security in SECURITIES {
            for way in Way::ALL {
                let mut program = house.program(protocol, security).await;
                let reply = program.log_in(way, ANN, &house.password).await;
                assert!(accepted(protocol, &reply), "{protocol} {security:?} {way:?}: {reply}");
                program.prove().await;
            }
        }
        let attempts = house.provider.attempts(protocol);
        assert_eq!(attempts.len(), SECURITIES.len() * Way::ALL.len());
        assert!(attempts.iter().all(|attempt| attempt.accepted));
    }
}

#[tokio::test]
async fn a_provider_with_starttls_is_reached_as_well() {
    let house = House::with(Security::StartTls, |config| config).await;
    for protocol in Protocol::ALL {
        house.logged_in(protocol).await.prove().await;
    }
}

#[tokio::test]
async fn the_provider_decides_about_the_mechanism() {
    for (mechanism, sasl_ir) in [Mechanism::OAuthBearer, Mechanism::XOAuth2].into_iter().zip([true, false]) {
        let house = House::open().await;
        for protocol in Protocol::ALL {
            house.provider.change(|settings| {
                let server = settings.server_mut(protocol);
                (server.mechanisms, server.sasl_ir) = (vec![mechanism], sasl_ir);
            });
            // The second time, postkey knows what is offered.
            for _ in 0..2 {
                house.logged_in(protocol).await.prove().await;
            }
            let used: Vec<_> = house.provider.attempts(protocol).iter().map(|attempt| attempt.mechanism).collect();
            assert_eq!(used, [mechanism; 2]);
        }
        assert_eq!(house.provider.requests(), [""; 0]);
    }
}

/// postkey does not ask at each login what a server offers. If the server accepts another mechanism now, no login
/// fails.
#[tokio::test]
async fn a_provider_may_change_its_mechanisms() {
    let house = House::open().await;
    for mechanism in [Mechanism::OAuthBearer, Mechanism::XOAuth2] {
        for protocol in [Protocol::Pop3, Protocol::Smtp] {
            house.provider.change(|settings| settings.server_mut(protocol).mechanisms = vec![mechanism]);
            house.logged_in(protocol).await.prove().await;
        }
    }
    assert_eq!(house.provider.token_requests("refresh_token"), 0, "the token was not to blame");
}

#[tokio::test]
async fn a_provider_that_offers_something_else_than_before_costs_one_login_at_most() {
    let house = House::open().await;
    house.logged_in(Protocol::Imap).await;
    house.provider.change(|settings| settings.imap.sasl_ir = false);
    house.try_login(Protocol::Imap).await;
    house.logged_in(Protocol::Imap).await.prove().await;
}

#[tokio::test]
async fn the_login_name_is_the_same_in_any_case() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        for name in ["ann@EXAMPLE.Test", "ANN@example.test"] {
            let mut program = house.program(protocol, Security::Clear).await;
            let reply = program.log_in(Way::Own, name, &house.password).await;
            assert!(accepted(protocol, &reply), "{protocol} {name}: {reply}");
            program.prove().await;
        }
    }
}

#[tokio::test]
async fn a_message_arrives_byte_for_byte() {
    let house = House::open().await;
    let message =
        b"Subject: dots\r\n\tfolded\r\n\r\n.\r\n..two\r\nlone\n.\nLF \x01\xff\xc3\xa9\r\na LOGOUT\r\n.end\r\n";
    house.logged_in(Protocol::Smtp).await.send_mail(ANN, message).await;
    assert_eq!(house.provider.mailbox(ANN), [message]);
    assert_eq!(house.logged_in(Protocol::Imap).await.first_message(message.len()).await, message);
    assert_eq!(
        house.logged_in(Protocol::Pop3).await.first_message(message.len()).await,
        crate::support::house::stuffed(message)
    );
}

#[tokio::test]
async fn a_token_too_long_for_a_command_line_is_sent_on_a_line_of_its_own() {
    let house = House::open().await;
    house.provider.change(|settings| settings.token_length = 4096);
    house.authorize(ANN, None).await;
    for protocol in Protocol::ALL {
        house.logged_in(protocol).await.prove().await;
    }
}

#[tokio::test]
async fn a_listener_may_be_for_one_provider_or_one_account_alone() {
    let pinned = |pin: &'static str| {
        House::with(Security::Tls, move |config| {
            format!("{config}[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:0\"\n{pin}\n")
        })
    };
    for pin in ["account = \"ann@example.test\"", "provider = \"own\""] {
        pinned(pin).await.logged_in(Protocol::Imap).await.prove().await;
    }
    for pin in ["account = \"ben@example.test\"", "provider = \"google\""] {
        let house = pinned(pin).await;
        let reply = house.try_login(Protocol::Imap).await;
        assert!(reply.starts_with("a NO [CONTACTADMIN]"), "{pin}: {reply}");
        assert_eq!(house.provider.connections(Protocol::Imap), 0);
        house.logged_in(Protocol::Pop3).await.prove().await;
    }
}

#[tokio::test]
async fn the_greeting_offers_what_the_provider_was_seen_to_offer() {
    let house = House::open().await;
    let mut before = house.program(Protocol::Imap, Security::Clear).await;
    assert!(!before.client.run("a CAPABILITY").await.contains("IDLE"));
    house.logged_in(Protocol::Imap).await;
    until("a promise of IDLE", async || {
        let mut after = house.program(Protocol::Imap, Security::Clear).await;
        let offered = after.client.run("a CAPABILITY").await;
        assert!(offered.contains(" AUTH=PLAIN") && !offered.contains("OAUTH") && !offered.contains("LOGINDISABLED"));
        offered.contains(" IDLE")
    })
    .await;
}

#[tokio::test]
async fn accounts_do_not_mix() {
    let house = House::open().await;
    let bens = postkey::vault::password::Password::generate();
    house.authorize(BEN, Some(("main", &bens))).await;
    house.provider.deliver(BEN, b"for ben\r\n");
    let bens = String::from_utf8(bens.expose()).unwrap();
    let mut program = house.program(Protocol::Pop3, Security::Clear).await;
    assert!(program.log_in(Way::Own, ANN, &bens).await.starts_with("-ERR [AUTH]"));
    assert!(program.log_in(Way::Own, BEN, &house.password).await.starts_with("-ERR [AUTH]"));
    assert!(accepted(Protocol::Pop3, &program.log_in(Way::Own, BEN, &bens).await));
    assert!(program.client.ask("STAT").await.starts_with("+OK 1 "));
}
