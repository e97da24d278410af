//! The program's commands, as a person types them: their effect, their output, their exit codes.

use postkey::protocol::{Protocol, Security};
use serde_json::Value;
use url::Url;

use crate::support::Options;
use crate::support::house::{ANN, BEN, House, Way, accepted};
use crate::support::process::{Ended, Process};

pub async fn house() -> House {
    House::empty(Security::Tls, Options::default(), |config| config).await
}

/// Begins to authorize Ann's account. Returns the process, and the address that the person has to open.
pub fn begin(house: &House, arguments: &[&str]) -> (Process, String) {
    let mut process = house.begin(&[arguments, &["--no-browser"]].concat());
    let url = process.hear("/authorize?").trim().to_owned();
    (process, url)
}

/// Opens the address to which the browser is sent, and follows its redirect. Returns the first status and the last
/// page.
pub async fn visit(house: &House, target: Url) -> (u16, String) {
    let response = house.provider.http_client().get(target.clone()).send().await.expect("an answer");
    let status = response.status().as_u16();
    match response.headers().get("location") {
        Some(next) => {
            let next = target.join(next.to_str().unwrap()).unwrap();
            assert!(next.query().is_none(), "no code in the browser's history");
            let page = house.provider.http_client().get(next).send().await.expect("a page");
            (status, page.text().await.unwrap())
        }
        None => (status, response.text().await.unwrap()),
    }
}

/// Authorizes Ann's account in the browser.
pub async fn authorize(house: &House, arguments: &[&str]) -> Ended {
    let (process, url) = begin(house, arguments);
    let (status, page) = visit(house, house.provider.person().consent(&url, ANN).await).await;
    assert_eq!((status, page.contains("Done")), (303, true), "{page}");
    process.end()
}

/// The generated app password in a command's output.
pub fn password(ended: &Ended) -> String {
    let is_it = |word: &&str| word.len() == 30 && word.split('-').count() == 5;
    ended
        .out
        .split_whitespace()
        .find(is_it)
        .unwrap_or_else(|| panic!("no password in {}{}", ended.out, ended.err))
        .to_owned()
}

