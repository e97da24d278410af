//! A whole domain: a person, and nobody else, authorizes an unknown address at its first login.

use std::sync::Arc;
use std::time::Duration;

use postkey::broker::Broker;
use postkey::broker::guesses::PasswordAttempt;
use postkey::clock::Clock;
use postkey::net::peer::Peer;
use postkey::protocol::{Protocol, Security};
use postkey::vault::Vault;
use postkey::vault::password::Password;
use postkey::wire::Credentials;
use serde_json::json;
use url::Url;

use crate::support::house::{ANN, BEN, House, OFFICE, Way, accepted, skip};
use crate::support::{Options, TokenEndpoint};

pub const PASSWORD: &str = "correct horse battery";
const AWAITED: [&str; 3] = ["a NO [UNAVAILABLE] ", "-ERR [SYS/TEMP] ", "454 4.7.0 "];
const WRONG_PASSWORD: [&str; 3] = ["a NO [AUTHENTICATIONFAILED] ", "-ERR [AUTH] ", "535 5.7.8 "];

/// A house where every address of the provider's domain can be authorized at its first login. It has one account,
/// Ann's.
pub async fn office(more: &str) -> House {
    let entry = format!("\n[account.\"*@example.test\"]\n{more}\n");
    House::with(Security::Tls, |config| config + &entry).await
}

pub async fn log_in(house: &House, protocol: Protocol, name: &str, password: &str) -> String {
    house.program(protocol, Security::Clear).await.log_in(Way::Plain, name, password).await
}

/// The page in a refusal of a first login.
pub fn page(protocol: Protocol, reply: &str) -> Url {
    assert!(reply.starts_with(AWAITED[protocol as usize]), "{reply}");
    let page = reply.split_whitespace().find(|word| word.starts_with("http://127.0.0.1:"));
    Url::parse(page.unwrap_or_else(|| panic!("no page in {reply}"))).unwrap()
}

/// A page as a browser shows it: its text, where it leads, and the key in its form.
pub struct Page {
    pub status: u16,
    pub place: String,
    pub text: String,
}

