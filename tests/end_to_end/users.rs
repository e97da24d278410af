//! Other users of the same machine: who may connect, who may log in, and with what.

use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::{Protocol, Security};
use url::Url;

use crate::support::house::{ANN, House, PATIENCE, Way, accepted, until};
use crate::support::skipped::skipped;

/// A user of this machine who is not the one that runs the tests.
pub const MALLORY: u32 = 1234;

/// Whether this process may become another user; otherwise there is nothing to test.
pub fn can_be_others() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped("only root can be another user");
    }
    is_root
}

/// Connects as another user, sends these lines, and reads everything until the connection ends.
pub async fn as_user(uid: u32, port: u16, lines: &[&str]) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; [ $# = 0 ] || printf '%s\\r\\n' \"$@\" >&3; exec timeout 10 cat <&3"
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid.to_string(), "--clear-groups", "--", "/bin/bash", "-c", &script, "bash"]).args(lines);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let heard = tokio::task::spawn_blocking(move || command.output().expect("setpriv of util-linux")).await.unwrap();
    String::from_utf8_lossy(&heard.stdout).into_owned()
}

/// Sends a request over HTTP as another user of this machine, and returns the answer.
pub async fn request_as(uid: u32, url: &Url, method: &str, body: &str) -> String {
    let target = url.query().map_or(url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let lines = [
        format!("{method} {target} HTTP/1.1"),
        "Host: localhost".to_owned(),
        format!("Content-Length: {}", body.len() + if body.is_empty() { 0 } else { 2 }),
        String::new(),
        body.to_owned(),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).take(if body.is_empty() { 4 } else { 5 }).collect();
    as_user(uid, url.port().unwrap(), &lines).await
}

/// Logs in as another user, and out again. Returns what was received.
pub async fn log_in_as(uid: u32, house: &House, protocol: Protocol, password: &str) -> String {
    let lines = login(protocol, password);
    as_user(uid, house.port(protocol, Security::Clear), &lines.each_ref().map(String::as_str)).await
}

/// The lines of a mail program that logs in as Ann, and out again.
pub fn login(protocol: Protocol, password: &str) -> [String; 3] {
    let plain = BASE64_STANDARD.encode(format!("\0{ANN}\0{password}"));
    let auth = ["a AUTHENTICATE", "AUTH", "AUTH"][protocol as usize];
    let first = ["a NOOP", "CAPA", "EHLO client.example.test"][protocol as usize];
    let last = ["b LOGOUT", "QUIT", "QUIT"][protocol as usize];
    [first.to_owned(), format!("{auth} PLAIN {plain}"), last.to_owned()]
}

/// Whether a login was accepted in what was received.
pub fn is_in(protocol: Protocol, heard: &str) -> bool {
    heard.lines().any(|line| line.starts_with(["a OK [", "+OK Log", "235"][protocol as usize]))
}

/// The provider has noticed nothing of it.
fn assert_untouched(house: &House) {
    assert!(Protocol::ALL.iter().all(|protocol| house.provider.connections(*protocol) == 0));
    assert!(house.provider.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_account_is_for_the_users_that_the_configuration_names() {
    if !can_be_others() {
        return;
    }
    let limit = format!("[account.\"{ANN}\"]\nallow_uids = [{MALLORY}]\n");
    let house = House::with(Security::Tls, |config| format!("{config}\n{limit}")).await;
    for protocol in Protocol::ALL {
        for (way, password) in [(Way::Plain, &*house.password), (Way::Plain, "wrong"), (Way::Login, "wrong")] {
            let reply = house.program(protocol, Security::Clear).await.log_in(way, ANN, password).await;
            assert!(!accepted(protocol, &reply) && reply.contains("not for your user"), "{reply}");
        }
    }
    assert_untouched(&house);
    for protocol in Protocol::ALL {
        let heard = log_in_as(MALLORY, &house, protocol, &house.password).await;
        assert!(is_in(protocol, &heard), "{heard}");
        let heard = log_in_as(MALLORY + 1, &house, protocol, &house.password).await;
        assert!(heard.contains("not for your user"), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_listener_is_for_the_users_that_the_configuration_names() {
    if !can_be_others() {
        return;
    }
    let allow = |config: String| config.replace("security = ", "allow_uids = [0, \"daemon\"]\nsecurity = ");
    let allow = |config: String| {
        let (listeners, provider) = config.split_once("[provider").unwrap();
        format!("{}[provider{provider}", allow(listeners.to_owned()))
    };
    let house = House::with(Security::Tls, allow).await;
    for protocol in Protocol::ALL {
        let heard = as_user(MALLORY, house.port(protocol, Security::Clear), &[]).await;
        let (end, lines) = (["* BYE", "-ERR", "421"][protocol as usize], heard.lines().count());
        assert!(heard.starts_with(end) && heard.contains("not open to your user") && lines == 1, "{heard}");
    }
    assert_untouched(&house);
    for protocol in Protocol::ALL {
        for security in [Security::Clear, Security::StartTls, Security::Tls] {
            let reply = house.program(protocol, security).await.log_in(Way::Plain, ANN, &house.password).await;
            assert!(accepted(protocol, &reply), "{reply}");
        }
        // Debian's daemon, whatever its number.
        let heard = log_in_as(1, &house, protocol, &house.password).await;
        assert!(is_in(protocol, &heard), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_app_password_can_be_for_one_protocol_or_one_user() {
    let house = House::open().await;
    let add = |arguments: &[&str]| {
        let ended = house.run(&[&["password", "add", ANN], arguments].concat(), &house.password);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.out.split_whitespace().find(|word| word.len() == 30).unwrap().to_owned()
    };
    let reader = add(&["reader", "--protocol", "imap", "--protocol", "pop3"]);
    let hers = add(&["hers", "--uid", &MALLORY.to_string()]);
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        let reply = program.log_in(Way::Plain, ANN, &reader).await;
        assert_eq!(accepted(protocol, &reply), protocol != Protocol::Smtp, "{reply}");
        let reply = house.program(protocol, Security::Clear).await.log_in(Way::Plain, ANN, &hers).await;
        assert!(reply.contains("This app password is not for"), "{reply}");
        if can_be_others() {
            let heard = log_in_as(MALLORY, &house, protocol, &hers).await;
            assert!(is_in(protocol, &heard), "{heard}");
        }
    }
    let status = house.run(&["status"], "").out;
    assert!(status.contains("main, reader (only imap, pop3), hers (only uid 1234)"), "{status}");
    let listed = house.run(&["password", "list", ANN], "").out;
    assert!(listed.contains("  only imap, pop3\n") && listed.contains("  only uid 1234\n"), "{listed}");
    let made = house.run(&["password", "add", ANN, "free"], &hers);
    assert!(made.code == Some(77) && made.err.contains("hers is limited"), "{}", made.err);
}

/// A session ends together with the app password that has opened it, and no other session does.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_removed_app_password_ends_the_sessions_that_it_has_opened() {
    let house = House::open().await;
    let added = house.run(&["password", "add", ANN, "phone"], &house.password);
    let phone = added.out.split_whitespace().find(|word| word.len() == 30).unwrap().to_owned();
    let (mut ending, mut staying) = (Vec::new(), Vec::new());
    for protocol in Protocol::ALL {
        for security in [Security::Clear, Security::Tls] {
            let mut program = house.program(protocol, security).await;
            assert!(accepted(protocol, &program.log_in(Way::Plain, ANN, &phone).await));
            program.prove().await;
            ending.push(program);
        }
        staying.push(house.logged_in(protocol).await);
    }
    assert_eq!(house.run(&["password", "remove", ANN, "phone"], "").code, Some(0));
    let begun = std::time::Instant::now();
    for program in &mut ending {
        tokio::time::timeout(PATIENCE, program.client.rest()).await.expect("an end");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    for program in &mut staying {
        program.prove().await;
    }
    let reply = house.program(Protocol::Imap, Security::Clear).await.log_in(Way::Plain, ANN, &phone).await;
    assert!(reply.contains("AUTHENTICATIONFAILED"), "{reply}");

    // A session ends together with its account, too.
    assert_eq!(house.run(&["forget", ANN], "").code, Some(0));
    for program in &mut staying {
        tokio::time::timeout(PATIENCE, program.client.rest()).await.expect("an end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_users_browser_is_turned_away() {
    if !can_be_others() {
        return;
    }
    let house = House::empty(Security::Tls, crate::support::Options::default(), |config| config).await;
    let mut process = house.begin(&["authorize", ANN, "--no-browser"]);
    let url = process.hear("/authorize?").trim().to_owned();
    let target = house.provider.person().consent(&url, ANN).await;
    let request = format!("GET /?{} HTTP/1.1", target.query().unwrap());
    let port = target.port().unwrap();
    for request in [request.as_str(), "GET /postkey/authorized HTTP/1.1"] {
        let host = format!("Host: 127.0.0.1:{port}");
        let heard = as_user(MALLORY, port, &[request, &host, "Connection: close", ""]).await;
        assert!(heard.starts_with("HTTP/1.1 403"), "{heard}");
        assert!(!heard.contains("code="), "{heard}");
    }
    assert!(house.provider.requests().is_empty());
    let answer = house.provider.http_client().get(target).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 303);
    until("the authorization", async || !house.provider.requests().is_empty()).await;
    let next = format!("http://127.0.0.1:{port}/postkey/authorized");
    let _page = house.provider.http_client().get(next).send().await;
    assert_eq!(process.end().code, Some(0));
}
