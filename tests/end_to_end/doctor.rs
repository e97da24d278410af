//! `postkey doctor` names each cause that it knows, and no secret. The tests for names and certificates are in
//! tests/faults.

use std::collections::BTreeSet;

use postkey::protocol::{Mechanism, Protocol, Security};
use postkey::vault::{Authorization, Vault};
use serde_json::{Value, json};

use crate::secrets::holds;
use crate::support::canaries::forms;
use crate::support::house::{ANN, BEN, House};
use crate::support::{Options, Publishes, Settings, TokenEndpoint};

/// Ann's house, without a daemon.
async fn house(security: Security, edit: impl FnOnce(String) -> String) -> House {
    House::furnished(security, edit).await
}

/// The report, and the exit code.
fn report(house: &House, password: &str) -> (Value, i32) {
    let ended = house.run(&["doctor", ANN, "--json"], password);
    let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{}{}", ended.out, ended.err));
    let code = ended.code.unwrap();
    assert_eq!(report["exit_code"], code);
    (report, code)
}

/// The line about this subject.
fn finding<'a>(report: &'a Value, subject: &str) -> (&'a str, &'a str) {
    let all = report["findings"].as_array().unwrap();
    let found = all.iter().find(|one| one["subject"].as_str().unwrap().starts_with(subject));
    let found = found.unwrap_or_else(|| panic!("{subject} is not in {report:#}"));
    (found["state"].as_str().unwrap(), found["text"].as_str().unwrap())
}

