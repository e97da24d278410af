//! `postkey authorize`, with a person in the browser and at the terminal: what it stores, what it says when something fails, and its
//! exit codes.

use postkey::protocol::{Protocol, Security};
use url::Url;

use crate::command_line::{authorize, begin, expect, house, log_in_everywhere, password, slots, visit};
use crate::support::house::{ANN, BEN, House, Way, accepted, free_port};
use crate::support::process::Process;
use crate::support::{Options, TokenEndpoint};

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

/// The daemon waits for first logins where this browser returns. Its page says what to do, and lets nothing be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_account_can_be_authorized_while_the_daemon_waits_for_first_logins_at_the_same_port() {
    let port = free_port();
    let mut house = House::empty(Security::Tls, Options::default(), |config| {
        let config = config
            .replace("redirect_uri = \"http://127.0.0.1/\"", &format!("redirect_uri = \"http://127.0.0.1:{port}/\""));
        config + "\n[account.\"*@example.test\"]\n"
    })
    .await;
    let daemon = house.serve().await;
    let (mut process, url) = begin(&house, &["authorize", ANN]);
    let target = house.provider.person().consent(&url, ANN).await;
    assert_eq!(target.port(), Some(port));
    let page = house.provider.http_client().get(target.clone()).send().await.expect("a page");
    assert_eq!(page.status().as_u16(), 404);
    let text = page.text().await.unwrap();
    assert!(text.contains("copy the address of this page"), "{text}");
    process.say(target.as_str());
    let ended = process.end();
    expect(&ended, 0, "");
    log_in_everywhere(&house, &password(&ended)).await;
    drop(daemon);
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
