//! A whole domain: an unseen address is authorized by a person at its first login, and by nobody else.

use std::sync::Arc;
use std::time::Duration;

use postkey::broker::Broker;
use postkey::clock::Clock;
use postkey::control::Request;
use postkey::protocol::{Protocol, Security};
use postkey::vault::Vault;
use postkey::vault::password::Password;
use postkey::wire::Credentials;
use url::Url;

use crate::support::house::{ANN, BEN, House, OFFICE, Way, accepted, skip};
use crate::support::{Options, TokenEndpoint};

const PASSWORD: &str = "correct horse battery";
const AWAITED: [&str; 3] = ["a NO [UNAVAILABLE] ", "-ERR [SYS/TEMP] ", "454 4.7.0 "];
const WRONG_PASSWORD: [&str; 3] = ["a NO [AUTHENTICATIONFAILED] ", "-ERR [AUTH] ", "535 5.7.8 "];

/// A house where every address of the provider's domain can be authorized at its first login, with one account, Ann's.
async fn office(more: &str) -> House {
    let entry = format!("\n[account.\"*@example.test\"]\n{more}\n");
    House::with(Security::Tls, |config| config + &entry).await
}

async fn log_in(house: &House, protocol: Protocol, name: &str, password: &str) -> String {
    house.program(protocol, Security::Clear).await.log_in(Way::Plain, name, password).await
}

/// The page in a refusal of a first login.
fn page(protocol: Protocol, reply: &str) -> Url {
    assert!(reply.starts_with(AWAITED[protocol as usize]), "{reply}");
    let page = reply.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:"));
    Url::parse(page.unwrap_or_else(|| panic!("no page in {reply}"))).unwrap()
}

/// Types the password on the page: the status, and where it leads or what it says.
async fn type_password(house: &House, page: &Url, password: &str) -> (u16, String) {
    let request = house.provider.http_client().post(page.clone()).form(&[("password", password)]);
    answer(request.send().await.expect("an answer")).await
}

async fn visit(house: &House, url: Url) -> (u16, String) {
    answer(house.provider.http_client().get(url).send().await.expect("an answer")).await
}

async fn answer(response: reqwest::Response) -> (u16, String) {
    let location = response.headers().get("location").map(|place| place.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    match location {
        Some(place) => (status, place),
        None => (status, response.text().await.unwrap()),
    }
}

/// A person who knows the password consents as this address; where they end.
async fn consent(house: &House, page: &Url, address: &str) -> String {
    let (status, url) = type_password(house, page, PASSWORD).await;
    assert_eq!(status, 303, "{url}");
    let back = house.provider.person().consent(&url, address).await;
    let (status, place) = visit(house, back).await;
    assert_eq!(status, 303, "{place}");
    assert!(!place.contains("code"), "no code in the browser's history");
    place
}

async fn addresses(house: &House) -> Vec<String> {
    let status = house.command(&Request::Status).await.status().unwrap_or_else(|failed| panic!("{}", failed.message));
    status.accounts.into_iter().map(|account| account.address).collect()
}

#[tokio::test]
async fn a_first_login_becomes_an_account_by_its_owners_consent() {
    for protocol in Protocol::ALL {
        let mut house = office("").await;
        let mut program = house.program(protocol, Security::Clear).await;
        let first = program.log_in(Way::Plain, BEN, PASSWORD).await;
        let page = page(protocol, &first);
        assert_eq!((house.provider.connections(protocol), house.provider.requests().len()), (0, 0));
        assert!(visit(&house, page.clone()).await.1.contains(BEN));
        assert_eq!(house.provider.requests().len(), 0, "nothing is asked before a person does");
        assert_eq!(consent(&house, &page, BEN).await, "/?authorized");
        assert!(visit(&house, page.join("/?authorized").unwrap()).await.1.contains("Done"));

        let reply = program.log_in(Way::Plain, BEN, PASSWORD).await;
        assert!(accepted(protocol, &reply), "on the same connection: {reply}");
        program.prove().await;
        assert!(log_in(&house, protocol, BEN, "another password").await.starts_with(WRONG_PASSWORD[protocol as usize]));
        assert!(accepted(protocol, &log_in(&house, protocol, ANN, &house.password).await));
        assert_eq!(house.provider.requests(), ["authorization_code"]);
        house.restart().await;
        assert!(accepted(protocol, &log_in(&house, protocol, BEN, PASSWORD).await));
    }
}

#[tokio::test]
async fn another_password_changes_and_tells_nothing() {
    let house = office("").await;
    for protocol in Protocol::ALL {
        let first = log_in(&house, protocol, BEN, PASSWORD).await;
        let second = log_in(&house, protocol, BEN, "somebody else's").await;
        assert_eq!(first, second);
    }
    let page = page(Protocol::Pop3, &log_in(&house, Protocol::Pop3, BEN, "somebody else's").await);
    assert_eq!(type_password(&house, &page, "somebody else's").await.0, 403);
    consent(&house, &page, BEN).await;
    assert!(log_in(&house, Protocol::Pop3, BEN, "somebody else's").await.starts_with("-ERR [AUTH]"));
    assert!(log_in(&house, Protocol::Pop3, BEN, PASSWORD).await.starts_with("+OK"));
}

/// Somebody logs in first under another's address, and waits for them to consent.
#[tokio::test]
async fn who_does_not_know_the_password_is_not_led_to_the_provider() {
    let house = office("").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, "a stranger's password").await);
    for status in [403, 403, 403, 403, 404, 404] {
        assert_eq!(type_password(&house, &page, PASSWORD).await.0, status);
    }
    assert_eq!(type_password(&house, &page, "a stranger's password").await.0, 404, "it is not awaited any more");
    let own = self::page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    assert_ne!(own, page);
    assert_eq!(consent(&house, &own, BEN).await, "/?authorized");
    assert!(
        log_in(&house, Protocol::Imap, BEN, "a stranger's password").await.starts_with("a NO [AUTHENTICATIONFAILED]")
    );
}

