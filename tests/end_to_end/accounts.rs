//! Accounts that are not simply one person's mailbox: shared ones, further login names, separate scopes and users.

use std::sync::Arc;
use std::time::Duration;

use postkey::control::ControlRequest;
use postkey::protocol::{Protocol, Security};
use postkey::secret::Secret;
use postkey::vault::Limits;
use postkey::vault::password::Password;
use tokio::task::JoinSet;

use crate::support::TokenEndpoint;
use crate::support::house::{ANN, BEN, House, LIFE, OFFICE, Way, accepted, skip, until, until_skipping};

/// A house where Ann may read the office's mail.
async fn sharing(more: &str) -> House {
    let entry = format!("\n[account.\"{OFFICE}\"]\ndelegate = \"{ANN}\"\n{more}");
    let house = House::with(Security::Tls, |config| format!("metrics_accounts = true\n{config}{entry}")).await;
    house.provider.change(|settings| settings.shared = vec![(OFFICE.to_owned(), ANN.to_owned())]);
    house
}

/// The answer to a login to an account with Ann's app password.
async fn try_login(house: &House, protocol: Protocol, name: &str) -> String {
    house.program(protocol, Security::Clear).await.log_in(Way::Plain, name, &house.password).await
}

async fn log_in(house: &House, protocol: Protocol, name: &str) {
    let mut program = house.program(protocol, Security::Clear).await;
    let reply = program.log_in(Way::Plain, name, &house.password).await;
    assert!(accepted(protocol, &reply), "{protocol} {name}: {reply}");
    program.prove().await;
}

fn users(house: &House, protocol: Protocol) -> Vec<String> {
    house.provider.attempts(protocol).into_iter().map(|attempt| attempt.user).collect()
}

#[tokio::test]
async fn a_delegate_opens_the_shared_mailbox_and_their_own() {
    let house = sharing("").await;
    house.provider.deliver(OFFICE, b"for the office\r\n");
    for protocol in Protocol::ALL {
        for name in [OFFICE, ANN, "Office@Example.TEST"] {
            log_in(&house, protocol, name).await;
        }
        let office = if protocol == Protocol::Smtp { ANN } else { OFFICE };
        assert_eq!(users(&house, protocol), [office, ANN, office]);
    }
    let mut program = house.program(Protocol::Pop3, Security::Clear).await;
    program.log_in(Way::Plain, OFFICE, &house.password).await;
    assert!(program.client.ask("STAT").await.starts_with("+OK 1 "));
}

#[tokio::test]
async fn only_the_delegates_app_passwords_open_a_shared_mailbox() {
    let house = sharing("").await;
    let bens = Password::generate();
    house.authorize(BEN, Some(("main", &bens))).await;
    let bens = String::from_utf8(bens.expose()).unwrap();
    for protocol in Protocol::ALL {
        let before = house.provider.connections(protocol);
        let mut program = house.program(protocol, Security::Clear).await;
        let wrong = program.log_in(Way::Plain, OFFICE, "not the password").await;
        let another = program.log_in(Way::Plain, OFFICE, &bens).await;
        let unknown = program.log_in(Way::Plain, "nobody@example.test", &house.password).await;
        assert_eq!([&wrong, &wrong], [&another, &unknown], "all of them look the same from outside");
        assert!(!accepted(protocol, &wrong));
        assert_eq!(house.provider.connections(protocol), before);
    }
}

#[tokio::test]
async fn a_delegates_withdrawn_app_password_opens_nothing_any_more() {
    let house = sharing("").await;
    log_in(&house, Protocol::Imap, OFFICE).await;
    let new = Password::generate();
    let old = Secret::new(house.password.clone().into_bytes());
    let (address, name) = (ANN.to_owned(), "new".to_owned());
    let limits = Limits::default();
    house.command(&ControlRequest::AddSlot { address: address.clone(), password: old, name, new, limits }).await;
    house.command(&ControlRequest::RemoveSlot { address, name: "main".to_owned() }).await;
    for name in [OFFICE, ANN] {
        assert!(try_login(&house, Protocol::Imap, name).await.starts_with("a NO [AUTHENTICATIONFAILED]"));
    }
}

#[tokio::test]
async fn a_delegates_mailboxes_share_one_refresh() {
    let house = Arc::new(sharing("").await);
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Delay(Duration::from_millis(200)));
    house.pass(LIFE);
    let mut logins = JoinSet::new();
    for number in 0..24 {
        let (house, protocol) = (Arc::clone(&house), Protocol::ALL[number % 3]);
        let name = [OFFICE, ANN][number / 3 % 2];
        logins.spawn(async move { log_in(&house, protocol, name).await });
    }
    while let Some(result) = logins.join_next().await {
        result.unwrap();
    }
    assert_eq!(house.provider.requests(), ["refresh_token"]);
}

