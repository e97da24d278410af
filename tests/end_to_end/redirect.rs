//! The redirect listener against web pages, other programs and the curious: nothing that they send ends, changes or
//! reveals anything, and the right answer still counts.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::time::Duration;

use postkey::protocol::Security;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use crate::introduction;
use crate::ownership::{STRANGER, open_ways};
use crate::support::house::{ANN, BEN, House, PATIENCE, until};
use crate::support::process::Process;
use crate::support::{Options, TokenEndpoint};
use crate::users::{MALLORY, can_be_others, request_as};

/// Sends bytes, and reads everything until the connection ends.
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
    let (process, target) = consent(&house).await;
    (house, process, target)
}

/// Begins to authorize Ann's account, and has her consent. Returns where her browser is sent then.
async fn consent(house: &House) -> (Process, Url) {
    let mut process = house.begin(&["authorize", ANN, "--no-browser"]);
    let url = process.hear("/authorize?").trim().to_owned();
    let target = house.provider.person().consent(&url, ANN).await;
    (process, target)
}

fn parameter(target: &Url, name: &str) -> String {
    target.query_pairs().find(|(key, _)| key == name).expect("it is there").1.into_owned()
}

/// The status of the answer to a query in the place of the right one.
async fn answer_to(target: &Url, query: &str) -> String {
    let port = target.port().unwrap();
    let request = format!("GET /?{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    status(&send(port, request.as_bytes()).await).to_owned()
}

/// The right answer still works, and its code is used once.
async fn finish(house: House, process: Process, target: Url) {
    finish_in(&house, process, target).await;
}

async fn finish_in(house: &House, process: Process, target: Url) {
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
async fn a_malformed_or_foreign_request_changes_nothing() {
    let (house, process, target) = begin().await;
    let (port, query) = (target.port().unwrap(), target.query().unwrap());
    let host = format!("Host: 127.0.0.1:{port}\r\nConnection: close\r\n");
    let long = "x".repeat(1024 * 1024);
    for request in [
        // HTTP/0.9, other methods, no host, two hosts, a body after a body.
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
async fn no_parameter_is_followed_or_echoed() {
    let (house, process, target) = begin().await;
    let port = target.port().unwrap();
    for name in ["redirect_uri", "url", "next", "return", "continue", "state", "error", "error_description", "code"] {
        let query = format!("{name}=https://evil.test/%3Cscript%3E&code=stolen&state=wrong");
        let request = format!("GET /?{query} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
        let heard = send(port, request.as_bytes()).await;
        assert_eq!(status(&heard), "400", "{heard}");
        assert!(!heard.contains("evil") && !heard.contains("stolen") && !heard.contains("script"), "{heard}");
    }
    // The right state with other parameters still leads only to our own page.
    let mut more = target.clone();
    more.query_pairs_mut().append_pair("redirect_uri", "https://evil.test/").append_pair("next", "//evil.test");
    finish(house, process, more).await;
}

/// RFC 9207 section 2.4: the authorization server has promised to name itself, in its metadata or in the configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_without_the_promised_name_is_not_taken() {
    let promise = |config: String| {
        config.replacen("\nissuer =", "\nauthorization_response_iss_parameter_supported = true\nissuer =", 1)
    };
    for house in [
        House::empty(Security::Tls, Options::default(), promise).await,
        introduction::house(introduction::open()).await,
    ] {
        house.provider.change(|settings| settings.names_itself = false);
        let (process, nameless) = consent(&house).await;
        assert_eq!(answer_to(&nameless, nameless.query().unwrap()).await, "400");
        assert_eq!(house.provider.requests(), [""; 0]);
        let mut named = nameless.clone();
        named.query_pairs_mut().append_pair("iss", house.provider.issuer());
        finish(house, process, named).await;
    }
}

/// Another authorization of the same person at the same server, one that is over, and an attacker's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_code_of_another_authorization_is_not_redeemed() {
    let (house, process, target) = begin().await;
    let (other, of_other) = consent(&house).await;
    let mut attack = house.begin(&["authorize", BEN, "--no-browser"]);
    let attackers = house.provider.person().consent(attack.hear("/authorize?").trim(), BEN).await;
    let code = |of: &Url| parameter(of, "code");
    let iss = house.provider.issuer();
    for query in [
        of_other.query().unwrap().to_owned(),
        attackers.query().unwrap().to_owned(),
        format!("code={}&state={}&iss={iss}", code(&target), parameter(&of_other, "state")),
        format!("code={}&iss={iss}", code(&attackers)),
        format!("code={}&state=&iss={iss}", code(&attackers)),
    ] {
        assert_eq!(answer_to(&target, &query).await, "400", "{query}");
    }
    assert_eq!(house.provider.requests(), [""; 0], "no foreign code was sent");
    answer_to(&of_other, of_other.query().unwrap()).await;
    until("the other authorization", async || house.provider.token_requests("authorization_code") == 1).await;
    let used = format!("code={}&state={}&iss={iss}", code(&target), parameter(&of_other, "state"));
    assert_eq!(answer_to(&target, &used).await, "400", "a state that was good once");
    assert_eq!(answer_to(&target, target.query().unwrap()).await, "303");
    until("the right one", async || house.provider.token_requests("authorization_code") == 2).await;
    drop((process, other, attack));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_code_that_comes_twice_is_redeemed_once() {
    let (house, process, target) = begin().await;
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Delay(Duration::from_secs(1)));
    let [first, again] = [(); 2].map(|()| target.clone());
    let first = tokio::spawn(async move { answer_to(&first, first.query().unwrap()).await });
    until("the exchange", async || house.provider.token_requests("authorization_code") == 1).await;
    let again = tokio::spawn(async move { answer_to(&again, again.query().unwrap()).await });
    let ended = tokio::task::spawn_blocking(|| process.end()).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(first.await.unwrap(), "303");
    assert_ne!(again.await.unwrap(), "200");
    assert_eq!(house.provider.token_requests("authorization_code"), 1);
}

/// RFC 9700 section 4.8: a server that accepts a code whatever its verifier is. The nonce in the id_token then shows
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_foreign_code_is_found_out_though_the_server_ignores_its_challenge() {
    for (checks, words) in [(true, "invalid_grant"), (false, "another request")] {
        let (house, mut process, target) = begin().await;
        house.provider.change(|settings| settings.checks_codes = checks);
        let (other, of_other) = consent(&house).await;
        // Without a state, as some providers show it for pasting.
        process.say(&parameter(&of_other, "code"));
        let ended = process.end();
        assert!(ended.code == Some(77) && ended.err.contains(words), "{:?} {}", ended.code, ended.err);
        assert!(house.run(&["status"], "").out.contains("no account"));
        drop((other, target));
    }
}

/// A program in the place of a browser, which records its arguments.
fn browser(house: &House) -> (String, PathBuf) {
    open_ways(house);
    let folder = house.folder.path().join("noted");
    std::fs::create_dir(&folder).unwrap();
    let (script, notes) = (house.folder.path().join("browser"), folder.join("notes"));
    std::fs::write(&script, format!("#!/bin/sh\necho \"$@\" > {0}.new; mv {0}.new {0}\n", notes.display())).unwrap();
    std::fs::write(&notes, "").unwrap();
    for place in [&script, &folder] {
        std::fs::set_permissions(place, Permissions::from_mode(0o777)).unwrap();
    }
    (script.to_str().unwrap().to_owned(), notes)
}

/// Everybody can read command lines: with the authorization request, somebody else could sign in in the user's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_browsers_command_line_holds_nothing_that_others_can_use() {
    if !can_be_others() {
        return;
    }
    let house = House::empty(Security::Tls, Options::default(), |config| config).await;
    let (script, notes) = browser(&house);
    let state = &house.config.state_dir;
    std::fs::create_dir(state).unwrap();
    std::fs::set_permissions(state, Permissions::from_mode(0o700)).unwrap();
    chown(state, Some(STRANGER), Some(STRANGER)).unwrap();
    let mut process = house.begin_as(STRANGER, &["authorize", ANN], &[("BROWSER", &script)]);
    let shown = process.hear("/authorize?").trim().to_owned();
    let read = || std::fs::read_to_string(&notes).unwrap_or_default();
    until("the browser is started", async || read().contains("http")).await;
    let started = Url::parse(read().trim()).unwrap();
    assert!(started.path().starts_with("/begin-") && started.path().len() == 39, "{started}");
    assert_eq!((started.host_str(), started.query()), (Some("127.0.0.1"), None));
    assert!(request_as(MALLORY, &started, "GET", "").await.starts_with("HTTP/1.1 404"), "another user");
    let elsewhere = started.join("/begin-00000000000000000000000000000000").unwrap();
    assert!(request_as(STRANGER, &elsewhere, "GET", "").await.starts_with("HTTP/1.1 404"), "another address");
    let led = request_as(STRANGER, &started, "GET", "").await;
    assert!(led.starts_with("HTTP/1.1 303") && led.contains(&format!("location: {shown}")), "{led}");
    assert!(request_as(STRANGER, &started, "GET", "").await.starts_with("HTTP/1.1 404"), "once");
    let target = house.provider.person().consent(&shown, ANN).await;
    finish(house, process, target).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nobodys_browser_is_started_by_root_or_on_another_users_screen() {
    if !can_be_others() {
        return;
    }
    for environment in [("HOME", "/"), ("SUDO_UID", "1000"), ("DOAS_USER", "ann"), ("PKEXEC_UID", "1000")] {
        let house = House::empty(Security::Tls, Options::default(), |config| config).await;
        let (script, notes) = browser(&house);
        let state = &house.config.state_dir;
        std::fs::create_dir(state).unwrap();
        std::fs::set_permissions(state, Permissions::from_mode(0o700)).unwrap();
        // Root acts as the owner of the state folder.
        chown(state, Some(STRANGER), Some(STRANGER)).unwrap();
        let user = if environment.0 == "HOME" { 0 } else { STRANGER };
        let mut process = house.begin_as(user, &["authorize", ANN], &[("BROWSER", &script), environment]);
        let url = process.hear("/authorize?").trim().to_owned();
        let target = house.provider.person().consent(&url, ANN).await;
        finish_in(&house, process, target).await;
        assert_eq!(std::fs::read_to_string(&notes).unwrap(), "", "{environment:?}");
    }
}
