//! A provider of which the configuration has only the issuer: postkey finds out the rest, and registers itself.

use std::path::Path;

use postkey::protocol::{Protocol, Security};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::command_line::{authorize, begin, expect, log_in_everywhere, password, visit};
use crate::support::house::{ANN, BEN, House, Way, accepted};
use crate::support::{Options, Publishes};

/// A house whose configuration has neither endpoints nor a client, and whose provider publishes this metadata.
pub async fn house(publishes: Publishes) -> House {
    house_with(publishes, |config| config).await
}

/// The same with a change of its configuration.
async fn house_with(publishes: Publishes, edit: impl FnOnce(String) -> String) -> House {
    let house = House::empty(Security::Tls, Options::default(), |config| {
        let is_left = |line: &&str| {
            !["authorization_endpoint", "token_endpoint", "client_id"].iter().any(|key| line.starts_with(key))
        };
        edit(config.lines().filter(is_left).map(|line| format!("{line}\n")).collect())
    });
    let house = house.await;
    house.provider.change(|settings| settings.publishes = publishes);
    house
}

/// Metadata in the place of RFC 8414, keys, and public clients for everybody.
pub fn open() -> Publishes {
    Publishes { metadata: (true, false), keys: true, registers: Some(false), ..Publishes::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_issuer_is_all_that_has_to_be_known() {
    for metadata in [(true, false), (false, true)] {
        let mut house = house(Publishes { metadata, ..open() }).await;
        let ended = authorize(&house, &["authorize", ANN]).await;
        expect(&ended, 0, "");
        let registered = house.provider.registered();
        assert_eq!(registered.len(), 1);
        assert!(
            ended.out.contains(&format!("registered itself at own with the client id {}", registered[0])),
            "{}",
            ended.out
        );

        // From then on the token endpoint has to be known, whatever becomes of the metadata.
        house.provider.change(|settings| settings.publishes = Publishes::default());
        let _daemon = house.serve().await;
        house.provider.revoke_access_tokens();
        log_in_everywhere(&house, &password(&ended)).await;
        assert_eq!(house.provider.token_requests("refresh_token"), 2, "the first while the person was still there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_next_account_uses_the_same_client_as_long_as_it_is_known() {
    for runs in [false, true] {
        let mut house = house(open()).await;
        let _daemon = if runs { Some(house.serve().await) } else { None };
        expect(&authorize(&house, &["authorize", ANN]).await, 0, "");
        let (process, url) = begin_for(&house, BEN);
        visit(&house, house.provider.person().consent(&url, BEN).await).await;
        expect(&process.end(), 0, "");
        assert_eq!(house.provider.registered().len(), 1);

        house.provider.forget_registered();
        expect(&authorize(&house, &["authorize", ANN]).await, 0, "");
        assert_eq!(house.provider.registered().len(), 1, "registered again");
    }
}

fn begin_for(house: &House, address: &str) -> (crate::support::process::Process, String) {
    let mut process = house.begin(&["authorize", address, "--no-browser"]);
    let url = process.hear("/authorize?").trim().to_owned();
    (process, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_gets_a_secret_keeps_it_sealed_with_its_account() {
    let mut house = house(Publishes { registers: Some(true), ..open() }).await;
    let ended = authorize(&house, &["authorize", ANN]).await;
    expect(&ended, 0, "");
    let _daemon = house.serve().await;
    house.provider.revoke_access_tokens();
    log_in_everywhere(&house, &password(&ended)).await;
    let (process, url) = begin_for(&house, BEN);
    visit(&house, house.provider.person().consent(&url, BEN).await).await;
    expect(&process.end(), 0, "");
    assert_eq!(house.provider.registered().len(), 2, "nobody takes a secret out without an app password");
    let vault = String::from_utf8_lossy(&house.vault_bytes()).into_owned();
    assert!(house.provider.secrets().iter().all(|secret| !vault.contains(secret)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_registers_nobody_is_reported_with_what_to_do() {
    let house = house(Publishes { registers: None, ..open() }).await;
    let ended = house.run(&["authorize", ANN], "");
    let client = "ask the server's administrator for a public client with the redirect URI http://127.0.0.1/, or";
    expect(&ended, 78, &format!("requires a client registration of your own: {client}"));
    house.provider.change(|settings| {
        settings.publishes.instead =
            vec![("registration_endpoint", json!(format!("{}/register", house.provider.issuer())))]
    });
    expect(&house.run(&["authorize", ANN], ""), 78, &format!("HTTP status 404; {client}"));
    expect(&house.run(&["authorize", ANN, "--flow", "device-code"], ""), 78, "that may use the device grant; then run");
}

/// Adding offline_access to a scope that already has it would change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn offline_access_that_a_server_does_not_list_is_not_asked_for_again() {
    let lists = vec![("scopes_supported", json!(["mail", "openid", "email"]))];
    let publishes = Publishes { instead: lists, ..open() };
    let house = house_with(publishes, |config| config.replace("\"mail\", ", "\"mail\", \"offline_access\", ")).await;
    house.provider.change(|settings| settings.gives_refresh_tokens = false);
    let ended = authorize(&house, &["authorize", ANN]).await;
    expect(&ended, 78, "the server does not offer the scope offline_access, so postkey does not request it");
    expect(&ended, 78, "ask its administrator for a client that may use refresh tokens, and set client_id of");
    assert!(!ended.err.contains("add it to scope"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn hostile_metadata_end_before_anybody_signs_in() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/", elsewhere.local_addr().unwrap());
    let instead = |key: &'static str, value: Value| Publishes { instead: vec![(key, value)], ..open() };
    for (publishes, words) in [
        (instead("issuer", json!("https://evil.test")), "another issuer, https://evil.test"),
        (instead("token_endpoint", json!("http://192.0.2.1/token")), "http://192.0.2.1/token, which is not https"),
        (instead("jwks_uri", json!("http://192.0.2.1/keys")), "http://192.0.2.1/keys, which is not https"),
        (instead("token_endpoint", json!(7)), "has no token endpoint"),
        (instead("token_endpoint", Value::Null), "has no token endpoint"),
        (instead("authorization_endpoint", Value::Null), "has no authorization endpoint"),
        (Publishes { blanks: 1 << 20, ..open() }, "larger than 65536 bytes"),
        (Publishes { elsewhere: Some(target), metadata: (true, true), ..open() }, "HTTP status 302"),
        (Publishes { metadata: (false, false), ..open() }, "publishes no metadata"),
    ] {
        let house = house(publishes).await;
        let ended = house.run(&["authorize", ANN, "--no-browser"], "");
        assert!([69, 78].contains(&ended.code.unwrap()), "{:?} {}", ended.code, ended.err);
        expect(&ended, ended.code.unwrap(), words);
        assert_eq!(house.provider.requests(), [""; 0], "{words}");
    }
    let visited = tokio::time::timeout(std::time::Duration::ZERO, elsewhere.accept()).await;
    assert!(visited.is_err(), "somebody has followed the redirect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_location_is_tried_if_the_first_has_no_usable_metadata() {
    let house = house(open()).await;
    house.provider.change(|settings| settings.publishes.metadata = (false, true));
    let (_process, url) = begin(&house, &["authorize", ANN]);
    assert!(url.starts_with(house.provider.issuer()));
}

/// A house to which a tunnel leads, and which shows this page.
async fn tunnelled(port: u16, page: &Path) -> House {
    let house = House::empty(Security::Tls, Options::default(), |config| {
        let config = config.replace("http://127.0.0.1/", "https://tunnel.example.test/callback");
        let config = config.replace("/authorize\"", "/authorize?access_type=offline\"");
        let entry = format!("[provider.own]\nredirect_listen = \"127.0.0.1:{port}\"\n");
        let config = config.replace("[provider.own]\n", &entry);
        let account = format!("[account.\"{ANN}\"]\nauthorization_parameters = {{ prompt = \"login\" }}\n");
        format!("finish_page = {page:?}\n{config}\n{account}")
    });
    house.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_browser_comes_back_through_a_tunnel_and_is_shown_a_page_of_ones_own() {
    // It was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let page = "<!doctype html><style>h1 { color: green }</style><h1>Welcome</h1><p>{code} {{state}} $1";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, page).unwrap();
    let house = tunnelled(port, file.path()).await;
    let (process, url) = begin(&house, &["authorize", ANN]);
    assert!(url.contains("access_type=offline") && url.contains("prompt=login"), "{url}");
    let target = house.provider.person().consent(&url, ANN).await;
    assert_eq!((target.host_str(), target.path()), (Some("tunnel.example.test"), "/callback"));
    let local = |path: &str, host: &str| {
        let request = house.provider.http_client().get(format!("http://127.0.0.1:{port}{path}"));
        request.header("host", host).send()
    };
    let arrival = format!("/callback?{}", target.query().unwrap());
    assert_eq!(local(&arrival, "evil.test").await.unwrap().status(), 404, "DNS rebinding");
    assert_eq!(local(&arrival.replace("/callback", "/"), "tunnel.example.test").await.unwrap().status(), 404);
    let response = local(&arrival, "tunnel.example.test").await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["location"]),
        (303, &"/callback/authorized".parse().unwrap())
    );
    let response = local("/callback/authorized", "tunnel.example.test").await.unwrap();
    assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none';"));
    assert_eq!(response.text().await.unwrap(), page, "as it is");
    expect(&process.end(), 0, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_configuration_can_say_who_signs_in_for_an_account() {
    let shared = "office@example.test";
    let mut house = House::empty(Security::Tls, Options::default(), |config| {
        format!("{config}\n[account.\"{shared}\"]\nuser = \"{BEN}\"\nsigns_in = \"Ben@example.test\"\n")
    })
    .await;
    let (process, url) = begin_for(&house, shared);
    assert!(url.contains("login_hint=ben%40example.test"), "{url}");
    visit(&house, house.provider.person().consent(&url, BEN).await).await;
    let ended = process.end();
    expect(&ended, 0, "");
    let _daemon = house.serve().await;
    let mut program = house.program(Protocol::Imap, Security::Clear).await;
    let reply = program.log_in(Way::Own, shared, &password(&ended)).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
}