impl Page {
    async fn of(response: reqwest::Response) -> Self {
        let place = response.headers().get("location").map(|place| place.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        Self { status, place: place.unwrap_or_default(), text: response.text().await.unwrap() }
    }

    /// The key that the form sends; empty if there is none.
    pub fn key(&self) -> &str {
        let hidden = self.text.split_once("name=\"key\" value=\"");
        hidden.and_then(|(_, rest)| rest.split_once('"')).map_or("", |(key, _)| key)
    }
}

pub async fn visit(house: &House, url: Url) -> Page {
    Page::of(house.provider.http_client().get(url).send().await.expect("an answer")).await
}

/// Goes on from the mail program's page, and consents at the provider as `address`. Returns where the browser is sent
/// then.
pub async fn consent(house: &House, page: &Url, address: &str) -> Url {
    house.provider.person().consent(&go_on(house, page).await, address).await
}

/// Presses the button of the mail program's page. Returns the provider's page.
pub async fn go_on(house: &House, page: &Url) -> String {
    let sent = Page::of(house.provider.http_client().post(page.clone()).send().await.expect("an answer")).await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    sent.place
}

/// Types a password on the page to which the browser has returned.
pub async fn type_password(house: &House, returned: &Page, page: &Url, password: &str) -> Page {
    let mut place = page.clone();
    place.set_query(None);
    let form = [("key", returned.key()), ("password", password)];
    Page::of(house.provider.http_client().post(place).form(&form).send().await.expect("an answer")).await
}

/// A person who knows the password consents as this address, and types it. Returns the last page.
pub async fn authorize(house: &House, page: &Url, address: &str) -> String {
    let returned = visit(house, consent(house, page, address).await).await;
    if returned.status == 303 {
        assert!(!returned.place.contains("code"), "no code in the browser's history");
        return returned.place;
    }
    assert_eq!(returned.key().len(), 32, "{}", returned.text);
    type_password(house, &returned, page, PASSWORD).await.place
}

pub async fn addresses(house: &House) -> Vec<String> {
    let status = house.status().await;
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
        assert!(visit(&house, page.clone()).await.text.contains(BEN));
        assert_eq!(house.provider.requests().len(), 0, "nothing is asked before a person does");
        assert_eq!(authorize(&house, &page, BEN).await, "/?authorized");
        assert!(visit(&house, page.join("/?authorized").unwrap()).await.text.contains("Done"));

        let reply = program.log_in(Way::Plain, BEN, PASSWORD).await;
        assert!(accepted(protocol, &reply), "on the same connection: {reply}");
        program.prove().await;
        assert!(log_in(&house, protocol, BEN, "another password").await.starts_with(WRONG_PASSWORD[protocol as usize]));
        assert!(accepted(protocol, &log_in(&house, protocol, ANN, &house.password).await));
        assert_eq!(house.provider.requests(), ["authorization_code", "refresh_token"]);
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
    assert_eq!(authorize(&house, &page, BEN).await, "/?authorized");
    assert!(log_in(&house, Protocol::Pop3, BEN, "somebody else's").await.starts_with("-ERR [AUTH]"));
    assert!(log_in(&house, Protocol::Pop3, BEN, PASSWORD).await.starts_with("+OK"));
}

#[tokio::test]
async fn a_person_learns_at_once_whether_the_authorization_lasts() {
    let house = office("").await;
    let awaited = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    house.provider.change(|settings| settings.token_errors = ["", "invalid_grant"].into());
    assert_eq!(authorize(&house, &awaited, BEN).await, "/?failed", "a refresh token that does not work");
    assert_eq!(house.provider.requests(), ["authorization_code", "refresh_token"]);
    assert_eq!(addresses(&house).await, [ANN]);
    // What could not be tried may well work.
    house.provider.change(|settings| settings.token_errors = ["", "503"].into());
    assert_eq!(authorize(&house, &awaited, BEN).await, "/?authorized");

    house.provider.change(|settings| settings.gives_refresh_tokens = false);
    let awaited = page(Protocol::Imap, &log_in(&house, Protocol::Imap, OFFICE, PASSWORD).await);
    assert_eq!(authorize(&house, &awaited, OFFICE).await, "/?authorized-for-now");
    let told = visit(&house, awaited.join("/?authorized-for-now").unwrap()).await.text;
    assert!(told.contains("it will not last") && told.contains("no refresh token"), "{told}");
    assert!(accepted(Protocol::Imap, &log_in(&house, Protocol::Imap, OFFICE, PASSWORD).await));
}

/// A person who mistypes the password in the mail program at first can still continue.
#[tokio::test]
async fn a_password_that_is_corrected_in_the_mail_program_is_the_one_that_counts() {
    let house = office("").await;
    log_in(&house, Protocol::Imap, BEN, "corect horse battery").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let returned = visit(&house, consent(&house, &page, BEN).await).await;
    let wrong = type_password(&house, &returned, &page, "correct horse").await;
    assert_eq!((wrong.status, wrong.key()), (403, returned.key()), "another try");
    assert_eq!(type_password(&house, &wrong, &page, PASSWORD).await.place, "/?authorized");
    assert!(log_in(&house, Protocol::Imap, BEN, PASSWORD).await.starts_with("a OK"));
    let mistyped = log_in(&house, Protocol::Imap, BEN, "corect horse battery").await;
    assert!(mistyped.starts_with("a NO [AUTHENTICATIONFAILED]"), "{mistyped}");
}

#[tokio::test]
async fn the_wrong_person_a_no_and_an_outage_change_nothing_and_the_page_stays() {
    let house = office("").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    assert_eq!(authorize(&house, &page, OFFICE).await, "/?somebody-else");

    let denied = house.provider.person().deny(&go_on(&house, &page).await).await;
    assert_eq!(visit(&house, denied).await.place, "/?failed");

    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Status(500));
    assert_eq!(authorize(&house, &page, BEN).await, "/?failed");
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);

    assert_eq!(addresses(&house).await, [ANN]);
    assert_eq!(authorize(&house, &page, BEN).await, "/?authorized");
}

