//! One mailbox with several spellings of its name.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postkey::control::ControlRequest;
use postkey::protocol::{Protocol, Security};
use postkey::vault::password::Password;

use crate::support::house::{ANN, BEN, House, Way, accepted};

const RECORD: &str = "ann.b@googlemail.com";

fn text(password: &Password) -> String {
    String::from_utf8(password.expose()).unwrap()
}

async fn accounts(house: &House) -> Vec<String> {
    let status = house.status().await;
    status.accounts.into_iter().map(|account| account.address).collect()
}

#[tokio::test]
async fn every_spelling_of_a_mailbox_opens_it_and_the_provider_hears_the_records() {
    let house = House::open().await;
    let password = Password::generate();
    house.authorize(RECORD, Some(("main", &password))).await;
    let spellings = [
        "annb@gmail.com",
        "Ann.B+scanner@GMail.com",
        " ann.b@googlemail.com",
        "Ann <annb@gmail.com>",
        "\u{feff}annb@gmail.com",
        "annb@gmail.com.",
    ];
    for protocol in Protocol::ALL {
        for name in spellings {
            let mut program = house.program(protocol, Security::Clear).await;
            let reply = program.log_in(Way::Login, name, &text(&password)).await;
            assert!(accepted(protocol, &reply), "{protocol} {name}: {reply}");
        }
        let mut program = house.program(protocol, Security::Clear).await;
        let reply = program.log_in(Way::Login, "annc@gmail.com", &text(&password)).await;
        assert!(!accepted(protocol, &reply), "somebody else's name");
        let users: Vec<String> = house.provider.attempts(protocol).into_iter().map(|attempt| attempt.user).collect();
        assert_eq!(users, [RECORD; 7], "with the one of the authorization itself");
    }
}

#[tokio::test]
async fn an_international_domain_is_one_account_in_unicode_and_in_ascii() {
    let house = House::open().await;
    let password = Password::generate();
    house.authorize("zoë@bücher.example", Some(("main", &password))).await;
    for name in ["zoë@xn--bcher-kva.example", "ZOE\u{308}@BÜCHER.example", "zoë@bu\u{308}cher.example"] {
        let mut program = house.program(Protocol::Imap, Security::Clear).await;
        let reply = program.log_in(Way::Login, name, &text(&password)).await;
        assert!(accepted(Protocol::Imap, &reply), "{name}: {reply}");
    }
}

#[tokio::test]
async fn an_account_that_is_authorized_under_another_spelling_stays_one() {
    let house = House::open().await;
    let password = Password::generate();
    house.authorize(RECORD, Some(("main", &password))).await;
    house.authorize("annb@gmail.com", None).await;
    assert_eq!(accounts(&house).await, [RECORD, ANN]);
    let request = ControlRequest::Forget { address: "ANNB@gmail.com".into(), password: None };
    house.command(&request).await;
    assert_eq!(accounts(&house).await, [ANN]);
}

#[tokio::test]
async fn two_records_of_one_mailbox_are_each_opened_by_their_own_spelling() {
    let mut house = House::open().await;
    let [first, second] = [Password::generate(), Password::generate()];
    house.authorize(RECORD, Some(("main", &first))).await;
    let record = house.command(&ControlRequest::Export { address: RECORD.into() }).await.as_str().unwrap().to_owned();
    house.command(&ControlRequest::Forget { address: RECORD.into(), password: None }).await;
    house.authorize("annb@gmail.com", Some(("main", &second))).await;
    let restore = ControlRequest::Restore { address: RECORD.into(), record, force: true };
    house.command(&restore).await;
    house.authorize(RECORD, None).await;
    for _ in 0..2 {
        for (name, password) in [(RECORD, &first), ("annb@gmail.com", &second)] {
            let mut program = house.program(Protocol::Imap, Security::Clear).await;
            let reply = program.log_in(Way::Own, name, &text(password)).await;
            assert!(accepted(Protocol::Imap, &reply), "{name}: {reply}");
        }
        house.restart().await;
    }
}

#[tokio::test]
async fn an_authorization_identity_may_be_any_name_of_the_same_account() {
    let entry = format!("\n[account.\"{ANN}\"]\naliases = [\"scanner\"]\n");
    let house = House::with(Security::Tls, |config| config + &entry).await;
    for protocol in Protocol::ALL {
        let mut answers = Vec::new();
        for acts_as in ["", ANN, "Ann@Example.TEST", "scanner", BEN, "nobody"] {
            let mut program = house.program(protocol, Security::Clear).await;
            let message = BASE64_STANDARD.encode(format!("{acts_as}\0{ANN}\0{}", house.password));
            let auth = ["a AUTHENTICATE", "AUTH", "AUTH"][protocol as usize];
            let reply = program.client.ask(&format!("{auth} PLAIN {message}")).await;
            answers.push(accepted(protocol, &reply));
            let code = ["AUTHORIZATIONFAILED", "-ERR [AUTH]", "535 5.7.8"][protocol as usize];
            assert!(accepted(protocol, &reply) || reply.contains(code), "{reply}");
        }
        assert_eq!(answers, [true, true, true, true, false, false], "{protocol}");
    }
}
