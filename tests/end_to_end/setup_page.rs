//! The page in the browser against other pages, other users and old links: only a browser that has come with its link is
//! served, and only with forms of the page itself.

use postkey::control::ControlRequest;
use postkey::protocol::Security;
use url::Url;

use crate::support::Options;
use crate::support::browser::{Answer, Browser, exchange};
use crate::support::house::{ANN, House, until};
use crate::users::{MALLORY, as_user, can_be_others};

/// A link to the page for the user who runs the tests.
pub async fn link(house: &House) -> String {
    let users = vec![rustix::process::geteuid().as_raw()];
    serde_json::from_value(house.command(&ControlRequest::OpenPage { users }).await).unwrap()
}

pub async fn browser(house: &House) -> Browser {
    Browser::enter(&link(house).await).await
}

/// A whole request without a cookie.
async fn ask(link: &str, path: &str, host: &str) -> Answer {
    exchange(&Url::parse(link).unwrap(), &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

#[tokio::test]
async fn a_link_shows_the_accounts_once() {
    let house = House::open().await;
    let link = link(&house).await;
    let browser = Browser::enter(&link).await;
    let page = browser.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains(ANN) && page.text.contains("<h1>Overview</h1>"), "{}", page.text);
    let again = ask(&link, Url::parse(&link).unwrap().path(), browser.base.authority()).await;
    assert_eq!(again.status, 403, "a link that was used");
    assert!(!again.headers.contains_key("set-cookie") && !again.text.contains(ANN));
    assert_eq!(browser.get("/").await.status, 200, "the browser that used it stays");
}

#[tokio::test]
async fn every_page_forbids_frames_referrers_stores_and_foreign_content() {
    let house = House::open().await;
    let browser = browser(&house).await;
    for path in ["/", "/add", "/nothing", "/configuration"] {
        let headers = browser.get(path).await.headers;
        let policy = &headers["content-security-policy"];
        for part in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "same-origin");
    }
    let cookie = Browser::enter(&link(&house).await).await.cookie;
    assert!(cookie.starts_with("postkey-") && cookie.len() > 72, "{cookie}");
}

#[tokio::test]
async fn a_foreign_name_for_this_machine_gets_nothing() {
    let house = House::open().await;
    let browser = browser(&house).await;
    let port = browser.base.port().unwrap();
    for host in [
        format!("evil.test:{port}"),
        format!("localhost.evil.test:{port}"),
        format!("127.0.0.1.evil.test:{port}"),
        format!("127.0.0.2:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::1]:{port}"),
        "127.0.0.1".to_owned(),
        format!("127.0.0.1:{}", port - 1),
        String::new(),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nCookie: {}\r\n\r\n", browser.cookie);
        let answer = exchange(&browser.base, &request).await;
        assert!([400, 421].contains(&answer.status) && !answer.text.contains(ANN), "{host}: {answer:?}");
    }
}

#[tokio::test]
async fn a_form_of_another_site_changes_nothing() {
    let house = House::open().await;
    let browser = browser(&house).await;
    let key = browser.get("/add").await.key().to_owned();
    assert_eq!(key.len(), 32);
    let own = format!("Origin: http://{}\r\n", browser.base.authority());
    let path = format!("/accounts/{ANN}/forget");
    let form = |key: &str| format!("key={key}&address={ANN}&sure=yes");
    for (headers, body) in [
        ("Origin: http://evil.test\r\n", form(&key)),
        ("Origin: null\r\n", form(&key)),
        ("Origin: http://127.0.0.1\r\n", form(&key)),
        ("Sec-Fetch-Site: cross-site\r\n", form(&key)),
        ("Sec-Fetch-Site: same-site\r\n", form(&key)),
        (own.as_str(), form("")),
        (own.as_str(), form("00000000000000000000000000000000")),
        (own.as_str(), format!("address={ANN}&sure=yes")),
    ] {
        let answer = browser.send("POST", &path, headers, &body).await;
        assert_eq!(answer.status, 403, "{headers} {body}: {answer:?}");
    }
    for method in ["PUT", "DELETE", "OPTIONS", "HEAD"] {
        assert_eq!(browser.send(method, &path, &own, "").await.status, 405, "{method}");
    }
    let other = Browser::enter(&link(&house).await).await;
    let answer = other.send("POST", &path, &own, &form(&key)).await;
    assert_eq!(answer.status, 403, "the key of another browser");
    assert_eq!(house.status().await.accounts.len(), 1);
}