#[tokio::test]
async fn the_wrong_person_a_no_and_an_outage_change_nothing_and_the_page_stays() {
    let house = office("").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    assert_eq!(consent(&house, &page, OFFICE).await, "/?somebody-else");

    let (_, url) = type_password(&house, &page, PASSWORD).await;
    assert_eq!(visit(&house, house.provider.person().deny(&url).await).await.1, "/?failed");

    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Status(500));
    assert_eq!(consent(&house, &page, BEN).await, "/?failed");
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);

    assert_eq!(addresses(&house).await, [ANN]);
    assert_eq!(consent(&house, &page, BEN).await, "/?authorized");
}

#[tokio::test]
async fn a_provider_that_does_not_tell_who_signed_in_is_not_believed() {
    let house = office("scope = [\"mail\"]").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    assert_eq!(consent(&house, &page, BEN).await, "/?somebody-else");
    assert_eq!(addresses(&house).await, [ANN]);
}

#[tokio::test]
async fn strangers_on_the_port_change_nothing() {
    let house = office("").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let (_, url) = type_password(&house, &page, PASSWORD).await;
    let back = house.provider.person().consent(&url, BEN).await;
    let code = back.query_pairs().find(|(key, _)| key == "code").unwrap().1.into_owned();
    for query in ["", "code=stolen&state=another", "error=access_denied&state=another", &format!("code={code}")] {
        let mut forged = page.clone();
        forged.set_query(Some(query));
        assert_eq!(visit(&house, forged).await.0, 400, "{query}");
    }
    let mut elsewhere = page.clone();
    elsewhere.set_query(Some("authorize=00000000000000000000000000000000"));
    assert_eq!(visit(&house, elsewhere.clone()).await.0, 404);
    assert_eq!(type_password(&house, &elsewhere, PASSWORD).await.0, 404);
    let rebound = house.provider.http_client().get(page.clone()).header("host", "evil.test").send().await.unwrap();
    assert_eq!(rebound.status(), 404);
    assert_eq!(house.provider.requests(), [""; 0]);
    assert_eq!(visit(&house, back.clone()).await.1, "/?authorized");
    assert_eq!(visit(&house, back).await.0, 400, "a code is taken once");
}

#[tokio::test]
async fn an_account_is_never_touched() {
    let house = office("").await;
    let before = house.state().await;
    for protocol in Protocol::ALL {
        let wrong = log_in(&house, protocol, ANN, PASSWORD).await;
        assert!(wrong.starts_with(WRONG_PASSWORD[protocol as usize]), "{wrong}");
    }
    assert_eq!(house.state().await, before);
    // One that is authorized by a command while its first login is awaited keeps that command's password.
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let bens = Password::generate();
    house.authorize(BEN, Some(("main", &bens))).await;
    assert_eq!(consent(&house, &page, BEN).await, "/?failed");
    assert!(log_in(&house, Protocol::Imap, BEN, PASSWORD).await.starts_with("a NO [AUTHENTICATIONFAILED]"));
    let bens = String::from_utf8(bens.expose()).unwrap();
    assert!(log_in(&house, Protocol::Imap, BEN, &bens).await.starts_with("a OK"));
}

#[tokio::test]
async fn outside_of_the_domain_unknown_addresses_and_wrong_passwords_are_alike() {
    let house = office("").await;
    for protocol in Protocol::ALL {
        let wrong = log_in(&house, protocol, ANN, PASSWORD).await;
        for name in ["ben@elsewhere.test", "ben@sub.example.test", "ben", "@example.test", "b n@example.test"] {
            assert_eq!(log_in(&house, protocol, name, PASSWORD).await, wrong, "{name}");
        }
    }
}

#[tokio::test]
async fn nobody_who_comes_too_late_is_let_in() {
    let house = office("").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let (_, url) = type_password(&house, &page, PASSWORD).await;
    let back = house.provider.person().consent(&url, BEN).await;
    skip(Duration::from_secs(15 * 60)).await;
    assert_eq!(visit(&house, page.clone()).await.0, 404);
    assert_eq!(type_password(&house, &page, PASSWORD).await.0, 404);
    assert_eq!(visit(&house, back).await.0, 400);
    assert_eq!(addresses(&house).await, [ANN]);
    let anew = self::page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    assert_eq!(consent(&house, &anew, BEN).await, "/?authorized");
}