#[tokio::test]
async fn a_provider_that_does_not_tell_who_signed_in_is_not_believed() {
    let house = office("scope = [\"mail\"]").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    assert_eq!(authorize(&house, &page, BEN).await, "/?somebody-else");
    assert_eq!(addresses(&house).await, [ANN]);
}

/// Every tenant of Microsoft's can have people with any `email`.
#[tokio::test]
async fn where_many_tenants_sign_in_an_address_counts_only_if_the_server_has_verified_it() {
    const ID: &str = "0a000000-0000-0000-0000-00000000000b";
    for (tenant, more, outcome) in [
        ("organizations", json!({}), "/?somebody-else"),
        ("organizations", json!({"xms_edov": false}), "/?somebody-else"),
        ("organizations", json!({"xms_edov": true}), "/?authorized"),
        ("organizations", json!({"xms_edov": true, "tid": "0a000000-0000-0000-0000-00000000000c"}), "/?failed"),
        (ID, json!({}), "/?authorized"),
        (ID, json!({"email_verified": false}), "/?somebody-else"),
        ("0a000000-0000-0000-0000-00000000000c", json!({}), "/?failed"),
    ] {
        let house = House::with(Security::Tls, |config| {
            let lines = config.lines().filter(|line| !line.starts_with("issuer = "));
            let config: String = lines.map(|line| format!("{line}\n")).collect();
            let config = config.replace("/token\"", &format!("/{tenant}/oauth2/v2.0/token\""));
            config + "\n[account.\"*@example.test\"]\n"
        })
        .await;
        let mut claims = json!({"iss": format!("{}/{ID}/v2.0", house.provider.issuer()), "tid": ID});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        house.provider.change(|settings| settings.id_claims = claims.as_object().cloned());
        let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
        assert_eq!(authorize(&house, &page, BEN).await, outcome, "{tenant} {more}");
    }
}