/// A form of another site can have three types. Of ours, every form has the first, and the others are refused even with its key.
#[tokio::test]
async fn a_form_of_any_other_type_changes_nothing() {
    let house = House::open().await;
    let browser = browser(&house).await;
    let key = browser.get("/add").await.key().to_owned();
    let own = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", browser.base.authority());
    let path = format!("/accounts/{ANN}/forget");
    let part =
        |name: &str, value: &str| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let usual = format!("key={key}&sure=yes");
    for (kind, body) in [
        ("multipart/form-data; boundary=x", format!("{}{}--x--\r\n", part("key", &key), part("sure", "yes"))),
        ("multipart/form-data; boundary=x", usual.clone()),
        ("text/plain", format!("key={key}\r\nsure=yes\r\n")),
        ("text/plain", usual.clone()),
        ("text/plain; application/x-www-form-urlencoded", usual.clone()),
        ("application/json", usual.clone()),
        ("", usual.clone()),
    ] {
        let answer = browser.send("POST", &path, &format!("{own}Content-Type: {kind}\r\n"), &body).await;
        assert_eq!(answer.status, 403, "{kind}: {answer:?}");
    }
    assert_eq!(house.status().await.accounts.len(), 1);
    let answer = browser.send("POST", &path, &own, &usual).await;
    assert!(answer.status == 200 && house.status().await.accounts.is_empty(), "the same as a form of ours: {answer:?}");
}

/// A page of another site cannot read ours, and a link there leads only to pages that change nothing.
#[tokio::test]
async fn another_site_reads_nothing_and_may_lead_back() {
    let house = House::open().await;
    let browser = browser(&house).await;
    let foreign = browser.send("GET", "/", "Sec-Fetch-Site: cross-site\r\n", "").await;
    assert!(foreign.status == 403 && !foreign.text.contains(ANN), "{foreign:?}");
    // Browsers do not send the cookie with a link of another site, such as the provider's.
    let headers = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    let stranger = Browser { cookie: String::new(), ..browser.clone() };
    let back = stranger.send("GET", "/add/1234", headers, "").await;
    assert!(back.status == 200 && back.text.contains("url=/add/1234\""), "{back:?}");
    assert_eq!(stranger.send("GET", "/configuration", headers, "").await.status, 403);
    assert_eq!(stranger.get("/add/1234").await.status, 403, "from our own page it would have been sent");
}

#[tokio::test]
async fn a_cookie_is_worth_nothing_after_the_page_was_closed() {
    let house = House::open().await;
    let (unused, stolen) = (link(&house).await, browser(&house).await);
    assert_eq!(house.command(&ControlRequest::ClosePage).await, true);
    assert_eq!(house.command(&ControlRequest::ClosePage).await, false, "there is none");
    let is_open = async || tokio::net::TcpStream::connect(("127.0.0.1", stolen.base.port().unwrap())).await.is_ok();
    until("the port is closed", async || !is_open().await).await;
    let next = link(&house).await;
    let mut thief = Browser { base: Url::parse(&next).unwrap(), ..stolen };
    assert_eq!(thief.get("/").await.status, 403);
    let path = Url::parse(&unused).unwrap().path().to_owned();
    assert_eq!(ask(&next, &path, thief.base.authority()).await.status, 403, "a link of the old page");
    // The value under the new page's name is not enough either.
    let own = Browser::enter(&next).await;
    let value = thief.cookie.split_once('=').unwrap().1;
    thief.cookie = format!("{}={value}", own.cookie.split_once('=').unwrap().0);
    assert_eq!(thief.get("/").await.status, 403);
}

