//! The redirect listener against web pages, other programs and the curious: nothing that they send ends, changes or learns
//! anything, and the right answer still counts.

use postkey::protocol::Security;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use crate::support::Options;
use crate::support::house::{ANN, House, PATIENCE};
use crate::support::process::Process;

/// Sends bytes, and hears all until the connection ends.
async fn send(port: u16, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("the listener is there");
    let _refused = socket.write_all(bytes).await;
    let mut heard = Vec::new();
    let _reset = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut heard)).await.expect("an end");
    String::from_utf8_lossy(&heard).into_owned()
}

fn status(heard: &str) -> &str {
    heard.split(' ').nth(1).unwrap_or_default()
}

async fn begin() -> (House, Process, Url) {
    let house = House::empty(Security::Tls, Options::default(), |config| config).await;
    let mut process = house.begin(&["authorize", ANN, "--no-browser"]);
    let url = process.hear("/authorize?").trim().to_owned();
    let target = house.provider.person().consent(&url, ANN).await;
    (house, process, target)
}

/// The right answer still works, and its code is used once.
async fn finish(house: House, process: Process, target: Url) {
    let answer = house.provider.http_client().get(target.clone()).send().await.expect("an answer");
    let next = target.join(answer.headers()["location"].to_str().unwrap()).unwrap();
    assert_eq!((answer.status().as_u16(), next.as_str()), (303, target.join("/authorized").unwrap().as_str()));
    let page = house.provider.http_client().get(next).send().await.expect("a page");
    let headers = page.headers().clone();
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(house.provider.token_requests("authorization_code"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_requests_to_this_machine_by_name_are_answered() {
    let (house, process, target) = begin().await;
    let (port, query) = (target.port().unwrap(), target.query().unwrap());
    let hosts = [
        "",
        "evil.test",
        "evil.test:80",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "evil.test#127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "[::2]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "127.1",
        "localhost.",
        "LOCALHOST.evil",
        "user@localhost",
        "localhost@evil.test",
        "[::1",
        "::1",
        "127.0.0.1:1:2",
        "*",
    ];
    for host in hosts {
        let request = format!("GET /?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let heard = send(port, request.as_bytes()).await;
        assert!(["400", "404"].contains(&status(&heard)), "{host:?}: {heard}");
    }
    assert_eq!(house.provider.requests(), [""; 0]);
    finish(house, process, target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_honest_request_changes_nothing() {
    let (house, process, target) = begin().await;
    let (port, query) = (target.port().unwrap(), target.query().unwrap());
    let host = format!("Host: 127.0.0.1:{port}\r\nConnection: close\r\n");
    let long = "x".repeat(1024 * 1024);
    for request in [
        // HTTP/0.9, other methods, no host, two hosts, a body behind a body.
        format!("GET /?{query}\r\n\r\n"),
        format!("POST /?{query} HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"),
        format!("OPTIONS /?{query} HTTP/1.1\r\n{host}Origin: https://evil.test\r\n\r\n"),
        format!("GET /?{query} HTTP/1.1\r\nConnection: close\r\n\r\n"),
        format!("GET /other?{query} HTTP/1.1\r\n{host}\r\n"),
        format!("GET /?{query}{long} HTTP/1.1\r\n{host}\r\n"),
        format!("GET / HTTP/1.1\r\n{host}X: {long}\r\n\r\n"),
        format!(
            "POST / HTTP/1.1\r\n{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /?{query} HTTP/1.1\r\n\r\n"
        ),
        "EHLO evil.test\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_owned() + "\r\n\r\n",
    ] {
        let heard = send(port, request.as_bytes()).await;
        let start = request.get(..60).unwrap_or(&request);
        assert!(!["200", "303"].contains(&status(&heard)), "{start:?}: {heard}");
        assert!(!heard.to_lowercase().contains("location:") && !heard.contains("Access-Control"), "{start:?}: {heard}");
    }
    assert_eq!(house.provider.requests(), [""; 0]);
    finish(house, process, target).await;
}

/// No parameter leads anywhere else, and none is shown again.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_that_is_brought_is_followed_or_echoed() {
    let (house, process, target) = begin().await;
    let port = target.port().unwrap();
    for name in ["redirect_uri", "url", "next", "return", "continue", "state", "error", "error_description", "code"] {
        let query = format!("{name}=https://evil.test/%3Cscript%3E&code=stolen&state=wrong");
        let request = format!("GET /?{query} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
        let heard = send(port, request.as_bytes()).await;
        assert_eq!(status(&heard), "400", "{heard}");
        assert!(!heard.contains("evil") && !heard.contains("stolen") && !heard.contains("script"), "{heard}");
    }
    // The right state with more beside it still leads to our own page only.
    let mut more = target.clone();
    more.query_pairs_mut().append_pair("redirect_uri", "https://evil.test/").append_pair("next", "//evil.test");
    finish(house, process, more).await;
}
