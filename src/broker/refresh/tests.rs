//! Refreshes at an authorization server that gives the answers of a test.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::Broker;
use super::super::context::lock;
use super::super::state::PastFailure;
use super::*;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::config::flow::Flow;
use crate::config::provider::{ClientMethods, Discovered, Endpoints};
use crate::protocol::Mechanism;
use crate::secret::{Secret, Token};
use crate::token::Life;
use crate::vault::password::Password;
use crate::vault::{Authorization, Secrets, Vault};

const ANN: &str = "ann@example.test";
const NOW: Moment = Moment(1_000_000);

const SECOND: (u16, &str) = (200, r#"{"access_token":"access-2","refresh_token":"refresh-2","expires_in":3600}"#);
const THIRD: (u16, &str) = (200, r#"{"access_token":"access-3","refresh_token":"refresh-3","expires_in":3600}"#);

/// Whoever has no answer by then gets none.
const PATIENCE: Duration = Duration::from_secs(20);

/// It closes the connection without an answer.
const LOST: (u16, &str) = (0, "");

/// What its front answers to a GET request.
const WORKS: u16 = 405;

/// Ann's account, authorized at the server.
struct World {
    broker: Arc<Broker>,
    account: Arc<OpenAccount>,
    /// The requests that the server has got.
    asked: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl World {
    /// The server gives these answers. Ann's first access token lives for so many seconds more.
    async fn new(answers: &[(u16, &'static str)], left: u64) -> Self {
        Self::with(answers, WORKS, authorization(left), false).await
    }

    async fn with(
        answers: &[(u16, &'static str)],
        front: u16,
        authorization: Authorization,
        stores_first: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (folder, port) = (TempDir::new().unwrap(), listener.local_addr().unwrap().port());
        let ca = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        std::fs::write(folder.path().join("ca.pem"), ca).unwrap();
        std::fs::write(folder.path().join("secret"), "its-secret").unwrap();
        let file = folder.path().join("postkey.toml");
        let text = format!(
            "state_dir = \"state\"\n[provider.own]\ndomains = [\"example.test\"]\nscope = [\"mail\"]\nclient_id = \"client\"\n\
             authorization_endpoint = \"http://127.0.0.1:{port}/authorize\"\n\
             token_endpoint = \"http://127.0.0.1:{port}/token\"\nca_file = \"ca.pem\"\nclient_secret.file = \"secret\"\nimap.host = \"localhost\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let config = Arc::new(Config::load(Some(&file)).expect("a configuration without mistakes"));
        let vault = Vault::open(&config.state_dir).unwrap();
        let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW.0)));
        let broker = Arc::new(Broker::new(config, vault, clock, stores_first));
        let first = Some(("main".to_owned(), Password::generate()));
        let Ok(account) = broker.authorize(authorization, first).await else { panic!("not authorized") };
        let asked = Arc::default();
        tokio::spawn(serve(listener, answers.iter().copied().collect(), front, Arc::clone(&asked)));
        Self { broker, account, asked, folder }
    }

    /// Which token set a login gets, or what it hears.
    async fn log_in(&self) -> Result<u64, Refusal> {
        let login = self.broker.refresher.bearer(&self.account, Protocol::Imap);
        timeout(PATIENCE, login).await.expect("an answer").map(|held| held.generation)
    }

    async fn renew(&self) -> Result<u64, Refusal> {
        let renewal = self.broker.refresher.renew(&self.account, self.account.generation());
        timeout(PATIENCE, renewal).await.expect("an answer").map(|held| held.generation)
    }

    fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }

    fn stored(&self) -> Arc<crate::vault::StoredAccount> {
        self.broker.context.vault.account(ANN).unwrap()
    }

    /// Whether the broker's metrics have this outcome so often.
    fn has_counted(&self, outcome: &str, times: usize) -> bool {
        self.broker
            .metrics
            .text(&[], NOW)
            .contains(&format!("postkey_refreshes_total{{result=\"{outcome}\"}} {times}\n"))
    }

    /// The vault can no longer write its records' files.
    fn spoil_disk(&self) {
        let copies = self.folder.path().join("state/copies");
        std::fs::remove_dir_all(&copies).unwrap();
        std::fs::write(copies, "").unwrap();
    }
}

fn authorization(left: u64) -> Authorization {
    let token = |text| Token::parse(text).unwrap();
    let life = Life { issued: Moment(NOW.0 + left - 3600), expires: NOW.after(left) };
    Authorization {
        address: ANN.to_owned(),
        provider: "own".to_owned(),
        flow: Flow::AuthorizationCode,
        client_id: None,
        secrets: Secrets::default(),
        discovered: None,
        tokens: TokenSet { access: token("access-1"), refresh: Some(token("refresh-1")), life, scope: String::new() },
    }
}

async fn serve(
    listener: TcpListener,
    mut answers: VecDeque<(u16, &'static str)>,
    front: u16,
    asked: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read(&mut stream).await;
        let (status, body) = match request.starts_with("GET ") {
            true => (front, ""),
            false => answers.pop_front().unwrap_or(LOST),
        };
        lock(&asked).push(request);
        if (status, body) != LOST {
            let length = body.len();
            let head = format!("HTTP/1.1 {status} So\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    }
}

async fn read(stream: &mut TcpStream) -> String {
    let (mut stream, mut request, mut length) = (BufReader::new(stream), String::new(), 0);
    while !request.ends_with("\r\n\r\n") {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).await.unwrap() > 0, "the request has an end");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        request += &line;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    request + str::from_utf8(&body).unwrap()
}

#[tokio::test]
async fn new_tokens_are_stored_and_used_until_there_are_newer_ones() {
    let world = World::new(&[SECOND, THIRD], 0).await;
    assert_eq!([world.log_in().await.unwrap(), world.log_in().await.unwrap()], [2, 2]);
    assert_eq!((world.stored().generation(), world.stored().life().expires), (2, NOW.after(3600)));
    assert!(world.has_counted("ok", 1));
    assert_eq!(world.renew().await.unwrap(), 3);
    let asked = world.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].contains("refresh_token=refresh-1") && asked[1].contains("refresh_token=refresh-2"), "{asked:?}");
}

/// What the client hears, people see, the vault keeps and the metrics count.
#[tokio::test]
async fn a_refresh_that_failed_tells_who_has_to_act() {
    for (status, body, reason, words, outcome) in [
        (400, r#"{"error":"invalid_grant"}"#, Reason::AuthorizationEnded, "Run `postkey authorize ann", "ended"),
        (
            401,
            r#"{"error":"invalid_client"}"#,
            Reason::AuthorizationEnded,
            "postkey's settings for ann@example.test need care, and then `postkey reload`: ",
            "misconfigured",
        ),
        (
            400,
            r#"{"error":"invalid_grant","error_codes":[90094]}"#,
            Reason::AuthorizationEnded,
            "ann@example.test needs an administrator of its provider, and then `postkey reload`: ",
            "forbidden",
        ),
        (400, "", Reason::Unavailable, "Try later: ", "temporary"),
    ] {
        let world = World::new(&[(status, body)], 0).await;
        // The authorization's.
        timeout(Duration::ZERO, world.broker.notices.changed()).await.unwrap();
        let refusal = world.log_in().await.unwrap_err();
        assert!(refusal.reason == reason && refusal.text.contains(words), "{}", refusal.text);
        assert_eq!(world.log_in().await.unwrap_err(), refusal);
        assert_eq!(world.asked().len(), 1, "a failure stands for a while");
        assert!(world.has_counted(outcome, 1), "{outcome}");
        let status = world.broker.status_of(ANN).unwrap();
        let PastFailure { at, why } = status.last_failure.unwrap();
        assert!(at == NOW && refusal.text.contains(&why), "{why}");
        assert_eq!(status.reason.is_some(), outcome != "temporary");
        let ended = world.stored().ended.clone().map(|ended| (ended.at, ended.why));
        assert_eq!(ended, (outcome == "ended").then_some((NOW, why)));
        let told = timeout(Duration::from_secs(5), world.broker.notices.changed()).await;
        assert!(told.is_ok(), "somebody looks whether a person has to be told");
    }
}

#[tokio::test]
async fn a_refusal_without_a_reason_that_comes_again_and_again_is_an_end_where_the_server_works() {
    for (front, is_end) in [(WORKS, true), (502, false)] {
        let world = World::with(&[], front, authorization(0), false).await;
        for time in 1..=5 {
            let failure = world.broker.refresher.explain(&world.account, "it says no".to_owned()).await;
            match failure {
                Failure::Ended(why) => assert!(time == 5 && is_end && why.starts_with("it says no, again and again")),
                Failure::Temporary(TemporaryCause::Unexplained, why) => {
                    assert!((time < 5 || !is_end) && why == "it says no")
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(world.asked().len(), 1, "it is asked whether it works when that matters");
    }
    let world = World::new(&[(400, "")], 0).await;
    (1..5).for_each(|_| assert!(!world.account.tokens.change(TokenState::unexplained)));
    let refusal = world.log_in().await.unwrap_err();
    assert!(refusal.reason == Reason::AuthorizationEnded && refusal.text.contains("again and again"), "{refusal:?}");
}

/// A client whose token still works does not wait. An answer that was lost may have had the next refresh token in it.
#[tokio::test]
async fn a_server_with_trouble_is_asked_again_for_a_client_that_waits() {
    const TROUBLE: (u16, &str) = (503, "");
    for (left, is_refused, answers, requests) in [
        (0, false, [TROUBLE, SECOND], 2),
        (100, false, [TROUBLE, SECOND], 1),
        (100, true, [TROUBLE, SECOND], 2),
        (100, false, [LOST, SECOND], 2),
        (100, false, [(400, ""), SECOND], 1),
    ] {
        let world = World::new(&answers, left).await;
        if is_refused {
            let (mailbox, refusal) = (world.account.mailbox(Protocol::Imap), Refusal::new(Reason::TokenRefused, "no"));
            let now = Instant::now();
            world.account.tokens.change(|state| state.refused(&mailbox, 1, &[Mechanism::XOAuth2], &refusal, now));
        }
        assert_eq!(world.renew().await.ok(), (requests == 2).then_some(2), "{answers:?}");
        assert_eq!(world.asked().len(), requests, "{answers:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_asked_for_by_a_process_that_ends_soon() {
    for (is_short, expected) in [(true, None), (false, Some(2))] {
        let world = World::with(&[SECOND], WORKS, authorization(0), is_short).await;
        world.spoil_disk();
        let got = world.log_in().await;
        if let Err(refusal) = &got {
            assert!(refusal.text.starts_with("Try later: new tokens could not be stored, so none were asked for: "));
        }
        assert_eq!(got.ok(), expected);
        assert_eq!(world.asked().len(), usize::from(!is_short));
    }
    let world = World::with(&[SECOND], WORKS, authorization(0), true).await;
    assert_eq!(world.log_in().await.ok(), Some(2), "the disk takes it");
}

#[tokio::test]
async fn a_process_that_ends_lets_no_refresh_begin() {
    let world = World::new(&[SECOND], 0).await;
    world.broker.refresher.finish().await;
    let login = world.broker.refresher.bearer(&world.account, Protocol::Imap);
    assert!(timeout(Duration::from_millis(300), login).await.is_err());
    assert_eq!(world.asked().len(), 0);
}

/// An account that is forgotten while its tokens are on their way: whoever waits for them still gets them.
#[tokio::test]
async fn tokens_of_an_account_that_is_gone_are_newer_than_those_before() {
    let world = World::new(&[SECOND], 0).await;
    world.broker.context.vault.forget(ANN).unwrap();
    assert_eq!(world.log_in().await.ok(), Some(2));
}

#[tokio::test]
async fn a_client_of_the_accounts_own_shows_its_secret_each_time() {
    let secrets = Secrets { client_secret: Some(Secret::new(b"my-secret".to_vec())), password: None };
    let authorization = Authorization { client_id: Some("my-client".to_owned()), secrets, ..authorization(0) };
    let world = World::with(&[SECOND, THIRD], WORKS, authorization, false).await;
    assert_eq!((world.renew().await.ok(), world.renew().await.ok()), (Some(2), Some(3)));
    for request in world.asked() {
        assert!(request.contains("client_id=my-client") && request.contains("client_secret=my-secret"), "{request}");
    }
}

#[tokio::test]
async fn a_client_that_registered_itself_and_is_lost_is_registered_again_by_a_person() {
    let discovered = Discovered {
        issuer: "https://example.test".to_owned(),
        endpoints: Endpoints::default(),
        is_registered: false,
        is_self_registered: true,
        methods: ClientMethods::default(),
    };
    let authorization = Authorization { discovered: Some(discovered), ..authorization(0) };
    let lost = (401, r#"{"error":"invalid_client"}"#);
    let world = World::with(&[lost], WORKS, authorization, false).await;
    let refusal = world.log_in().await.unwrap_err();
    assert!(refusal.text.contains("sign in again, which registers it again"), "{}", refusal.text);
}

/// It is read for each request, so somebody may put it right without a word to postkey.
#[tokio::test]
async fn a_secret_that_cannot_be_read_is_tried_again_after_a_minute() {
    let world = World::new(&[SECOND], 0).await;
    let secret = world.folder.path().join("secret");
    std::fs::rename(&secret, secret.with_extension("away")).unwrap();
    let refusal = world.log_in().await.unwrap_err();
    assert!(refusal.text.contains("need care, and then `postkey reload`: "), "{}", refusal.text);
    std::fs::rename(secret.with_extension("away"), &secret).unwrap();
    assert_eq!(world.log_in().await.unwrap_err(), refusal);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!((world.log_in().await.ok(), world.asked().len()), (Some(2), 1));
}
