//! The provider of the other tests behaves like a provider. These tests do not involve postkey.

mod support;

use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use postkey::protocol::{Mechanism, Protocol, Security};
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::client::{Client, prompt, response};
use support::{Options, Provider, TokenEndpoint};
use url::Url;

const ANN: &str = "ann@example.test";
const BEN: &str = "ben@example.test";
const VERIFIER: &str = "a-verifier-of-the-tests-that-has-43-characters";
const STATE: &str = "a-state-of-22-characters";
const MECHANISMS: [Mechanism; 2] = [Mechanism::XOAuth2, Mechanism::OAuthBearer];

#[tokio::test]
async fn a_code_becomes_tokens_once_and_only_with_its_verifier() {
    for https in [false, true] {
        let provider = Provider::start(Options { https, ..Options::default() }).await;
        let back = provider.person().consent(&authorization_url(&provider), ANN).await;
        assert_eq!((back.port(), parameter(&back, "state")), (Some(4567), STATE.to_owned()));
        assert_eq!(parameter(&back, "iss"), provider.issuer());
        let code = parameter(&back, "code");

        let (status, body) = redeem(&provider, &code, "another-verifier").await;
        assert_eq!((status, &body["error"]), (400, &"invalid_grant".into()));
        let (status, body) = redeem(&provider, &code, VERIFIER).await;
        assert_eq!((status, &body["expires_in"], &body["token_type"]), (200, &3600.into(), &"Bearer".into()));
        assert_eq!(id_token(&body)["email"], ANN);
        let token = text(&body, "access_token");
        assert_eq!(try_login(&provider, Protocol::Imap, ANN, &token).await, "OK");

        assert_eq!(redeem(&provider, &code, VERIFIER).await.0, 400);
        assert_eq!(try_login(&provider, Protocol::Imap, ANN, &token).await, "NO", "a code used twice ends its grant");
        assert_eq!(provider.token_requests("authorization_code"), 3);
    }
}

#[tokio::test]
async fn the_authorization_endpoint_wants_consent_pkce_and_a_known_client() {
    let provider = Provider::start(Options::default()).await;
    let url = authorization_url(&provider);
    let refused = provider.person().deny(&url).await;
    assert_eq!((parameter(&refused, "error"), parameter(&refused, "state")), ("access_denied".into(), STATE.into()));
    for (good, bad, error) in [
        ("S256", "plain", "invalid_request"),
        (STATE, "short", "invalid_request"),
        ("scope=mail+", "scope=calendar+", "invalid_scope"),
        ("response_type=code", "response_type=token", "unsupported_response_type"),
    ] {
        let back = provider.person().deny(&url.replace(good, bad)).await;
        assert_eq!(parameter(&back, "error"), error, "{bad}");
    }
    for (good, bad) in [("client-of-the-tests", "another"), ("127.0.0.1", "example.test"), ("%2F&", "%2Fpath&")] {
        let response = provider.http_client().get(url.replace(good, bad)).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().get("location")), (400, None), "{bad}");
    }
}

#[tokio::test]
async fn a_client_with_a_secret_has_to_show_it_and_one_without_must_not() {
    let provider = Provider::start(Options { client_secret: Some("s:cret".into()), ..Options::default() }).await;
    let (_, refresh_token) = provider.grant(ANN);
    let form = [("grant_type", "refresh_token"), ("refresh_token", &refresh_token)];
    let in_body = |secret| [form[0], form[1], ("client_id", "client-of-the-tests"), ("client_secret", secret)];
    assert_eq!(ask(&provider, &in_body("wrong")).await.0, 401);
    assert_eq!(ask(&provider, &in_body("s:cret")[..3]).await.0, 401);
    let (status, body) = ask(&provider, &in_body("s:cret")).await;
    assert_eq!(status, 200);
    let form = [form[0], ("refresh_token", body["refresh_token"].as_str().unwrap())];
    let request = provider.http_client().post(format!("{}/token", provider.issuer())).form(&form);
    let response = request.basic_auth("client-of-the-tests", Some("s%3Acret")).send().await.unwrap();
    assert_eq!(response.status(), 200);

    let public = Provider::start(Options::default()).await;
    assert_eq!(ask(&public, &in_body("s:cret")).await.0, 401);
}