/// Both mailboxes have sessions, and the delegate's tokens are kept fresh once for both.
#[tokio::test]
async fn what_is_refreshed_ahead_is_refreshed_once_for_all_mailboxes() {
    let house = sharing("").await;
    let mut sessions = Vec::new();
    for name in [OFFICE, OFFICE, ANN] {
        let mut program = house.program(Protocol::Imap, Security::Clear).await;
        assert!(accepted(Protocol::Imap, &program.log_in(Way::Plain, name, &house.password).await));
        sessions.push(program);
        assert_eq!(house.state().await["open"], true, "whoever of them came first");
    }
    house.pass(LIFE * 3 / 4);
    let tick = Duration::from_secs(21);
    until_skipping("a refresh ahead", tick, async || !house.provider.requests().is_empty()).await;
    until("the keeping of the token", async || house.state().await["token_refreshed"] == house.now().0).await;
    for _ in 0..3 {
        skip(tick).await;
        log_in(&house, Protocol::Pop3, OFFICE).await;
    }
    assert_eq!(house.provider.requests(), ["refresh_token"]);
}

#[tokio::test]
async fn the_end_of_a_delegates_authorization_names_the_delegate() {
    let house = sharing("").await;
    house.provider.end_grant(ANN);
    house.pass(LIFE);
    for protocol in Protocol::ALL {
        let reply = try_login(&house, protocol, OFFICE).await;
        assert!(reply.contains(&format!("postkey authorize {ANN}")), "{reply}");
    }
    assert_eq!(house.provider.requests(), ["refresh_token"]);
    house.authorize(ANN, None).await;
    log_in(&house, Protocol::Imap, OFFICE).await;
}

#[tokio::test]
async fn a_user_can_be_named_for_all_protocols_or_for_each() {
    let house = sharing(&format!("user = {{ smtp = \"{OFFICE}\", pop3 = \"{BEN}\" }}\n")).await;
    for protocol in Protocol::ALL {
        try_login(&house, protocol, OFFICE).await;
        assert_eq!(users(&house, protocol)[0], [OFFICE, BEN, OFFICE][protocol as usize]);
    }
    let entry = format!("\n[account.\"{ANN}\"]\nuser = \"{BEN}\"\n");
    let house = House::with(Security::Tls, |config| config + &entry).await;
    for protocol in Protocol::ALL {
        house.try_login(protocol).await;
        assert_eq!(users(&house, protocol)[0], BEN);
    }
}

#[tokio::test]
async fn a_mailbox_that_the_delegate_may_not_open_is_the_providers_no() {
    let house = sharing("").await;
    house.provider.change(|settings| settings.shared.clear());
    assert!(try_login(&house, Protocol::Imap, OFFICE).await.starts_with("a NO [AUTHENTICATIONFAILED]"));
    log_in(&house, Protocol::Imap, ANN).await;
}

#[tokio::test]
async fn status_metrics_and_test_name_both() {
    let house = sharing(&format!("\n[account.\"{ANN}\"]\naliases = [\"a\"]\n")).await;
    let state = house.state().await;
    assert_eq!((&state["mailboxes"][0], &state["aliases"][0]), (&OFFICE.into(), &"a".into()));
    let shown = house.run_beside(&["status"], "").await.out;
    assert!(
        shown.contains(&format!("shared mailboxes: {OFFICE}")) && shown.contains("further login names: a"),
        "{shown}"
    );
    let metrics = house.run_beside(&["metrics"], "").await.out;
    let line = format!("postkey_account_ended{{account=\"{OFFICE}\",delegate=\"{ANN}\"}} 0");
    assert!(metrics.contains(&line), "{metrics}");
    let tested = house.run_beside(&["test", OFFICE], &house.password).await;
    assert!(tested.out.contains(&format!("{OFFICE} uses the authorization of {ANN}")), "{}", tested.out);
    assert!(
        tested.out.matches("  ok").count() == 3 && tested.out.contains(&format!(" as {ANN}  ok")),
        "{}",
        tested.out
    );
}

#[tokio::test]
async fn a_shared_mailbox_is_not_authorized_itself() {
    let house = sharing("").await;
    let ended = house.run_beside(&["authorize", OFFICE, "--no-browser"], "").await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    assert!(ended.err.contains(&format!("postkey authorize {ANN}")), "{}", ended.err);
}

#[tokio::test]
async fn an_account_can_have_further_login_names() {
    let entry = format!("\n[account.\"{ANN}\"]\naliases = [\"a\", \"Ann@Alias.test\"]\n");
    let house = House::with(Security::Tls, |config| config + &entry).await;
    for protocol in Protocol::ALL {
        for name in ["a", "A", "ann@alias.test", ANN] {
            log_in(&house, protocol, name).await;
        }
        assert_eq!(users(&house, protocol), [ANN; 4]);
        for name in ["b", "ben@alias.test"] {
            assert!(!accepted(protocol, &try_login(&house, protocol, name).await));
        }
    }
}

#[tokio::test]
async fn an_account_can_have_scopes_of_its_own() {
    let entry = format!("\n[account.\"{ANN}\"]\nscope = [\"mail\", \"more\"]\n");
    let named = |config: String| config.replacen("\nscope =", "\nrefresh_scope = true\nscope =", 1) + &entry;
    let house = House::with(Security::Tls, named).await;
    house.pass(LIFE);
    log_in(&house, Protocol::Imap, ANN).await;
    assert_eq!(house.provider.scopes(), ["mail more"]);
}