#[tokio::test]
async fn strangers_on_the_port_change_nothing() {
    let house = office("").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let back = consent(&house, &page, BEN).await;
    let code = back.query_pairs().find(|(key, _)| key == "code").unwrap().1.into_owned();
    for query in ["", "code=stolen&state=another", "error=access_denied&state=another", &format!("code={code}")] {
        let mut forged = page.clone();
        forged.set_query(Some(query));
        assert_eq!(visit(&house, forged).await.status, 404, "{query}");
    }
    let mut elsewhere = page.clone();
    elsewhere.set_query(Some("authorize=00000000000000000000000000000000"));
    assert_eq!(visit(&house, elsewhere.clone()).await.status, 404);
    assert_eq!(house.provider.http_client().post(elsewhere).send().await.unwrap().status(), 404);
    let rebound = house.provider.http_client().get(page.clone()).header("host", "evil.test").send().await.unwrap();
    assert_eq!(rebound.status(), 404);
    assert_eq!(house.provider.requests(), [""; 0]);
    let returned = visit(&house, back.clone()).await;
    assert_eq!(visit(&house, back).await.status, 404, "a code is taken once");
    assert_eq!(type_password(&house, &returned, &page, PASSWORD).await.place, "/?authorized");
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
    // An address that a command authorizes while its first login waits keeps that command's password.
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let bens = Password::generate();
    house.authorize(BEN, Some(("main", &bens))).await;
    let refused = visit(&house, page).await;
    assert!(refused.status == 409 && refused.text.contains("Already set up"), "{}", refused.text);
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
async fn a_consent_after_the_deadline_is_not_accepted() {
    let house = office("").await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let back = consent(&house, &page, BEN).await;
    skip(Duration::from_secs(15 * 60)).await;
    assert_eq!(visit(&house, page.clone()).await.status, 404);
    assert_eq!(house.provider.http_client().post(page).send().await.unwrap().status(), 404);
    assert_eq!(visit(&house, back).await.status, 404);
    assert_eq!(addresses(&house).await, [ANN]);
    let anew = self::page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    assert_eq!(authorize(&house, &anew, BEN).await, "/?authorized");
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
    assert_eq!(awaited, 16, "of one source");
    assert_eq!((house.provider.connections(Protocol::Pop3), house.provider.requests().len()), (0, 0));
    assert!(accepted(Protocol::Pop3, &house.try_login(Protocol::Pop3).await));
    skip(Duration::from_secs(15 * 60)).await;
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
    let url = go_on(&house, &page).await;
    let asked: Vec<_> = Url::parse(&url).unwrap().query_pairs().into_owned().collect();
    assert!(asked.contains(&("scope".to_owned(), "mail email openid".to_owned())), "{url}");
    assert!(asked.contains(&("login_hint".to_owned(), BEN.to_owned())), "{url}");
    authorize(&house, &page, BEN).await;
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

/// Whether a login would begin a first login, with an entry for the domain like this one.
async fn begins(more: &str, is_local: bool) -> bool {
    let entry = format!("\n[account.\"*@example.test\"]\n{more}\n");
    let house = House::empty(Security::Tls, Options::default(), |config| config + &entry).await;
    let vault = Vault::open(&house.config.state_dir).unwrap();
    let broker = Broker::new(Arc::new(house.config.clone()), vault, Clock::System, false);
    broker.first_logins.set_redirect_uris([("own".to_owned(), Url::parse("http://127.0.0.1:1/").unwrap())].into());
    let credentials = Credentials::parse(BEN.as_bytes(), PASSWORD.as_bytes()).unwrap();
    let address = if is_local { "127.0.0.1:1" } else { "192.0.2.1:1" };
    let (login, peer) = (broker.resolve(BEN), Peer { address: address.parse().ok(), user: None, is_forwarded: false });
    let mut guess = PasswordAttempt::of_this_process();
    broker.first_logins.refuse(&login, &credentials, &peer, &mut guess).await.is_err()
}

#[tokio::test]
async fn mail_programs_on_other_machines_begin_nothing_unless_the_configuration_says_so() {
    assert!(begins("", true).await && begins("allow_remote = true", true).await);
    assert!(!begins("", false).await && begins("allow_remote = true", false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_person_is_notified_of_a_first_login_and_of_its_end() {
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
    authorize(&house, &page, BEN).await;
    let expected = format!("person-needed {BEN} {page}\nsettled {BEN} \n");
    crate::support::house::until("both notices", async || {
        std::fs::read_to_string(&heard).is_ok_and(|text| text == expected)
    })
    .await;
}

/// The answer to a first login may take long, as a mail server's may. A notice to an account's owner does not wait for
/// it.
#[tokio::test]
async fn notices_of_strangers_first_logins_do_not_delay_others() {
    let folder = tempfile::tempdir().unwrap();
    let (script, heard, go_on) = (folder.path().join("tell"), folder.path().join("heard"), folder.path().join("go-on"));
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\n[ \"$POSTKEY_ACCOUNT\" = {ANN} ] || until [ -e {go_on:?} ]; do sleep 0.05; done\n\
             echo \"$POSTKEY_EVENT $POSTKEY_ACCOUNT\" >> {heard:?}\n"
        ),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let command = format!("notify_command = [{script:?}]\n");
    let house = House::with(Security::Tls, |config| command + &config + "\n[account.\"*@example.test\"]\n").await;
    for number in 0..10 {
        let reply = log_in(&house, Protocol::Imap, &format!("stranger{number}@example.test"), PASSWORD).await;
        page(Protocol::Imap, &reply);
    }
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::InvalidGrant);
    house.provider.revoke_access_tokens();
    let reply = house.try_login(Protocol::Imap).await;
    assert!(!accepted(Protocol::Imap, &reply), "{reply}");
    let told = || std::fs::read_to_string(&heard).unwrap_or_default();
    crate::support::house::until("Ann's notice", async || told() == format!("person-needed {ANN}\n")).await;
    std::fs::write(&go_on, "").unwrap();
    crate::support::house::until("the strangers' notices", async || told().lines().count() == 11).await;
}
