//! Every grant from the command to the mailbox, and again after its token has ended.

use postkey::protocol::{Protocol, Security};
use serde_json::{Value, json};

use crate::support::house::{ANN, BEN, House, Way, accepted};
use crate::support::process::{Ended, Process};
use crate::support::{Options, assertions};

/// A house whose provider has additional keys in its configuration, in which ISSUER stands for its address.
pub async fn house(options: Options, keys: &str) -> House {
    let edit = |config: String| {
        let issuer = config.split("\nissuer = \"").nth(1).unwrap().split('"').next().unwrap();
        config.replace("\nclient_id", &format!("\n{}\nclient_id", keys.replace("ISSUER", issuer)))
    };
    House::empty(Security::Tls, options, edit).await
}

/// The app password that a command has shown.
pub fn password(ended: &Ended) -> String {
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    let is_it = |word: &&str| word.len() == 30 && word.split('-').count() == 5;
    ended.out.split_whitespace().find(is_it).expect("an app password").to_owned()
}

pub fn expect(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.out, ended.err);
    assert!(ended.err.contains(words) && !ended.err.contains("panicked"), "{words:?} is not in {:?}", ended.err);
}

/// Logs in with each protocol. Then all access tokens end, and Ann logs in once more, which needs a new one.
pub async fn live_on(house: &House, password: &str) {
    for protocol in Protocol::ALL {
        let mut program = house.program(protocol, Security::Clear).await;
        let reply = program.log_in(Way::Own, ANN, password).await;
        assert!(accepted(protocol, &reply), "{reply}");
        program.prove().await;
    }
    house.provider.revoke_access_tokens();
    let reply = house.program(Protocol::Imap, Security::Clear).await.log_in(Way::Own, ANN, password).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
}

/// The number of token requests for grants whose names end like this.
pub fn asked(house: &House, grant_type: &str) -> usize {
    house.provider.requests().iter().filter(|one| one.ends_with(grant_type)).count()
}

// Device code

const DEVICE: &str = "flow = \"device-code\"\ndevice_authorization_endpoint = \"ISSUER/device_authorization\"";