#[tokio::test]
async fn refresh_tokens_rotate_and_a_spent_one_ends_the_grant() {
    let provider = Provider::start(Options::default()).await;
    let (_, first) = provider.grant(ANN);
    let (_, body) = refresh(&provider, &first).await;
    let (second, token) = (text(&body, "refresh_token"), text(&body, "access_token"));
    assert_ne!(first, second);
    assert_eq!(try_login(&provider, Protocol::Imap, ANN, &token).await, "OK");

    assert_eq!(refresh(&provider, &first).await.1["error"], "invalid_grant");
    assert_eq!(refresh(&provider, &second).await.1["error"], "invalid_grant", "the thief may have this one");
    assert_eq!(try_login(&provider, Protocol::Imap, ANN, &token).await, "NO");
    assert_eq!(provider.requests(), ["refresh_token"; 3]);
}

#[tokio::test]
async fn a_provider_that_does_not_rotate_takes_the_same_refresh_token_again() {
    let provider = Provider::start(Options::default()).await;
    provider.change(|settings| (settings.rotate, settings.expires_in_as_text) = (false, true));
    let (_, refresh_token) = provider.grant(ANN);
    for _ in 0..2 {
        let (status, body) = refresh(&provider, &refresh_token).await;
        assert_eq!((status, body.get("refresh_token"), &body["expires_in"]), (200, None, &"3600".into()));
    }
    provider.end_grant(ANN);
    assert_eq!(refresh(&provider, &refresh_token).await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn the_token_endpoint_has_bad_days() {
    let provider = Provider::start(Options::default()).await;
    let (_, refresh_token) = provider.grant(ANN);
    let mood = |mood| provider.change(|settings| settings.token_endpoint = mood);
    for status in [500, 503, 429] {
        mood(TokenEndpoint::Status(status));
        assert_eq!(refresh(&provider, &refresh_token).await, (status, Value::Null));
    }
    mood(TokenEndpoint::Html);
    assert_eq!(refresh(&provider, &refresh_token).await, (200, Value::Null));
    mood(TokenEndpoint::InvalidGrant);
    assert_eq!(refresh(&provider, &refresh_token).await.1["error"], "invalid_grant");
    mood(TokenEndpoint::Hang);
    tokio::time::timeout(Duration::from_millis(200), refresh(&provider, &refresh_token)).await.unwrap_err();
    mood(TokenEndpoint::Delay(Duration::from_millis(50)));
    let (status, body) = refresh(&provider, &refresh_token).await;
    assert_eq!(status, 200, "nothing of this has harmed the grant");

    let second = text(&body, "refresh_token");
    mood(TokenEndpoint::LoseAnswer);
    tokio::time::timeout(Duration::from_millis(200), refresh(&provider, &second)).await.unwrap_err();
    mood(TokenEndpoint::Normal);
    assert_eq!(refresh(&provider, &second).await.1["error"], "invalid_grant", "it was spent by the lost answer");
}

#[tokio::test]
async fn every_server_takes_both_mechanisms_over_tls_and_starttls() {
    let provider = Provider::start(Options::default()).await;
    provider.change(|settings| settings.token_length = 4096);
    let (token, _) = provider.grant(ANN);
    for protocol in Protocol::ALL {
        for (security, mechanism) in [Security::Tls, Security::StartTls].into_iter().zip(MECHANISMS) {
            let mut client = Client::connect(&provider, protocol, security).await;
            client.log_in(protocol, mechanism, ANN, &token).await;
        }
        let attempts = provider.attempts(protocol);
        assert!(attempts.iter().all(|attempt| attempt.accepted));
        assert_eq!(attempts.iter().map(|attempt| attempt.mechanism).collect::<Vec<_>>(), MECHANISMS);
        assert_eq!(provider.connections(protocol), 2);
    }
}

#[tokio::test]
async fn a_token_that_does_not_fit_gets_the_challenge_and_then_a_no() {
    let provider = Provider::start(Options::default()).await;
    let (bens, _) = provider.grant(BEN);
    for protocol in Protocol::ALL {
        for (mechanism, answer, wrong) in [(Mechanism::XOAuth2, "", "AQ=="), (Mechanism::OAuthBearer, "AQ==", "")] {
            let mut client = Client::connect(&provider, protocol, Security::Tls).await;
            for (answer, verdict) in [(answer, denial(protocol)), (wrong, complaint(protocol))] {
                let challenge = client.authenticate(protocol, mechanism, ANN, &bens).await;
                let json = BASE64_STANDARD.decode(challenge.strip_prefix(prompt(protocol)).unwrap()).unwrap();
                assert!(serde_json::from_slice::<Value>(&json).unwrap()["status"].is_string());
                client.say(answer).await;
                client.expect(verdict).await;
            }
        }
        assert!(provider.attempts(protocol).iter().all(|attempt| !attempt.accepted));
    }
    provider.revoke_access_tokens();
    assert_eq!(try_login(&provider, Protocol::Imap, BEN, &bens).await, "NO");
}

#[tokio::test]
async fn an_access_token_lives_as_long_as_it_says() {
    let provider = Provider::start(Options::default()).await;
    provider.change(|settings| settings.token_life = Duration::ZERO);
    let (dead, _) = provider.grant(ANN);
    assert_eq!(try_login(&provider, Protocol::Imap, ANN, &dead).await, "NO");
}

#[tokio::test]
async fn servers_refuse_close_and_hide_as_they_are_told() {
    let provider = Provider::start(Options::default()).await;
    let (token, _) = provider.grant(ANN);
    provider.change(|settings| settings.imap.refuse_login = Some("NO [LIMIT] Too many.".into()));
    let mut client = Client::connect(&provider, Protocol::Imap, Security::Tls).await;
    assert_eq!(client.authenticate(Protocol::Imap, Mechanism::XOAuth2, ANN, &token).await, "a NO [LIMIT] Too many.");

    provider.change(|settings| (settings.imap.sasl_ir, settings.imap.mechanisms) = (false, vec![MECHANISMS[1]]));
    let offered = client.ask("a CAPABILITY").await;
    assert!(!offered.contains("SASL-IR") && !offered.contains("XOAUTH2") && offered.contains("AUTH=OAUTHBEARER"));
    client.expect("a OK").await;
    client.say("a AUTHENTICATE XOAUTH2").await;
    client.expect("a NO").await;
    client.say("a AUTHENTICATE OAUTHBEARER AQ==").await;
    client.expect("a BAD").await;

    provider.change(|settings| settings.pop3.starttls = false);
    let mut client = Client::clear(provider.port(Protocol::Pop3, Security::StartTls)).await;
    client.expect("+OK").await;
    client.say("STLS").await;
    client.expect("-ERR").await;

    provider.change(|settings| settings.smtp.close_at_connect = true);
    let mut client = Client::clear(provider.port(Protocol::Smtp, Security::StartTls)).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn bytes_between_starttls_and_the_handshake_end_the_connection() {
    let provider = Provider::start(Options::default()).await;
    let mut client = Client::clear(provider.port(Protocol::Imap, Security::StartTls)).await;
    client.expect("* OK").await;
    client.say("a AUTHENTICATE XOAUTH2").await;
    client.expect("a NO [PRIVACYREQUIRED]").await;
    client.say("a STARTTLS\r\nb NOOP").await;
    client.expect("a OK").await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn smtp_keeps_to_its_line_lengths_and_its_own_mailboxes() {
    let provider = Provider::start(Options::default()).await;
    provider.change(|settings| settings.token_length = 512);
    let (token, _) = provider.grant(ANN);
    let mut client = Client::connect(&provider, Protocol::Smtp, Security::Tls).await;
    client.say(&format!("AUTH XOAUTH2 {}", response(Mechanism::XOAuth2, ANN, &token))).await;
    client.expect("500 5.5.6").await;
    client.say("MAIL FROM:<ann@example.test>").await;
    client.expect("530").await;
    client.log_in(Protocol::Smtp, Mechanism::XOAuth2, ANN, &token).await;
    client.say("MAIL FROM:<ann@example.test> SIZE=10\r\nRCPT TO:<else@example.test>\r\nDATA\r\nNOOP").await;
    for reply in ["250", "550", "503", "250"] {
        client.expect(reply).await;
    }
}

#[tokio::test]
async fn mail_comes_out_of_pop3_and_imap_byte_for_byte_as_it_went_in_by_smtp() {
    let provider = Provider::start(Options::default()).await;
    let message = b"Subject: dots\r\n\tfolded\r\nTo: x\r\n\r\n.\r\n..two\r\nlone\n.\nLF \x01\xff\xc3\r\n.\n.end\r\n";
    let stuffed =
        b"Subject: dots\r\n\tfolded\r\nTo: x\r\n\r\n..\r\n...two\r\nlone\n.\nLF \x01\xff\xc3\r\n..\n.end\r\n.\r\n";
    let (anns, _) = provider.grant(ANN);
    let mut client = Client::connect(&provider, Protocol::Smtp, Security::Tls).await;
    client.log_in(Protocol::Smtp, Mechanism::OAuthBearer, ANN, &anns).await;
    for (command, reply) in [("MAIL FROM:<>", "250"), ("RCPT TO:<ben@example.test>", "250"), ("DATA", "354")] {
        client.say(command).await;
        client.expect(reply).await;
    }
    client
        .send(
            b"Subject: dots\r\n\tfolded\r\nTo: x\r\n\r\n..\r\n...two\r\nlone\n.\nLF \x01\xff\xc3\r\n..\n.end\r\n.\r\n",
        )
        .await;
    client.expect("250").await;
    assert_eq!(provider.mailbox(BEN), [message]);
    assert!(provider.mailbox(ANN).is_empty());

    let (bens, _) = provider.grant(BEN);
    let size = message.len();
    let mut client = Client::connect(&provider, Protocol::Imap, Security::Tls).await;
    client.log_in(Protocol::Imap, Mechanism::XOAuth2, BEN, &bens).await;
    client.run("a SELECT INBOX").await;
    client.say("a UID FETCH 1 (FLAGS BODY.PEEK[])").await;
    client.expect(&format!("* 1 FETCH (FLAGS () BODY[] {{{size}}}")).await;
    assert_eq!(client.exactly(size).await, message);
    client.expect(" UID 1)").await;
    client.expect("a OK").await;

    let mut client = Client::connect(&provider, Protocol::Pop3, Security::Tls).await;
    client.log_in(Protocol::Pop3, Mechanism::XOAuth2, BEN, &bens).await;
    assert_eq!(client.ask("STAT").await, format!("+OK 1 {size}"));
    client.say("RETR 1").await;
    client.expect("+OK").await;
    assert_eq!(client.exactly(stuffed.len()).await, stuffed);
    assert_eq!(client.ask("DELE 1").await, "+OK");
    assert_eq!(client.ask("STAT").await, "+OK 0 0");
    assert_eq!(provider.mailbox(BEN).len(), 1, "it goes at QUIT");
    client.say("QUIT").await;
    client.expect("+OK").await;
    assert!(provider.mailbox(BEN).is_empty());
}

#[tokio::test]
async fn imap_appends_idles_searches_and_expunges() {
    let provider = Provider::start(Options::default()).await;
    let (token, _) = provider.grant(ANN);
    let mut client = Client::connect(&provider, Protocol::Imap, Security::Tls).await;
    client.log_in(Protocol::Imap, Mechanism::XOAuth2, ANN, &token).await;
    assert!(client.run("a LIST \"\" *").await.contains(r#"* LIST () "/" INBOX"#));
    client.say("a APPEND INBOX (\\Seen) {3}").await;
    client.expect("+ ").await;
    client.say("one").await;
    client.expect("a OK").await;
    client.run("a APPEND \"INBOX\" {3+}\r\ntwo").await;
    assert!(client.run("a SELECT INBOX").await.contains("* 2 EXISTS"));

    client.say("a IDLE").await;
    client.expect("+ ").await;
    assert!(provider.deliver(ANN, b"three"));
    client.expect("* 3 EXISTS").await;
    client.run("DONE").await;

    assert!(client.run("a UID SEARCH UNSEEN").await.contains("* SEARCH 2 3"));
    assert!(client.run("a STORE 2,*:9 +FLAGS (\\Deleted)").await.contains(r"* 3 FETCH (FLAGS (\Deleted))"));
    assert!(client.run("a EXPUNGE").await.contains("* 2 EXPUNGE\r\n* 2 EXPUNGE\r\n"));
    assert_eq!(provider.mailbox(ANN), [b"one"]);
    assert!(client.run("a STATUS INBOX (MESSAGES)").await.contains("MESSAGES 1 RECENT 0 UIDNEXT 4"));
    client.say("a COMPRESS DEFLATE").await;
    client.expect("a BAD").await;
    client.say("a LOGOUT").await;
    client.expect("* BYE").await;
    client.expect("a OK").await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn its_section_of_the_configuration_tells_where_everything_is() {
    let provider = Provider::start(Options { client_secret: Some("secret".into()), ..Options::default() }).await;
    let toml: toml::Table = provider.config_toml("own", Security::StartTls).parse().unwrap();
    let section = &toml["provider"]["own"];
    assert_eq!(section["domains"].as_array().unwrap(), &["example.test".into()]);
    assert_eq!(section["token_endpoint"].as_str().unwrap(), format!("{}/token", provider.issuer()));
    let port = provider.port(Protocol::Pop3, Security::StartTls);
    assert_eq!(section["pop3"]["port"].as_integer(), Some(port.into()));
    assert_eq!(section["pop3"]["security"].as_str(), Some("starttls"));
    let read = |file: &toml::Value| std::fs::read_to_string(file.as_str().unwrap()).unwrap();
    assert_eq!(read(&section["client_secret"]["file"]), "secret");
    assert_eq!(read(&section["ca_file"]), provider.ca_pem());
}

// The rest is a client.

fn authorization_url(provider: &Provider) -> String {
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let mut url = Url::parse(&format!("{}/authorize", provider.issuer())).unwrap();
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", "client-of-the-tests"),
        ("redirect_uri", "http://127.0.0.1:4567/"),
        ("scope", "mail openid email"),
        ("state", STATE),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    url.into()
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find_map(|(key, value)| (key == name).then(|| value.into_owned())).unwrap_or_default()
}

/// Status and JSON of the token endpoint's answer; null if it is not JSON.
async fn ask(provider: &Provider, form: &[(&str, &str)]) -> (u16, Value) {
    let request = provider.http_client().post(format!("{}/token", provider.issuer())).form(form);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

async fn redeem(provider: &Provider, code: &str, verifier: &str) -> (u16, Value) {
    let redirect = ("redirect_uri", "http://127.0.0.1:4567/");
    let client = ("client_id", "client-of-the-tests");
    let grant = ("grant_type", "authorization_code");
    ask(provider, &[grant, ("code", code), redirect, ("code_verifier", verifier), client]).await
}

async fn refresh(provider: &Provider, token: &str) -> (u16, Value) {
    let client = ("client_id", "client-of-the-tests");
    ask(provider, &[("grant_type", "refresh_token"), ("refresh_token", token), client]).await
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("no {name} in {body}")).to_owned()
}

fn id_token(body: &Value) -> Value {
    let token = text(body, "id_token");
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn denial(protocol: Protocol) -> &'static str {
    ["a NO [AUTHENTICATIONFAILED]", "-ERR [AUTH]", "535 5.7.8"][protocol as usize]
}

fn complaint(protocol: Protocol) -> &'static str {
    ["a BAD", "-ERR not", "501"][protocol as usize]
}

/// Logs in to IMAP on a separate connection. Returns OK or NO.
async fn try_login(provider: &Provider, protocol: Protocol, user: &str, token: &str) -> String {
    let mut client = Client::connect(provider, protocol, Security::Tls).await;
    let mut reply = client.authenticate(protocol, Mechanism::XOAuth2, user, token).await;
    if reply.starts_with(prompt(protocol)) {
        reply = client.ask("").await;
    }
    reply.split(' ').nth(1).unwrap().to_owned()
}