/// This has to be the likely cause.
fn expect(house: &House, exit: i32, subject: &str, words: &str) -> Value {
    let (report, code) = report(house, &house.password);
    let cause = report["likely_cause"].as_str().unwrap_or_default();
    assert!(code == exit && cause.starts_with(&format!("{subject}: ")) && cause.contains(words), "{code} {report:#}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_working_account_has_no_problem() {
    let mut house = house(Security::StartTls, |config| {
        let (before, issuer) = config.split_once("issuer = \"").unwrap();
        let issuer = issuer.split('"').next().unwrap();
        config.replace(before, &format!("{before}userinfo_endpoint = \"{issuer}/userinfo\"\n"))
    })
    .await;
    house.provider.change(|settings| settings.publishes = Publishes { userinfo: true, ..Publishes::default() });
    let _daemon = house.serve().await;
    let ended = house.run(&["doctor", ANN], &house.password);
    assert!(ended.code == Some(0) && ended.out.contains("Everything works"), "{}{}", ended.out, ended.err);
    assert!(!ended.out.contains("problem "), "{}", ended.out);
    for words in [
        "clock: it is ",
        "IMAP login: the provider accepts",
        "POP3 server: localhost (",
        "who signed in: ann@",
        "until 4096-01-01",
    ] {
        assert!(ended.out.contains(words), "{words} is not in {}", ended.out);
    }
    assert_eq!(ended.out.matches("reachable; security").count(), 9, "{}", ended.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_an_app_password_the_tokens_are_left_out() {
    let house = house(Security::Tls, |config| config).await;
    let (report, code) = report(&house, "");
    assert_eq!((code, report["likely_cause"].as_str().unwrap().starts_with("daemon: it is not running")), (69, true));
    assert_eq!(finding(&report, "authorization").0, "skipped");
    assert_eq!((finding(&report, "IMAP server").0, finding(&report, "IMAP login").0), ("ok", "skipped"));
    assert_eq!(house.provider.requests(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_concerns_the_account_itself_is_named() {
    let house = house(Security::Tls, |config| config).await;
    let unknown = house.run(&["doctor", BEN], "");
    assert!(unknown.code == Some(67) && unknown.out.contains("account: there is no account ben@"), "{}", unknown.out);

    let unknown = house.run(&["doctor", "benjamin"], "");
    assert!(unknown.code == Some(67) && unknown.out.contains("write its whole address"), "{}", unknown.out);

    let (wrong, code) = report(&house, "not the password");
    assert!(code == 77 && finding(&wrong, "app password").1.contains("postkey password list"), "{wrong:#}");
    assert_eq!(finding(&wrong, "IMAP server").0, "ok", "the rest is looked at all the same");

    house.provider.end_grant(ANN);
    expect(&house, 77, "authorization", "postkey authorize ann@example.test");
    let (ended, code) = report(&house, "");
    assert!(code == 77 && finding(&ended, "authorization").1.contains("it ended on "), "{ended:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_secret_that_cannot_be_read_is_named() {
    let secret = "client_secret.environment = \"NOT_THERE\"\nredirect_uri";
    let house = house(Security::Tls, |config| config.replacen("redirect_uri", secret, 1)).await;
    expect(&house, 78, "client registration", "$NOT_THERE: this variable is not set");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_provider_that_is_gone_is_named() {
    let house = house(Security::Tls, |config| config).await;
    let config = std::fs::read_to_string(&house.file).unwrap();
    std::fs::write(&house.file, config.replace("[provider.own", "[provider.other")).unwrap();
    expect(&house, 78, "provider", "own is no longer in the configuration");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_vault_that_cannot_be_opened_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let house = house(Security::Tls, |config| config).await;
    std::fs::set_permissions(&house.config.state_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    expect(&house, 74, "vault", "chmod go=");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_clock_that_is_off_is_named() {
    let house = house(Security::Tls, |config| config).await;
    for (ahead, words) in [(1000, " s behind"), (-1000, " s ahead")] {
        house.provider.change(|settings| settings.clock_ahead = ahead);
        let report = expect(&house, 71, "clock", words);
        assert_eq!(finding(&report, "IMAP login").0, "ok");
    }
}

/// Some rows of the table of errors. The tests of that table have all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn why_the_tokens_cannot_be_refreshed_is_named() {
    let house = house(Security::Tls, |config| config).await;
    for (body, exit, words) in [
        (json!({"error": "invalid_grant", "error_codes": [50173]}), 77, "the password was changed"),
        (json!({"error": "invalid_grant", "error_subtype": "invalid_rapt"}), 77, "session control"),
        (json!({"error": "invalid_client", "error_codes": [7000222]}), 77, "the client secret has expired"),
        (json!({"error": "invalid_grant", "error_codes": [53003]}), 77, "Conditional Access"),
        (json!({"error": "temporarily_unavailable"}), 75, "the provider is busy"),
    ] {
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Refuse(body));
        let report = expect(&house, exit, "authorization", words);
        assert_eq!(finding(&report, "SMTP login").0, "skipped");
    }
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Html);
    expect(&house, 75, "authorization", "not an OAuth answer");
    house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    assert!(expect(&house, 69, "daemon", "it is not running").to_string().contains("just issued a new token"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_the_token_is_not_good_for_is_named() {
    let outlook = "https://outlook.office.com";
    let jwt = |audience: &str| json!({"aud": audience, "tid": "tenant", "upn": ANN, "scp": "IMAP.AccessAsUser.All SMTP.Send"});
    let house = house(Security::Tls, |config| config).await;
    let set = |scope: Option<&str>, claims: Option<Value>| {
        house.provider.change(|Settings { granted_scope, access_claims, .. }| {
            (*granted_scope, *access_claims) = (scope.map(str::to_owned), claims);
        });
    };
    let lets_in = |is_let_in: bool| {
        let broken = if is_let_in { Vec::new() } else { vec![Mechanism::XOAuth2, Mechanism::OAuthBearer] };
        house.provider.change(|settings| {
            Protocol::ALL.iter().for_each(|one| settings.server_mut(*one).broken.clone_from(&broken));
        });
    };
    set(Some("openid"), None);
    lets_in(true);
    let found = report(&house, &house.password).0;
    let (state, text) = finding(&found, "token's scope");
    assert!(state == "ok" && text.contains("the logins work without mail"), "what was seen counts: {text}");
    lets_in(false);
    expect(&house, 78, "token's scope", "mail is missing, so mail will be refused");
    set(Some("openid https://www.googleapis.com/auth/gmail.readonly mail"), None);
    expect(&house, 78, "token's scope", "https://mail.google.com/ is missing");
    set(None, Some(jwt(outlook)));
    let report = expect(&house, 78, "token's scope", "POP.AccessAsUser.All is missing, so POP3 will be refused");
    assert!(finding(&report, "token's audience").1.contains("of tenant tenant, for ann@example.test"));
    set(None, Some(jwt("https://graph.microsoft.com")));
    expect(&house, 78, "token's audience", "lack the https://outlook.office.com/ prefix");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn skipped_checks_do_not_count_as_passed() {
    let mut house = house(Security::Tls, |config| config).await;
    let _daemon = house.serve().await;
    let ended = house.run(&["doctor", ANN], "\n");
    assert!(ended.out.contains("Without an app password") && !ended.out.contains("Everything works"), "{}", ended.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_mechanism_that_is_offered_and_does_not_work_is_named_with_the_key() {
    for broken in [Mechanism::XOAuth2, Mechanism::OAuthBearer] {
        let house = house(Security::Tls, |config| config).await;
        house.provider.change(|settings| settings.imap.broken = vec![broken]);
        let report = report(&house, &house.password).0;
        let (state, text) = finding(&report, "IMAP login");
        let good = if broken == Mechanism::XOAuth2 { Mechanism::OAuthBearer } else { Mechanism::XOAuth2 };
        let words = format!("it offers {}, which does not work; set mechanisms = [\"{}\"]", broken.name(), good.name());
        assert!(state == "ok" && text.contains(&words), "{text}");
        assert!(!finding(&report, "SMTP login").1.contains("mechanisms"), "{report:#}");
    }
}

/// What Ben has consented to is in the vault as Ann's.
fn confuse(house: &House) {
    let authorization = Authorization { address: ANN.to_owned(), ..house.grant(BEN) };
    Vault::open(&house.config.state_dir).unwrap().authorize(&authorization, None, house.now()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn somebody_else_who_has_signed_in_is_named() {
    let house = house(Security::Tls, |config| {
        let issuer = config.split("issuer = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        config.replacen("issuer = ", &format!("userinfo_endpoint = \"{issuer}/userinfo\"\nissuer = "), 1)
    })
    .await;
    house.provider.change(|settings| settings.publishes = Publishes { userinfo: true, ..Publishes::default() });
    confuse(&house);
    let report = expect(&house, 77, "who signed in", "ben@example.test has signed in, not ann@example.test");
    let (state, said) = finding(&report, "IMAP login");
    assert!(state == "problem" && said.contains("Invalid credentials; the token is not for this mailbox"), "{said}");
    let claims = json!({"upn": "Ben@Example.test"});
    house.provider.change(|settings| (settings.publishes.userinfo, settings.access_claims) = (false, Some(claims)));
    expect(&house, 77, "who signed in", "ben@example.test has signed in");
}

/// One answer for each protocol. The tests of the table of answers have all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_server_answers_is_explained_by_doctor_test_and_log() {
    let mut house = house(Security::Tls, |config| config).await;
    let daemon = house.serve().await;
    for (protocol, said, exit, words) in [
        (Protocol::Imap, "NO User is authenticated but not connected.", 69, "not open to whoever signed in"),
        (Protocol::Imap, "NO [ALERT] Please log in via your web browser: https://a.test", 69, "in a browser once"),
        (Protocol::Imap, "NO AUTHENTICATE failed.", 69, "IMAP is disabled"),
        (
            Protocol::Imap,
            "BAD Request is throttled. Suggested Backoff Time: 30000 milliseconds",
            75,
            "fewer connections",
        ),
        (Protocol::Pop3, "-ERR [SYS/PERM] Your account is not enabled for POP access.", 69, "POP is disabled"),
        (Protocol::Smtp, "535 5.7.139 SmtpClientAuthentication is disabled for the Mailbox.", 69, "e-mail apps"),
        (Protocol::Smtp, "535 5.7.3 Authentication unsuccessful [A.TEST 2026]", 69, "SMTP.Send is missing"),
        (Protocol::Smtp, "432 4.3.2 Concurrent connections limit exceeded", 75, "use fewer"),
    ] {
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = Some(said.to_owned()));
        let (_, answer) = said.split_once(' ').unwrap();
        let report = expect(&house, exit, &format!("{protocol} login"), words);
        assert!(report.to_string().contains(answer.trim_end_matches('.')), "{report:#}");
        let test = house.run(&["test", ANN], &house.password);
        assert!(test.out.contains(words), "{}", test.out);
        house.provider.change(|settings| settings.server_mut(protocol).refuse_login = None);
    }
    let log = daemon.terminate().err;
    let words = "localhost refuses the POP3 login of ann@example.test: [SYS/PERM] Your account is not enabled for POP access; POP is";
    assert!(log.contains(words) && log.contains("e-mail apps"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_that_cannot_be_used_is_named() {
    let no_tls = house(Security::StartTls, |config| {
        let (before, provider) = config.split_once("[provider.own]").unwrap();
        format!("{before}[provider.own]{}", provider.replace("\"starttls\"", "\"tls\""))
    })
    .await;
    let report = expect(&no_tls, 69, "IMAP server", "does not speak TLS on this port");
    assert!(finding(&report, "IMAP server").1.contains("\"* OK"), "{report:#}");
    assert_eq!(finding(&report, "IMAP login"), ("skipped", "its server cannot be reached"));

    let starttls = house(Security::StartTls, |config| config).await;
    starttls.provider.change(|settings| settings.smtp.starttls = false);
    expect(&starttls, 69, "SMTP server", "does not offer STARTTLS");
    starttls.provider.change(|settings| settings.pop3.close_at_connect = true);
    expect(&starttls, 69, "POP3 server", "broke off before the login");

    // Bound, so that no other process gets the port, but not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let closed = house(Security::Tls, |config| {
        let (before, rest) = config.split_once("[provider.own.pop3]\nhost = \"localhost\"\nport = ").unwrap();
        let (_, rest) = rest.split_once('\n').unwrap();
        format!("{before}[provider.own.pop3]\nhost = \"127.0.0.1\"\nport = {port}\n{rest}")
    })
    .await;
    expect(&closed, 69, "POP3 server", "port in the configuration, and the firewall");
}

/// Servers that repeat what they received, in every form.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_report_holds_no_secret() {
    let secret = "client: secret+of/the=tests, as long as they are";
    let options = Options { client_secret: Some(secret.into()), ..Options::default() };
    let mut house = House::furnished_with(Security::Tls, options, |config| config).await;
    let _daemon = house.serve().await;
    let mut seen = String::new();
    let mut look = |house: &House, words: &str| {
        let ended = house.run(&["doctor", ANN], &house.password);
        assert!(ended.out.contains(words), "{words} is not in {}", ended.out);
        seen.extend([ended.out, ended.err]);
    };
    look(&house, "accepts the login");
    house.provider.change(|settings| settings.access_claims = Some(json!({"aud": "https://a.test", "upn": ANN})));
    look(&house, "for https://a.test");
    // The client's secret is the last one, and a server does not repeat it.
    let issued: Vec<String> = house.provider.secrets().into_iter().rev().skip(1).collect();
    let [access, _, refresh] = &issued[..3] else { panic!("there are tokens") };
    let echoes: BTreeSet<Vec<u8>> = [access, refresh].into_iter().flat_map(|token| forms(token)).collect();
    let echoes = echoes.into_iter().map(|echo| String::from_utf8(echo).unwrap());
    for echo in echoes.filter(|echo| !echo.contains(", ")) {
        house.provider.change(|settings| settings.imap.refuse_login = Some(format!("NO is '{echo}' yours?")));
        look(&house, "token: is '");
        let body = json!({"error": "invalid_grant", "error_description": format!("'{echo}' is bad")});
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Refuse(body));
        look(&house, "invalid_grant ('");
        house.provider.change(|settings| settings.token_endpoint = TokenEndpoint::Normal);
    }
    let mut secrets = house.provider.secrets();
    assert!(secrets.len() > 10 && secrets.iter().any(|one| one == secret));
    secrets.extend([house.password.clone(), house.password.replace('-', "")]);
    for secret in &secrets {
        assert!(!holds(seen.as_bytes(), secret), "{secret} was shown");
    }
}