/// A provider that speaks a dialect: the differences in its first answer, and the errors that it answers then.
async fn device(changes: Value, errors: &[&'static str]) -> House {
    let house = house(Options::default(), DEVICE).await;
    house.provider.change(|settings| {
        settings.device_answer = changes;
        settings.token_errors = errors.iter().copied().collect();
    });
    house
}

/// Begins to authorize Ann with a code. Returns the page and the code.
fn begin(house: &House) -> (Process, String, String) {
    let mut process = house.begin(&["authorize", ANN]);
    let page = process.hear("/device").trim().to_owned();
    let code = process.hear("  ").trim().to_owned();
    (process, page, code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_code_is_typed_in_elsewhere() {
    // The server is unavailable for a moment, then answers authorization_pending. Neither is an end.
    let mut house = device(Value::Null, &["503", "authorization_pending"]).await;
    let (process, page, code) = begin(&house);
    assert_eq!(house.provider.person().type_in(&page, &code, ANN, "allow").await, 200);
    let password = password(&process.end());
    let _daemon = house.serve().await;
    live_on(&house, &password).await;
    assert_eq!(asked(&house, "device_code"), 3);
    assert_eq!(asked(&house, "refresh_token"), 2, "the first while the person was still there");
}

/// Mail would stop at the first expiry, and authorizing again would change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_code_that_brings_no_refresh_token_says_what_this_server_needs() {
    let house = device(Value::Null, &[]).await;
    house.provider.change(|settings| settings.gives_refresh_tokens = false);
    let (process, page, code) = begin(&house);
    assert_eq!(house.provider.person().type_in(&page, &code, ANN, "allow").await, 200);
    let ended = process.end();
    expect(&ended, 78, "gave no refresh token, so mail for ann@example.test stops when its access token expires");
    expect(&ended, 78, "most servers need the scope offline_access");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_dialect_of_the_device_grant_leads_to_its_end() {
    let google = json!({"verification_uri": null, "verification_uri_complete": null, "interval": null,
        "verification_url": "https://www.example.test/device", "expires_in": "1"});
    for (changes, error, words) in [
        (google, "authorization_pending", "the code has expired"),
        (
            json!({"interval": 1, "message": "To sign in, use a browser"}),
            "authorization_declined",
            "the person has declined",
        ),
        (Value::Null, "access_denied", "the person has declined"),
        (Value::Null, "expired_token", "the code has expired"),
        (Value::Null, "bad_verification_code", "the code has expired"),
    ] {
        let house = device(changes, &[error]).await;
        let (process, ..) = begin(&house);
        expect(&process.end(), 77, words);
    }
    let house = device(json!({"user_code": null}), &[]).await;
    expect(&house.run(&["authorize", ANN], ""), 75, "is not an OAuth answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_code_has_to_be_entered_by_the_owner_of_the_account() {
    let house = device(Value::Null, &[]).await;
    let (process, page, code) = begin(&house);
    house.provider.person().type_in(&page, &code, BEN, "allow").await;
    expect(&process.end(), 77, &format!("{BEN} has signed in, not {ANN}"));
    let (process, page, code) = begin(&house);
    house.provider.person().type_in(&page, &code, ANN, "deny").await;
    expect(&process.end(), 77, "the person has declined");
}

// Client credentials, and how a client authenticates

pub const CLIENT: &str = "flow = \"client-credentials\"";

fn key(algorithm: &str) -> String {
    let (key, certificate) = (assertions::key_file(), assertions::certificate_file());
    format!("client_key.file = {key:?}\nclient_certificate = {certificate:?}\n{algorithm}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_was_let_in_needs_no_person() {
    let options = Options { client_secret: Some("of the client".into()), ..Options::default() };
    let mut house = house(options, CLIENT).await;
    let password = password(&house.run(&["authorize", ANN], ""));
    let _daemon = house.serve().await;
    live_on(&house, &password).await;
    assert_eq!(house.provider.requests(), ["client_credentials"; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_signs_an_assertion_for_each_request() {
    for (line, name) in [("", "PS256"), ("client_algorithm = \"RS256\"", "RS256")] {
        let options = Options { signs: true, ..Options::default() };
        let mut house = house(options, &format!("{CLIENT}\n{}", key(line))).await;
        let password = password(&house.run(&["authorize", ANN], ""));
        let _daemon = house.serve().await;
        live_on(&house, &password).await;
        let assertions = house.provider.assertions();
        assert_eq!(assertions.len(), 2);
        for assertion in assertions {
            assert_eq!(assertion.header, json!({"alg": name, "typ": "JWT", "x5t#S256": assertions::thumbprint()}));
            let time = |claim: &str| assertion.claims[claim].as_u64().unwrap();
            assert_eq!((time("nbf"), time("exp")), (time("iat"), time("iat") + 300));
        }
    }
}

/// The certificate comes with the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_clients_key_comes_from_a_pkcs12_file() {
    for name in ["signing-legacy.p12", "signing-modern.p12"] {
        let file = assertions::key_file().with_file_name(name);
        let keys = format!("{CLIENT}\nclient_key.file = {file:?}\nclient_key_password = \"notasecret\"");
        let options = Options { signs: true, ..Options::default() };
        let mut house = house(options, &keys).await;
        let password = password(&house.run(&["authorize", ANN], ""));
        let _daemon = house.serve().await;
        live_on(&house, &password).await;
        for assertion in house.provider.assertions() {
            assert_eq!(assertion.header["x5t#S256"], json!(assertions::thumbprint()), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_other_grants_sign_as_well() {
    let options = Options { signs: true, ..Options::default() };
    let mut house = house(options, &key("")).await;
    let mut process = house.begin(&["authorize", ANN, "--no-browser"]);
    let url = process.hear("/authorize?").trim().to_owned();
    process.say(house.provider.person().consent(&url, ANN).await.as_str());
    let password = password(&process.end());
    let _daemon = house.serve().await;
    live_on(&house, &password).await;
    assert_eq!(house.provider.requests(), ["authorization_code", "refresh_token", "refresh_token"]);
    assert_eq!(house.provider.assertions().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_federated_assertion_is_read_for_each_request() {
    let options = Options { federated: Some("signed.by.others".into()), ..Options::default() };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("federated");
    std::fs::write(&file, "of.last.year").unwrap();
    let mut house = house(options, &format!("{CLIENT}\nclient_assertion.file = {file:?}")).await;
    expect(&house.run(&["authorize", ANN], ""), 78, "invalid_client");
    std::fs::write(&file, "signed.by.others\n").unwrap();
    let password = password(&house.run(&["authorize", ANN], ""));
    let _daemon = house.serve().await;
    live_on(&house, &password).await;
    std::fs::write(&file, "of.next.year").unwrap();
    house.provider.revoke_access_tokens();
    let reply = house.program(Protocol::Pop3, Security::Clear).await.log_in(Way::Own, ANN, &password).await;
    assert!(!accepted(Protocol::Pop3, &reply), "{reply}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_secret_comes_from_every_place() {
    // It is also checked when the configuration is read.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "of the client\n").unwrap();
    let file = format!("{{ file = {:?} }}", folder.path().join("secret"));
    let command = format!("{{ command = [\"/bin/cat\", {:?}] }}", folder.path().join("secret"));
    // In the forms of a provider's console and of PowerShell.
    let google = "\u{feff}{\"installed\": {\"client_secret\": \"of the client\"}}\r\n";
    let utf16: Vec<u8> = google.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(folder.path().join("google.json"), utf16).unwrap();
    std::fs::write(folder.path().join("tokens.json"), "{\"access_token\": \"hush\"}").unwrap();
    let [google, tokens] =
        ["google", "tokens"].map(|name| format!("{{ file = {:?} }}", folder.path().join(format!("{name}.json"))));
    for (place, words) in [
        ("\"of the client\"", ""),
        (&file, ""),
        (&google, ""),
        (&tokens, "tokens.json: it is JSON without a client_secret; it has access_token"),
        (&command, ""),
        ("{ credential = \"own\" }", ""),
        ("{ environment = \"OWN_SECRET\" }", ""),
        ("{ command = [\"/bin/sh\", \"-c\", \"echo locked >&2; exit 2\"] }", "exit status: 2: locked"),
        ("{ credential = \"other\" }", "the credential other: No such file"),
        ("{ environment = \"NO_SECRET\" }", "$NO_SECRET: this variable is not set"),
    ] {
        let options = Options { client_secret: Some("of the client".into()), ..Options::default() };
        let house = House::empty(Security::Tls, options, |config| {
            let lines = config.lines().filter(|line| !line.starts_with("client_secret"));
            lines
                .collect::<Vec<_>>()
                .join("\n")
                .replace("\nclient_id", &format!("\n{CLIENT}\nclient_secret = {place}\nclient_id"))
        });
        let house = house.await;
        let folder = house.folder.path().join("credentials");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("own"), "of the client\n").unwrap();
        let environment = [
            ("CREDENTIALS_DIRECTORY", folder.to_str().unwrap()),
            ("OWN_SECRET", "of the client"),
            ("PATH", "/usr/bin:/bin"),
        ];
        let command = ["--config", house.file.to_str().unwrap(), "authorize", ANN];
        let ended = Process::start_with(house.folder.path(), &command, &environment).end();
        match words {
            "" => drop(password(&ended)),
            words => expect(&ended, 78, words),
        }
    }
}

// JWT bearer

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_service_account_speaks_for_the_mailbox() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("service-account.json");
    let json_file = format!("service_account.command = [\"/bin/cat\", {key_file:?}]");
    let one_by_one = format!(
        "assertion = {{ issuer = \"service@example.test\", lifetime = \"10m\", claims = {{ deployment = \"x\", roles = [1, true] }}, key_id = \"1\", key = {{ file = {:?} }} }}",
        assertions::key_file()
    );
    for (keys, lifetime) in [(&json_file, 3600), (&one_by_one, 600)] {
        let mut house = house(Options::default(), &format!("flow = \"jwt-bearer\"\n{keys}")).await;
        let file = json!({
            "type": "service_account",
            "client_email": "service@example.test",
            "private_key": std::fs::read_to_string(assertions::key_file()).unwrap(),
            "private_key_id": "1",
            "token_uri": format!("{}/token", house.provider.issuer()),
        });
        std::fs::write(&key_file, file.to_string()).unwrap();
        let password = password(&house.run(&["authorize", ANN], ""));
        let _daemon = house.serve().await;
        live_on(&house, &password).await;
        assert_eq!(asked(&house, "jwt-bearer"), 2);
        let assertion = &house.provider.assertions()[1];
        assert_eq!(assertion.header, json!({"alg": "RS256", "typ": "JWT", "kid": "1"}));
        assert_eq!((&assertion.claims["sub"], &assertion.claims["scope"]), (&json!(ANN), &json!("mail openid email")));
        let time = |claim: &str| assertion.claims[claim].as_u64().unwrap();
        assert_eq!(time("exp") - time("iat"), lifetime);
        let further = (&assertion.claims["deployment"], &assertion.claims["roles"]);
        let expected = if lifetime == 600 { (json!("x"), json!([1, true])) } else { (json!(null), json!(null)) };
        assert_eq!(further, (&expected.0, &expected.1));
        expect(&house.run(&["authorize", "eve@example.test"], ""), 78, "there is no such mailbox");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_invalid_key_is_reported_and_not_shown() {
    let keys = "flow = \"jwt-bearer\"\nservice_account = \"{\\\"private_key\\\": \\\"hush\\\"}\"";
    let house = house(Options::default(), keys).await;
    let ended = house.run(&["authorize", ANN], "");
    expect(&ended, 78, "it is not the JSON file that Google makes for a service account");
    assert!(!ended.err.contains("hush"));
}

// The mailbox's own password

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_mailboxs_own_password_is_kept_and_used_again() {
    for resource in ["", "resource = \"mail\""] {
        let keys = format!("flow = \"password\"\nlegacy = true\n{resource}");
        let mut house = House::empty(Security::Tls, Options::default(), |config| {
            let asks_for_scope = |line: &&str| resource.is_empty() || !line.starts_with("scope");
            let lines: Vec<&str> = config.lines().filter(asks_for_scope).collect();
            lines.join("\n").replace("\nclient_id", &format!("\n{keys}\nclient_id"))
        })
        .await;
        expect(&house.run(&["authorize", ANN], "wrong"), 77, "wrong user name or password");
        let ended = house.run(&["authorize", ANN], "the mailbox's own");
        assert!(
            ended.err.contains("warning: the password of ann@example.test opens more than its mail"),
            "{}",
            ended.err
        );
        let password = password(&ended);
        let _daemon = house.serve().await;
        live_on(&house, &password).await;
        assert_eq!(house.provider.requests(), ["password", "password", "refresh_token"]);
        assert!(!house.vault_bytes().windows(17).any(|bytes| bytes == b"the mailbox's own"), "it is sealed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_password_outlives_the_refresh_token() {
    let mut house = house(Options::default(), "flow = \"password\"\nlegacy = true").await;
    let password = password(&house.run(&["authorize", ANN], "the mailbox's own"));
    let _daemon = house.serve().await;
    house.provider.end_grant(ANN);
    let reply = house.program(Protocol::Imap, Security::Clear).await.log_in(Way::Own, ANN, &password).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
    assert_eq!(house.provider.requests(), ["password", "refresh_token", "password"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_password_grant_wants_to_be_allowed() {
    let house = house(Options::default(), "").await;
    let ended = house.run(&["authorize", ANN, "--flow", "password"], "the mailbox's own");
    expect(&ended, 78, "set `legacy = true`");
    let text = std::fs::read_to_string(&house.file).unwrap();
    std::fs::write(&house.file, text.replace("\nclient_id", "\nlegacy = true\nclient_id")).unwrap();
    let checked = house.run(&["check"], "");
    expect(&checked, 0, "provider.own.legacy: lets postkey store a mailbox's own password");
    password(&house.run(&["authorize", ANN, "--flow", "password"], "the mailbox's own"));
}

// A refresh token from elsewhere

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_refresh_token_is_taken_over() {
    let mut house = house(Options::default(), "").await;
    let take_over = |token: &str| house.run(&["authorize", ANN, "--refresh-token-stdin"], token);
    expect(&take_over("a token"), 65, "this is not a refresh token");
    expect(&take_over("{\n\"access_token\": \"old\"\n}"), 65, "JSON without one");
    expect(&take_over("of-nobody"), 77, "unknown refresh token");
    let (_, bens) = house.provider.grant_for(BEN, "mail openid");
    expect(&take_over(&bens), 77, &format!("{BEN} has signed in, not {ANN}"));
    let (_, anns) = house.provider.grant_for(ANN, "mail openid");
    let answer = json!({"access_token": "old", "refresh_token": anns, "expires_in": 3599});
    let password = password(&take_over(&format!("{answer:#}")));
    let _daemon = house.serve().await;
    live_on(&house, &password).await;
    assert_eq!(asked(&house, "refresh_token"), 4);
}
