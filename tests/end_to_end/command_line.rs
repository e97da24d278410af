//! The program's commands, as a person types them: their effect, their output, their exit codes.

use postkey::protocol::{Protocol, Security};
use serde_json::Value;
use url::Url;

use crate::support::house::{ANN, BEN, House, Way, accepted};
use crate::support::process::{Ended, Process};
use crate::support::{Options, TokenEndpoint};

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

fn slots(house: &House) -> Vec<String> {
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
async fn an_account_is_authorized_by_the_browser_before_or_while_the_daemon_runs() {
    for (arguments, runs) in [(["--authorize", ANN], false), (["authorize", ANN], true)] {
        let mut house = house().await;
        let daemon = if runs { Some(house.serve().await) } else { None };
        let ended = authorize(&house, &arguments).await;
        expect(&ended, 0, "");
        assert!(ended.out.contains(ANN) && ended.out.matches("  ok").count() == 3, "{}", ended.out);
        let _daemon = match daemon {
            Some(daemon) => daemon,
            None => house.serve().await,
        };
        log_in_everywhere(&house, &password(&ended)).await;
        assert_eq!(slots(&house), ["main"]);
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
async fn the_address_or_its_query_can_be_pasted() {
    for part in ["whole", "query"] {
        let house = house().await;
        let (mut process, url) = begin(&house, &["authorize", ANN]);
        let target = house.provider.person().consent(&url, ANN).await;
        process.say(if part == "whole" { target.as_str() } else { target.query().unwrap() });
        let ended = process.end();
        expect(&ended, 0, "");
        assert_eq!(password(&ended).len(), 30);
    }
}

/// In quotes, as HTML, in the lines of a narrow window or a mail; also after an address that was cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_address_can_be_pasted_as_other_programs_pass_it_on() {
    let house = house().await;
    for form in ["quotes", "HTML", "lines", "mail", "twice"] {
        let (mut process, url) = begin(&house, &["authorize", ANN]);
        let target = house.provider.person().consent(&url, ANN).await;
        let target = target.as_str();
        let lines = target.as_bytes().chunks(40).map(|line| std::str::from_utf8(line).unwrap());
        match form {
            "quotes" => process.say(&format!("\"{target}\"")),
            "HTML" => process.say(&format!("<{}>", target.replace('&', "&amp;"))),
            "lines" => lines.for_each(|line| process.say(line)),
            "mail" => {
                let whole = lines.collect::<Vec<_>>().join("\n> ");
                process.say(&format!("> <{whole}>"));
            }
            _ => {
                process.say(&target[..target.len() - 30]);
                process.hear_complaint("this address is incomplete; paste the rest of it");
                process.say(target);
            }
        }
        let ended = process.end();
        expect(&ended, 0, "");
        assert!(ended.err.matches("this address is incomplete").count() <= 1, "{form}: {}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_belongs_to_another_authorization_is_passed_over() {
    let house = house().await;
    let (mut process, url) = begin(&house, &["authorize", ANN]);
    let target = house.provider.person().consent(&url, ANN).await;
    let mut forged = target.clone();
    forged.set_query(Some("code=stolen&state=another"));
    assert_eq!(visit(&house, forged.clone()).await.0, 400);
    forged.set_query(Some("error=access_denied&state=another"));
    assert_eq!(visit(&house, forged.clone()).await.0, 400, "nobody else can end it");
    process.say(forged.as_str());
    process.hear_complaint("postkey: ");
    let mut elsewhere = target.clone();
    elsewhere.set_query(Some(&target.query().unwrap().replace("localhost", "evil.test")));
    assert_eq!(visit(&house, elsewhere).await.0, 400, "RFC 9207: another issuer");
    assert_eq!(house.provider.requests(), [""; 0]);
    assert_eq!(visit(&house, target).await.0, 303);
    expect(&process.end(), 0, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_no_and_nobody_end_in_77() {
    let house = house().await;
    let (process, url) = begin(&house, &["authorize", ANN]);
    let (status, page) = visit(&house, house.provider.person().deny(&url).await).await;
    assert_eq!((status, page.contains("Not authorized")), (303, true), "{page}");
    expect(&process.end(), 77, "access_denied");

    let (process, url) = begin(&house, &["authorize", ANN, "--timeout", "1s"]);
    let ended = process.end();
    expect(&ended, 77, "nobody signed in within 1s");
    // Only the browser learns of a wrong client or redirect URI.
    let redirect_uri =
        Url::parse(&url).unwrap().query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    for words in ["an error page of localhost", "client client-of-the-tests exists", &redirect_uri] {
        expect(&ended, 77, words);
    }
    assert!(house.run(&["status"], "").out.contains("no account"));
}

/// RFC 6749 section 4.1.2.1: each error says who has to do what, and has its own exit code.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_error_that_the_browser_brings_says_what_to_do() {
    for (error, code, words) in [
        ("invalid_scope", 78, "correct scope, and the client's permissions"),
        ("unauthorized_client", 78, "allow it the grant type authorization_code at the provider"),
        ("unsupported_response_type", 78, "choose another flow"),
        ("admin_policy_enforced", 77, "an administrator has to allow it"),
        ("access_denied", 77, "consent was declined"),
        ("temporarily_unavailable", 75, "temporarily_unavailable"),
        ("server_error", 75, "server_error"),
        ("an_error_of_its_own", 78, "an_error_of_its_own"),
    ] {
        let house = house().await;
        house.provider.change(|settings| settings.authorization_error = Some(error));
        let (process, url) = begin(&house, &["authorize", ANN]);
        let returned = house.provider.http_client().get(url).send().await.unwrap();
        let target = Url::parse(returned.headers()["location"].to_str().unwrap()).unwrap();
        assert!(visit(&house, target).await.1.contains("Not authorized"));
        let ended = process.end();
        expect(&ended, code, words);
        expect(&ended, code, "a test wants it so");
        assert_eq!(house.provider.requests(), [""; 0], "{error}");
    }
}

/// Mail would stop at the first expiry, and authorizing again would change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_authorization_without_a_refresh_token_says_what_this_server_needs() {
    const OFFLINE: &str = "scope = [\"mail\", \"openid\", \"email\", \"offline_access\"]";
    for (scope, parameters, words) in [
        ("", "", "most servers need the scope offline_access"),
        (OFFLINE, "authorization_parameters = { prompt = \"login\" }", "set prompt = \"consent\""),
        (OFFLINE, "", "allow the client client-of-the-tests refresh tokens"),
    ] {
        let edit = |config: String| match scope {
            "" => config,
            scope => config.replace("scope = [\"mail\", \"openid\", \"email\"]", &format!("{scope}\n{parameters}")),
        };
        let house = House::empty(Security::Tls, Options::default(), edit).await;
        house.provider.change(|settings| settings.gives_refresh_tokens = false);
        let ended = authorize(&house, &["authorize", ANN]).await;
        expect(&ended, 78, "gave no refresh token, so mail for ann@example.test stops when its access token expires");
        expect(&ended, 78, words);
        assert_eq!(ended.out.matches("  ok").count(), 3, "until then it works: {}", ended.out);
        house.provider.change(|settings| settings.gives_refresh_tokens = true);
        expect(&authorize(&house, &["authorize", ANN]).await, 0, "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_authorization_for_less_than_was_asked_for_says_what_is_missing() {
    let house = house().await;
    house.provider.change(|settings| settings.granted_scope = Some("openid email".to_owned()));
    let ended = authorize(&house, &["authorize", ANN]).await;
    expect(&ended, 0, "granted less than was requested: it left out mail. ");
    expect(&ended, 0, "allow it for the client client-of-the-tests at the provider, and run `postkey authorize ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_tokens_of_somebody_else_who_is_signed_in_replace_nothing() {
    let mut house = house().await;
    let _daemon = house.serve().await;
    let main = password(&authorize(&house, &["authorize", ANN]).await);
    let (mut process, url) = begin(&house, &["authorize", ANN, "--timeout", "2s"]);
    process.say(house.provider.person().consent(&url, BEN).await.as_str());
    expect(&process.end(), 77, "ben@example.test has signed in");
    log_in_everywhere(&house, &main).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trouble_with_the_code_is_shown_in_terminal_and_browser() {
    for (trouble, code) in [(TokenEndpoint::Status(500), 75), (TokenEndpoint::InvalidGrant, 77)] {
        let house = house().await;
        house.provider.change(|settings| settings.token_endpoint = trouble);
        let (process, url) = begin(&house, &["authorize", ANN]);
        let (_, page) = visit(&house, house.provider.person().consent(&url, ANN).await).await;
        assert!(page.contains("Not authorized"), "{page}");
        expect(&process.end(), code, "the provider gave no tokens");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_provider_that_lets_nobody_in_is_reported_and_the_account_is_kept() {
    let house = house().await;
    house.provider.change(|settings| {
        for protocol in Protocol::ALL {
            settings.server_mut(protocol).close_at_connect = true;
        }
    });
    let ended = authorize(&house, &["authorize", ANN]).await;
    expect(&ended, 69, "");
    assert_eq!((password(&ended).len(), slots(&house)), (30, vec!["main".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_password_of_ones_own_choice_comes_by_the_standard_input() {
    let mut house = house().await;
    let (mut process, url) = begin_with_password(&house, "correct horse battery");
    process.say(house.provider.person().consent(&url, ANN).await.as_str());
    expect(&process.end(), 0, "");
    let daemon = house.serve().await;
    log_in_everywhere(&house, "correct horse battery").await;
    expect(&daemon.terminate(), 0, "");

    let again = house.run(&["authorize", ANN, "--password-stdin"], "another horse");
    expect(&again, 64, "postkey password add");
    let other = self::house().await;
    for (typed, words) in [("short", "8 to 255"), ("00000-00000-00000-00000-000000", "looks like")] {
        expect(&other.run(&["authorize", ANN, "--password-stdin"], typed), 65, words);
    }
}

fn begin_with_password(house: &House, password: &str) -> (Process, String) {
    let mut process = house.begin(&["authorize", ANN, "--no-browser", "--password-stdin"]);
    process.say(password);
    let url = process.hear("/authorize?").trim().to_owned();
    (process, url)
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
async fn an_account_that_is_authorized_again_keeps_its_passwords_in_the_running_daemon() {
    let mut house = house().await;
    let _daemon = house.serve().await;
    let main = password(&authorize(&house, &["authorize", ANN]).await);
    house.provider.end_grant(ANN);
    let mut program = house.program(Protocol::Imap, Security::Clear).await;
    let reply = program.log_in(Way::Own, ANN, &main).await;
    assert!(reply.starts_with("a NO [ALERT]"), "{reply}");
    let status = house.run(&["status"], "");
    assert!(status.out.contains("ended") && status.out.contains("postkey authorize"), "{}", status.out);

    let ended = authorize(&house, &["authorize", ANN]).await;
    expect(&ended, 0, "");
    assert!(ended.out.contains("keep their app passwords"), "{}", ended.out);
    let reply = program.log_in(Way::Own, ANN, &main).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
    log_in_everywhere(&house, &main).await;
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