#[tokio::test]
async fn another_user_of_this_machine_cannot_use_a_link_or_a_cookie() {
    if !can_be_others() {
        return;
    }
    let house = House::open().await;
    let browser = browser(&house).await;
    let (host, port) = (browser.base.authority().to_owned(), browser.base.port().unwrap());
    let request = |path: &str| {
        vec![
            format!("GET {path} HTTP/1.1"),
            format!("Host: {host}"),
            format!("Cookie: {}", browser.cookie),
            String::new(),
        ]
    };
    let as_mallory = async |path: &str| {
        let lines = request(path);
        as_user(MALLORY, port, &lines.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let heard = as_mallory("/").await;
    assert!(heard.starts_with("HTTP/1.1 403") && !heard.contains(ANN), "a stolen cookie: {heard}");
    let link = link(&house).await;
    let heard = as_mallory(Url::parse(&link).unwrap().path()).await;
    assert!(heard.starts_with("HTTP/1.1 403") && !heard.contains("set-cookie"), "a stolen link: {heard}");
    assert_eq!(ask(&link, Url::parse(&link).unwrap().path(), &host).await.status, 403, "it is used up");
    assert_eq!(browser.get("/").await.status, 200);
}

#[tokio::test]
async fn the_page_closes_when_nobody_uses_it() {
    let house = House::open().await;
    let browser = browser(&house).await;
    let is_open = async || tokio::net::TcpStream::connect(("127.0.0.1", browser.base.port().unwrap())).await.is_ok();
    assert!(is_open().await);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(29 * 60)).await;
    tokio::time::resume();
    assert_eq!(browser.get("/").await.status, 200, "a use");
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(29 * 60)).await;
    tokio::time::resume();
    assert!(is_open().await);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    tokio::time::resume();
    until("the end", async || !is_open().await).await;
}

#[tokio::test]
async fn a_page_on_a_unix_socket_is_for_its_users() {
    let folder = tempfile::TempDir::new().unwrap();
    let place = folder.path().join("web").display().to_string();
    let house = House::with(Security::Tls, |config| format!("{config}\n[web]\naddress = \"{place}\"\n")).await;
    let link = link(&house).await;
    assert!(link.starts_with("http://localhost:8143/enter/"), "{link}");
    let path = Url::parse(&link).unwrap().path().to_owned();
    let heard = over_unix(&place, &format!("GET {path} HTTP/1.1\r\nHost: localhost:9999\r\n\r\n")).await;
    assert!(heard.starts_with("HTTP/1.1 303"), "{heard}");
    let heard = over_unix(&place, "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 421"), "{heard}");
    house.command(&ControlRequest::ClosePage).await;
    until("its file is removed", async || !std::path::Path::new(&place).exists()).await;
}

async fn over_unix(path: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::UnixStream::connect(path).await.expect("the page is open");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut heard = String::new();
    socket.read_to_string(&mut heard).await.unwrap();
    heard
}

/// From nothing: the command is the daemon, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_serves_where_no_daemon_runs() {
    let house = House::empty(Security::Tls, Options::default(), |config| config).await;
    let mut process = house.begin(&["web", "--no-browser"]);
    let first = Browser::enter(process.hear("/enter/").trim()).await;
    assert!(first.get("/").await.text.contains("no account yet"));
    let other = house.run_beside(&["web", "--no-browser"], "").await;
    assert_eq!(other.code, Some(0), "{}", other.err);
    assert_eq!(Browser::enter(other.out.trim()).await.get("/").await.status, 200, "another link of the same page");
    assert_eq!(house.run_beside(&["web", "--stop"], "").await.out.trim(), "The page is closed.");
    let ended = tokio::task::spawn_blocking(|| process.end()).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("systemctl --user enable --now postkey"), "{}", ended.err);
    assert_eq!(house.run_beside(&["web", "--stop"], "").await.code, Some(69), "there is no daemon");
}