#[tokio::test]
async fn a_password_that_could_be_guessed_does_not_become_an_app_password() {
    let house = office("").await;
    for (protocol, password) in [(Protocol::Imap, "short"), (Protocol::Smtp, "00000-00000-00000-00000-000000")] {
        let reply = log_in(&house, protocol, BEN, password).await;
        assert!(reply.starts_with(WRONG_PASSWORD[protocol as usize]) && reply.contains("Choose"), "{reply}");
    }
}

#[tokio::test]
async fn a_flood_of_unseen_addresses_is_bounded_and_passes() {
    let house = office("").await;
    let mut program = house.program(Protocol::Pop3, Security::Clear).await;
    let mut awaited = 0;
    for number in 0..40 {
        if number % 5 == 0 {
            program = house.program(Protocol::Pop3, Security::Clear).await;
        }
        let reply = program.log_in(Way::Plain, &format!("u{number}@example.test"), PASSWORD).await;
        assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
        awaited += usize::from(reply.contains("http://"));
    }
    assert_eq!(awaited, 30, "in one minute");
    assert_eq!((house.provider.connections(Protocol::Pop3), house.provider.requests().len()), (0, 0));
    assert!(accepted(Protocol::Pop3, &house.try_login(Protocol::Pop3).await));
    skip(Duration::from_secs(61)).await;
    page(Protocol::Pop3, &log_in(&house, Protocol::Pop3, BEN, PASSWORD).await);
}

#[tokio::test]
async fn members_go_by_their_domains_entry_unless_they_have_their_own() {
    let entry = format!(
        "user = \"{OFFICE}\"\nscope = [\"mail\", \"email\", \"openid\"]\n[account.\"{BEN}\"]\nuser = \"*@x\"\n"
    );
    let house = office(&entry).await;
    house.provider.change(|settings| settings.shared = vec![(OFFICE.to_owned(), ANN.to_owned())]);
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let (_, url) = type_password(&house, &page, PASSWORD).await;
    let asked: Vec<_> = Url::parse(&url).unwrap().query_pairs().into_owned().collect();
    assert!(asked.contains(&("scope".to_owned(), "mail email openid".to_owned())), "{url}");
    assert!(asked.contains(&("login_hint".to_owned(), BEN.to_owned())), "{url}");
    consent(&house, &page, BEN).await;
    log_in(&house, Protocol::Imap, BEN, PASSWORD).await;
    let users: Vec<_> = house.provider.attempts(Protocol::Imap).into_iter().map(|attempt| attempt.user).collect();
    assert_eq!((users[0].as_str(), users[1].as_str()), (OFFICE, "*@x"));
}

#[tokio::test]
async fn a_listener_for_others_begins_nothing() {
    let pin = "[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:0\"\naccount = \"ann@example.test\"\n";
    let house = office(pin).await;
    let reply = log_in(&house, Protocol::Imap, BEN, PASSWORD).await;
    assert!(reply.starts_with("a NO [AUTHENTICATIONFAILED]"), "{reply}");
}

/// Whether a login, with an entry for the domain like this one, would begin something.
async fn begins(more: &str, is_local: bool) -> bool {
    let entry = format!("\n[account.\"*@example.test\"]\n{more}\n");
    let house = House::empty(Security::Tls, Options::default(), |config| config + &entry).await;
    let vault = Vault::open(&house.config.state_dir).unwrap();
    let broker = Broker::new(Arc::new(house.config.clone()), vault, Clock::System);
    broker.set_redirect_uris([("own".to_owned(), Url::parse("http://127.0.0.1:1/").unwrap())].into());
    let credentials = Credentials::parse(BEN.as_bytes(), PASSWORD.as_bytes()).unwrap();
    broker.first_login(&credentials, is_local).is_err()
}

#[tokio::test]
async fn mail_programs_on_other_machines_begin_nothing_unless_the_configuration_says_so() {
    assert!(begins("", true).await && begins("allow_remote = true", true).await);
    assert!(!begins("", false).await && begins("allow_remote = true", false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_person_is_told_of_a_first_login_and_of_its_end() {
    let folder = tempfile::TempDir::new().unwrap();
    let script = folder.path().join("tell");
    let heard = folder.path().join("heard");
    std::fs::write(&script, format!("#!/bin/sh\necho \"$POSTKEY_EVENT $POSTKEY_ACCOUNT $POSTKEY_URL\" >> {heard:?}\n"))
        .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let entry = "\n[account.\"*@example.test\"]\n";
    let command = format!("notify_command = [{script:?}]\n");
    let mut house = House::empty(Security::Tls, Options::default(), |config| command + &config + entry).await;
    house.start().await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    log_in(&house, Protocol::Imap, BEN, PASSWORD).await;
    consent(&house, &page, BEN).await;
    let expected = format!("person-needed {BEN} {page}\nsettled {BEN} \n");
    crate::support::house::until("both notices", async || {
        std::fs::read_to_string(&heard).is_ok_and(|text| text == expected)
    })
    .await;
}