pub fn slots(house: &House) -> Vec<String> {
    let ended = house.run(&["password", "list", ANN], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended.out.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

pub fn expect(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.out, ended.err);
    assert!(ended.err.contains(words) && !ended.err.contains("panicked"), "{words:?} is not in {:?}", ended.err);
}

pub async fn log_in_everywhere(house: &House, password: &str) {
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        let reply = program.log_in(Way::Own, ANN, password).await;
        assert!(accepted(protocol, &reply), "{reply}");
        program.prove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_settings_that_are_shown_are_those_of_the_daemon() {
    let mut house = house().await;
    let _daemon = house.serve().await;
    let ended = authorize(&house, &["authorize", ANN]).await;
    for protocol in Protocol::ALL {
        let port = format!(" port {}, SSL/TLS", house.port(protocol, Security::Tls));
        assert!(ended.out.contains(&port), "{port:?} is not in {}", ended.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn settings_are_shown_for_an_account_that_is_not_there_yet() {
    let house = house().await;
    let known = password(&authorize(&house, &["authorize", ANN]).await);
    let ended = house.run(&["settings", BEN, "--for", "msmtp", "--password-stdin"], &known);
    expect(&ended, 0, "there is no account ben@example.test; run `postkey authorize ben@example.test`");
    assert!(ended.out.contains("user \"ben@example.test\"") && !ended.out.contains("no account"), "{}", ended.out);
    let mistyped = house.run(&["settings", "anm@example.test", "--for", "msmtp"], "");
    expect(&mistyped, 0, "did you mean ann@example.test?");
    let ended = house.run(&["settings", ANN, "--for", "msmtp"], "");
    assert!(!ended.err.contains("account"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn app_passwords_come_and_go_while_the_daemon_runs() {
    let mut house = house().await;
    let _daemon = house.serve().await;
    let main = password(&authorize(&house, &["authorize", ANN]).await);
    let printer = password(&house.run(&["password", "add", ANN, "printer"], &main));
    let chosen = house.run(&["password", "add", ANN, "old phone", "--choose"], &format!("{main}\nmy old phone"));
    expect(&chosen, 0, "");
    assert_eq!(slots(&house), ["main", "printer", "old"]);
    for password in [&main, &printer, "my old phone"] {
        log_in_everywhere(&house, password).await;
    }

    let removed = house.run(&["password", "remove", ANN, "main"], "");
    expect(&removed, 0, "");
    // The account's key stays the same, so together with an older copy of the vault it decrypts today's tokens.
    for advice in ["If it has leaked", "copy of the vault", "`postkey forget --revoke ", "`postkey authorize "] {
        assert!(removed.out.contains(advice), "{advice} is not in {}", removed.out);
    }
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        assert!(!accepted(protocol, &program.log_in(Way::Plain, ANN, &main).await), "{protocol}");
    }
    log_in_everywhere(&house, &printer).await;

    expect(&house.run(&["password", "add", ANN, "third"], &main), 77, "wrong user name or password");
    expect(&house.run(&["password", "add", ANN, "printer"], &printer), 65, "printer");
    expect(&house.run(&["password", "add", ANN, "third"], ""), 65, "nothing was entered");
    expect(&house.run(&["password", "remove", ANN, "main"], ""), 65, "main");
    expect(&house.run(&["password", "remove", ANN, "old phone"], ""), 0, "");
    expect(&house.run(&["password", "remove", ANN, "printer"], ""), 65, "last app password");
    log_in_everywhere(&house, &printer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn status_tells_the_same_with_and_without_the_daemon() {
    let mut house = house().await;
    assert!(house.run(&["status"], "").out.contains("no account"));
    expect(&authorize(&house, &["authorize", ANN]).await, 0, "");
    let accounts = |house: &House| {
        let ended = house.run(&["status", "--json"], "");
        let status: Value = serde_json::from_str(&ended.out).unwrap();
        (status["accounts"].clone(), status["listeners"].as_array().unwrap().len())
    };
    let (without, listeners) = accounts(&house);
    assert_eq!(listeners, 0);
    assert!(house.run(&["status"], "").out.contains("No daemon is running"));
    let _daemon = house.serve().await;
    assert_eq!(accounts(&house), (without.clone(), 9));
    let account = &without[0];
    assert_eq!((&account["address"], &account["state"]), (&ANN.into(), &"ready".into()));
    let text = house.run(&["status"], "").out;
    let port = house.port(Protocol::Smtp, Security::StartTls);
    assert!(text.contains(&format!("127.0.0.1:{port} security starttls")) && text.contains(ANN), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_forgotten_account_is_gone_at_once() {
    let mut house = house().await;
    let _daemon = house.serve().await;
    let main = password(&authorize(&house, &["authorize", ANN]).await);
    log_in_everywhere(&house, &main).await;
    expect(&house.run(&["forget", "ANN@example.test"], ""), 0, "");
    for protocol in Protocol::ALL {
        let reply = house.program(protocol, Security::Clear).await.log_in(Way::Plain, ANN, &main).await;
        assert!(!accepted(protocol, &reply), "{reply}");
    }
    expect(&house.run(&["forget", ANN], ""), 67, "no account");
    expect(&house.run(&["password", "list", ANN], ""), 67, "no account");
    let anew = password(&authorize(&house, &["authorize", ANN]).await);
    log_in_everywhere(&house, &anew).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn test_really_logs_in() {
    let mut house = house().await;
    let main = password(&authorize(&house, &["authorize", ANN]).await);
    for runs in [false, true] {
        let _daemon = if runs { Some(house.serve().await) } else { None };
        let before = house.provider.attempts(Protocol::Pop3).len();
        let ended = house.run(&["test", ANN], &main);
        expect(&ended, 0, "");
        assert_eq!(ended.out.matches("  ok").count(), 3, "{}", ended.out);
        assert_eq!(house.provider.attempts(Protocol::Pop3).len(), before + 1);
        expect(&house.run(&["test", ANN], "not the password"), 77, "Wrong user name or password");
        // Nobody is asked for a password of an account that is not there.
        for command in [&["test", BEN][..], &["forget", "--revoke", BEN], &["password", "add", BEN, "laptop"]] {
            expect(
                &house.run(command, ""),
                67,
                "there is no account ben@example.test; run `postkey authorize ben@example.test`",
            );
        }
        expect(&house.run(&["test", "ann@exmaple.test"], ""), 67, "did you mean ann@example.test?");
        expect(&house.run(&["test", "ann"], ""), 67, "did you mean ann@example.test?");
        expect(&house.run(&["test", "benjamin"], ""), 67, "write its whole address");

        house.provider.change(|settings| settings.imap.refuse_login = Some("NO [CONTACTADMIN] Off.".into()));
        let ended = house.run(&["test", ANN], &main);
        expect(&ended, 69, "no login by IMAP");
        assert!(ended.out.contains("[CONTACTADMIN] Off.") && ended.out.matches("  ok").count() == 2, "{}", ended.out);
        house.provider.change(|settings| settings.imap.refuse_login = None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_wrong_command_line_ends_in_64() {
    let house = house().await;
    for arguments in [
        &["--no-such-option"][..],
        &["dance"],
        &["authorize"],
        &["authorize", "no address"],
        &["authorize", ANN, "--provider", "nobody"],
        &["authorize", "somebody@unknown.test"],
        &["authorize", ANN, "--timeout", "soon"],
        &["password", "add", ANN, ""],
    ] {
        let ended = house.run(arguments, "");
        assert_eq!(ended.code, Some(64), "{arguments:?}: {}{}", ended.out, ended.err);
        assert!(!ended.err.is_empty());
    }
    for arguments in [["--help"], ["--version"]] {
        let ended = house.run(&arguments, "");
        assert!(ended.code == Some(0) && ended.out.contains("postkey"), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_mistakes_of_a_configuration_are_reported_at_once() {
    let house = house().await;
    expect(&house.run(&["check"], ""), 0, "");
    let wrong = "lgo = \"info\"\n[[listener]]\nprotocol = \"imap\"\naddress = \"0.0.0.0:1143\"\n\
                 [[listener]]\nprotocol = \"gopher\"\naddress = \"127.0.0.1:1\"\n";
    std::fs::write(&house.file, wrong).unwrap();
    for arguments in [&["check"][..], &[], &["status"]] {
        let ended = house.run(arguments, "");
        expect(&ended, 78, "postkey.toml:1:1: lgo");
        expect(&ended, 78, "other machines can reach 0.0.0.0");
        expect(&ended, 78, "postkey.toml:6:");
    }
    std::fs::write(&house.file, format!("control_socket = \"/run/{}\"\n", "x".repeat(103))).unwrap();
    expect(&house.run(&["check"], ""), 78, "postkey.toml:1:18: control_socket: is longer than 107 bytes");
    std::fs::remove_file(&house.file).unwrap();
    expect(&house.run(&["check"], ""), 78, "no such file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_daemon_says_what_is_in_its_way() {
    let mut house = house().await;
    let daemon = house.serve().await;
    expect(&house.run(&[], ""), 74, "in use by another postkey");
    expect(&daemon.terminate(), 0, "stopped");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = std::fs::read_to_string(&house.file).unwrap().replacen("127.0.0.1:0", &address, 1);
    std::fs::write(&house.file, config).unwrap();
    expect(&house.run(&[], ""), 71, &format!("cannot listen on {address} for IMAP"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_daemon_that_was_killed_leaves_nothing_in_the_way() {
    let mut house = house().await;
    let daemon = house.serve().await;
    let main = password(&authorize(&house, &["authorize", ANN]).await);
    drop(daemon);
    assert!(house.run(&["status"], "").out.contains("No daemon is running"));
    let _daemon = house.serve().await;
    log_in_everywhere(&house, &main).await;
}
