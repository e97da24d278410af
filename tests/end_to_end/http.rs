//! The HTTP ports: metrics, the page of first logins, and the redirect listener of the command. Idle connections starve
//! nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use crate::first_login::{PASSWORD, log_in, page};
use crate::support::Options;
use crate::support::house::{ANN, BEN, House, PATIENCE, accepted, free_port, until, until_skipping};

/// An address on which nobody listens now.
fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

async fn is_closed(socket: &mut TcpStream) -> bool {
    let mut bytes = [0; 512];
    loop {
        match tokio::time::timeout(Duration::from_millis(1), socket.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

/// Whether a request on a new connection is answered.
async fn is_answered(place: SocketAddr, path: &str) -> bool {
    let mut socket = TcpStream::connect(place).await.unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    // A connection serves one request.
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("an end").unwrap();
    heard.starts_with(b"HTTP/1.1 ")
}

/// Hundreds of connections that send this and nothing more: an honest visitor is served, and few are open, and not for
/// long.
async fn flood(place: SocketAddr, path: &str, said: &[u8], most: Duration) {
    let mut silent = Vec::new();
    for _ in 0..600 {
        let mut socket = TcpStream::connect(place).await.unwrap();
        socket.write_all(said).await.unwrap();
        silent.push(socket);
    }
    assert!(is_answered(place, path).await);
    let mut open = Vec::new();
    for mut socket in silent {
        if !is_closed(&mut socket).await {
            open.push(socket);
        }
    }
    assert!(open.len() <= 64, "{} are open", open.len());
    let open = tokio::sync::Mutex::new(open);
    let steps = std::cell::Cell::new(Duration::ZERO);
    until_skipping("the end of all", Duration::from_secs(1), async || {
        steps.set(steps.get() + Duration::from_secs(1));
        let mut open = open.lock().await;
        for socket in &mut *open {
            if !is_closed(socket).await {
                return false;
            }
        }
        true
    })
    .await;
    assert!(steps.get() <= most, "{:?}", steps.get());
}

/// Longer than the header may take, and shorter than a whole connection.
const HEADER: Duration = Duration::from_secs(30);
const CONNECTION: Duration = Duration::from_secs(120);

#[tokio::test]
async fn connections_that_say_nothing_or_half_of_something_starve_nobody() {
    let metrics = free_address();
    let house = House::with(Security::Tls, |config| {
        format!("metrics = \"{metrics}\"\n{config}\n[account.\"*@example.test\"]\n")
    })
    .await;
    let page = page(Protocol::Imap, &log_in(&house, Protocol::Imap, BEN, PASSWORD).await);
    let pages = SocketAddr::new([127, 0, 0, 1].into(), page.port().unwrap());
    let half = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    let body = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\nkey=";
    flood(metrics, "/metrics", b"", HEADER).await;
    flood(metrics, "/metrics", half, HEADER).await;
    flood(pages, "/", b"", HEADER).await;
    flood(pages, "/", body, CONNECTION).await;
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_that_waits_for_a_browser_is_not_starved_either() {
    let house = House::empty(Security::Tls, Options::default(), |config| config).await;
    let mut process = house.begin(&["authorize", ANN, "--no-browser"]);
    let url = process.hear("/authorize?").trim().to_owned();
    let target = house.provider.person().consent(&url, ANN).await;
    let place = SocketAddr::new([127, 0, 0, 1].into(), target.port().unwrap());
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(place).await.unwrap());
    }
    let answer = house.provider.http_client().get(target.clone()).send().await.expect("an answer");
    assert_eq!(answer.status(), 303);
    let last = target.join(answer.headers()["location"].to_str().unwrap()).unwrap();
    assert_eq!(house.provider.http_client().get(last).send().await.expect("a page").status(), 200);
    let ended = tokio::task::spawn_blocking(|| process.end()).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

async fn is_open(place: SocketAddr) -> bool {
    TcpStream::connect(place).await.is_ok()
}

#[tokio::test]
async fn a_change_of_redirect_listen_alone_takes_effect_at_reload() {
    let mut house = House::with(Security::Tls, |config| config + "\n[account.\"*@example.test\"]\n").await;
    let mut before = None;
    for _ in 0..2 {
        let place = free_address();
        Arc::make_mut(house.config.providers.get_mut("own").unwrap()).redirect_listen = Some(place);
        house.reload().await;
        assert!(is_answered(place, "/").await);
        if let Some(before) = before.replace(place) {
            assert!(!is_open(before).await, "the old one is closed");
        }
    }
}

/// The new one is bound before the old one is closed, and neither is refused because of the other.
#[tokio::test]
async fn a_redirect_uri_changes_at_reload_and_keeps_its_port() {
    let mut house = House::with(Security::Tls, |config| config + "\n[account.\"*@example.test\"]\n").await;
    let all = SocketAddr::from(([0, 0, 0, 0], free_port()));
    let place = SocketAddr::from(([127, 0, 0, 1], all.port()));
    let uri = |path: &str| Url::parse(&format!("http://{place}{path}")).unwrap();
    for (path, listen) in [
        ("/", None),
        ("/back", None),
        ("/back", Some(place)),
        ("/back", Some(all)),
        ("/", Some(place)),
        ("/back", None),
    ] {
        let own = Arc::make_mut(house.config.providers.get_mut("own").unwrap());
        (own.redirect_uri, own.redirect_listen) = (uri(path), listen);
        house.reload().await;
        // The old socket may accept one last connection.
        until(&format!("{path} {listen:?}"), async || is_answered(place, path).await).await;
    }
}

#[tokio::test]
async fn two_providers_with_one_redirect_uri_are_each_listened_for() {
    let (one, other) = (free_address(), free_address());
    let redirect = |listen: SocketAddr| {
        format!("redirect_uri = \"https://mail.example.test/back\"\nredirect_listen = \"{listen}\"\n")
    };
    let house = House::with(Security::Tls, |config| {
        let (listeners, own) = config.split_once("[provider.own]").unwrap();
        let own = own.replace("redirect_uri = \"http://127.0.0.1/\"\n", "");
        let second = own.replace("provider.own", "provider.second").replace("example.test", "second.test");
        format!(
            "{listeners}[provider.own]\n{}{own}\n[provider.second]\n{}{second}\n\
             [account.\"*@example.test\"]\nprovider = \"own\"\n[account.\"*@second.test\"]\nprovider = \"second\"\n",
            redirect(one),
            redirect(other)
        )
    })
    .await;
    assert!(is_answered(one, "/back").await && is_answered(other, "/back").await);
    let uri = Url::parse("https://mail.example.test/back").unwrap();
    assert_eq!(house.config.providers["second"].redirect_uri, uri);
}
