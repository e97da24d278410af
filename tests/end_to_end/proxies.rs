//! The way to the provider leads through a proxy, for mail connections and token requests.

use std::time::Duration;

use postkey::protocol::{Protocol, Security};

use crate::support::Options;
use crate::support::house::{House, LIFE, SECURITIES, accepted, skip, until, without_spares};
use crate::support::proxy::{Manner, Proxy};

const KINDS: [&str; 2] = ["http", "socks5"];

/// A house whose provider speaks https, behind a proxy of this kind. `more` is added at the top of its configuration.
async fn behind(kind: &str, proxy: &Proxy, upstream: Security, more: &str) -> House {
    let options = Options { https: true, ..Options::default() };
    let way = format!("proxy = \"{kind}://localhost:{}\"\n{more}\n", proxy.port);
    let mut house = House::furnished_with(upstream, options, |config| way + &without_spares(&config)).await;
    house.start().await;
    house
}

/// The destinations that the proxy has to receive.
fn server(house: &House, protocol: Protocol, upstream: Security) -> String {
    format!("localhost:{}", house.provider.port(protocol, upstream))
}

fn token_endpoint(house: &House) -> String {
    house.provider.issuer().trim_start_matches("https://").to_owned()
}

#[tokio::test]
async fn mail_and_tokens_go_through_the_proxy_and_by_name() {
    for kind in KINDS {
        for upstream in [Security::Tls, Security::StartTls] {
            let proxy = Proxy::start().await;
            let house = behind(kind, &proxy, upstream, "").await;
            for protocol in Protocol::ALL {
                for _ in SECURITIES {
                    house.logged_in(protocol).await.prove().await;
                }
            }
            house.pass(LIFE);
            house.logged_in(Protocol::Imap).await.prove().await;
            let asked = proxy.asked();
            let count = |target: String| asked.iter().filter(|one| **one == target).count();
            let counts = Protocol::ALL.map(|protocol| count(server(&house, protocol, upstream)));
            assert_eq!((counts, count(token_endpoint(&house))), ([4, 3, 3], 1), "{kind}: {asked:?}");
            assert_eq!(Protocol::ALL.map(|protocol| house.provider.connections(protocol)), [4, 3, 3], "none goes past");
        }
    }
}

#[tokio::test]
async fn a_proxy_may_want_a_login() {
    for kind in KINDS {
        let proxy = Proxy::start().await;
        proxy.behave(Manner::Asks("office", "p:ss wörd@"));
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("proxy.password");
        std::fs::write(&file, "p:ss wörd@\n").unwrap();
        let login = format!("proxy_user = \"office\"\nproxy_password = {{ file = {file:?} }}");
        let house = behind(kind, &proxy, Security::Tls, &login).await;
        house.pass(LIFE);
        house.logged_in(Protocol::Smtp).await.prove().await;
        assert_eq!(house.provider.token_requests("refresh_token"), 1, "{kind}");
        // The wrong login, and none at all.
        proxy.behave(Manner::Asks("office", "another"));
        let reply = house.try_login(Protocol::Imap).await;
        assert!(reply.contains("check proxy_user and proxy_password"), "{kind}: {reply}");
        let house = behind(kind, &proxy, Security::Tls, "").await;
        let reply = house.try_login(Protocol::Imap).await;
        assert!(reply.contains("proxy_user and proxy_password"), "{kind}: {reply}");
    }
}

/// What a mail server's proxy does, and what the client hears about it.
const TROUBLES: [(Manner, [&str; 2]); 4] = [
    (Manner::Refuses, ["refuses: HTTP/1.1 403 Forbidden", "refuses: its rules do not allow it"]),
    (Manner::Endless, ["its answer is longer than 8192 bytes", "does not speak SOCKS 5"]),
    (Manner::Closes, ["it closed the connection", "it closed the connection"]),
    (Manner::Foreign, ["does not speak HTTP", "does not speak SOCKS 5"]),
];

#[tokio::test]
async fn a_proxy_in_trouble_is_named_and_the_next_login_tries_again() {
    for (index, kind) in KINDS.into_iter().enumerate() {
        let proxy = Proxy::start().await;
        let house = behind(kind, &proxy, Security::Tls, "").await;
        for (manner, said) in TROUBLES {
            for protocol in Protocol::ALL {
                proxy.behave(manner);
                let reply = house.try_login(protocol).await;
                let named = format!("the proxy localhost:{}: ", proxy.port);
                assert!(reply.contains(&named) && reply.contains(said[index]), "{kind} {manner:?}: {reply}");
                assert!(!accepted(protocol, &reply));
                proxy.behave(Manner::Serves);
                house.logged_in(protocol).await.prove().await;
            }
        }
    }
}

#[tokio::test]
async fn a_token_request_that_the_proxy_does_not_pass_on_is_made_again() {
    for kind in KINDS {
        for (manner, _) in TROUBLES {
            let proxy = Proxy::start().await;
            let house = behind(kind, &proxy, Security::Tls, "").await;
            house.pass(LIFE);
            proxy.behave(manner);
            let reply = house.try_login(Protocol::Imap).await;
            assert!(reply.starts_with("a NO [UNAVAILABLE] "), "{kind} {manner:?}: {reply}");
            // The mail server is not reached either, and the login did not wait for the token.
            until("the end of the refresh", async || !house.state().await["last_failure"].is_null()).await;
            assert_eq!(house.provider.token_requests("refresh_token"), 0);
            proxy.behave(Manner::Serves);
            skip(Duration::from_secs(3600)).await;
            house.logged_in(Protocol::Imap).await.prove().await;
            assert_eq!(house.provider.token_requests("refresh_token"), 1);
        }
    }
}

#[tokio::test]
async fn a_provider_may_have_its_own_way() {
    let proxy = Proxy::start().await;
    let options = Options { https: true, ..Options::default() };
    let way = |config: String| {
        // Nobody listens there.
        let config = format!("proxy = \"http://127.0.0.1:9\"\n{config}");
        config.replace("[provider.own]\n", "[provider.own]\nproxy = \"none\"\n")
    };
    let mut house = House::furnished_with(Security::Tls, options, way).await;
    house.start().await;
    house.pass(LIFE);
    house.logged_in(Protocol::Pop3).await.prove().await;
    assert_eq!(proxy.asked(), [""; 0]);
    let own = format!("proxy = \"socks5://127.0.0.1:{}\"", proxy.port);
    let config = std::fs::read_to_string(&house.file).unwrap().replace("proxy = \"none\"", &own);
    std::fs::write(&house.file, config).unwrap();
    house.stop().await;
    let _process = house.serve().await;
    house.logged_in(Protocol::Pop3).await.prove().await;
    assert!(proxy.asked().contains(&server(&house, Protocol::Pop3, Security::Tls)));
}

#[tokio::test]
async fn the_environment_is_not_asked_for_a_proxy() {
    let proxy = Proxy::start().await;
    let options = Options { https: true, ..Options::default() };
    let mut house = House::furnished_with(Security::Tls, options, |config| config).await;
    let way = format!("http://127.0.0.1:{}", proxy.port);
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let _process = house.serve_with(&names.map(|name| (name, way.as_str()))).await;
    house.provider.revoke_access_tokens();
    house.logged_in(Protocol::Imap).await.prove().await;
    assert_eq!(house.provider.token_requests("refresh_token"), 1);
    assert_eq!(proxy.asked(), [""; 0]);
}
