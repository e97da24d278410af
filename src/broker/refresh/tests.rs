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
use super::super::state::PastFailure;
use super::*;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::config::flow::Flow;
use crate::config::provider::{ClientMethods, Discovered, Endpoints};
use crate::mutex::lock;
use crate::protocol::Mechanism;
use crate::secret::{Secret, Token};
use crate::token::Life;
use crate::vault::password::Password;
use crate::vault::{Authorization, Secrets, Vault};

const ANN: &str = "ann@example.test";
const NOW: Moment = Moment(1_000_000);

const SECOND: (u16, &str) = (200, r#"{"access_token":"access-2","refresh_token":"refresh-2","expires_in":3600}"#);
const THIRD: (u16, &str) = (200, r#"{"access_token":"access-3","refresh_token":"refresh-3","expires_in":3600}"#);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server closes the connection without an answer.
const LOST: (u16, &str) = (0, "");

/// The status with which the server answers a GET request.
const WORKS: u16 = 405;

/// Ann's account, authorized at the server.
struct World {
    broker: Arc<Broker>,
    account: Arc<OpenAccount>,
    /// The requests that the server has received.
    requests: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl World {
    /// The server gives these answers. Ann's first access token is valid for `left` seconds.
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
        let config = Arc::new(Config::load(Some(&file)).expect("a valid configuration"));
        let vault = Vault::open(&config.state_dir).unwrap();
        let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW.0)));
        let broker = Arc::new(Broker::new(config, vault, clock, stores_first));
        let first = Some(("main".to_owned(), Password::generate()));
        let Ok(account) = broker.authorize(authorization, first).await else { panic!("not authorized") };
        let requests = Arc::default();
        tokio::spawn(serve(listener, answers.iter().copied().collect(), front, Arc::clone(&requests)));
        Self { broker, account, requests, folder }
    }

    /// The generation of the token set that a login gets, or its refusal.
    async fn log_in(&self) -> Result<u64, Refusal> {
        let login = self.broker.refresher.bearer(&self.account, Protocol::Imap);
        timeout(PATIENCE, login).await.expect("an answer").map(|current| current.generation)
    }

    async fn renew(&self) -> Result<u64, Refusal> {
        let renewal = self.broker.refresher.renew(&self.account, self.account.generation());
        timeout(PATIENCE, renewal).await.expect("an answer").map(|current| current.generation)
    }

    fn requests(&self) -> Vec<String> {
        lock(&self.requests).clone()
    }

    fn stored(&self) -> Arc<crate::vault::StoredAccount> {
        self.broker.context.vault.account(ANN).unwrap()
    }

    /// Whether the metrics count this outcome so many times.
    fn has_counted(&self, outcome: &str, times: usize) -> bool {
        self.broker.metrics_text().contains(&format!("postkey_refreshes_total{{result=\"{outcome}\"}} {times}\n"))
    }

    /// Makes the vault unable to write its records' files.
    fn break_disk(&self) {
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
    requests: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read(&mut stream).await;
        let (status, body) = match request.starts_with("GET ") {
            true => (front, ""),
            false => answers.pop_front().unwrap_or(LOST),
        };
        lock(&requests).push(request);
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
    let requests = world.requests();
    assert_eq!(requests.len(), 2);
    assert!(
        requests[0].contains("refresh_token=refresh-1") && requests[1].contains("refresh_token=refresh-2"),
        "{requests:?}"
    );
}

/// Clients, people, the vault and the metrics get the same outcome.
#[tokio::test]
async fn a_failed_refresh_says_who_has_to_act() {
    for (status, body, reason, words, outcome) in [
        (400, r#"{"error":"invalid_grant"}"#, Reason::AuthorizationEnded, "Run `postkey authorize ann", "ended"),
        (
            401,
            r#"{"error":"invalid_client"}"#,
            Reason::AuthorizationEnded,
            "The configuration for ann@example.test must be corrected (",
            "misconfigured",
        ),
        (
            400,
            r#"{"error":"invalid_grant","error_codes":[90094]}"#,
            Reason::AuthorizationEnded,
            "An administrator of the provider of ann@example.test must act (",
            "forbidden",
        ),
        (400, "", Reason::Unavailable, "Try later: ", "temporary"),
    ] {
        let world = World::new(&[(status, body)], 0).await;
        // Consumes the review that the authorization asked for.
        timeout(Duration::ZERO, world.broker.notices.changed()).await.unwrap();
        let refusal = world.log_in().await.unwrap_err();
        assert!(refusal.reason == reason && refusal.text.contains(words), "{}", refusal.text);
        assert_eq!(world.log_in().await.unwrap_err(), refusal);
        assert_eq!(world.requests().len(), 1, "a failure counts for a while");
        assert!(world.has_counted(outcome, 1), "{outcome}");
        let status = world.broker.status_of(ANN).unwrap();
        let PastFailure { at, why } = status.last_failure.unwrap();
        assert!(at == NOW && refusal.text.contains(&why), "{why}");
        assert_eq!(status.reason.is_some(), outcome != "temporary");
        let ended = world.stored().ended.clone().map(|ended| (ended.at, ended.why));
        assert_eq!(ended, (outcome == "ended").then_some((NOW, why)));
        let reviewed = timeout(Duration::from_secs(5), world.broker.notices.changed()).await;
        assert!(reviewed.is_ok(), "the notices are reviewed");
    }
}

#[tokio::test]
async fn repeated_refusals_without_a_reason_end_the_authorization_if_the_server_works() {
    for (front, is_end) in [(WORKS, true), (502, false)] {
        let world = World::with(&[], front, authorization(0), false).await;
        for time in 1..=5 {
            let failure = world.broker.refresher.classify(&world.account, "it says no".to_owned()).await;
            match failure {
                Failure::Ended(why) => assert!(time == 5 && is_end && why.starts_with("it says no, again and again")),
                Failure::Temporary(TemporaryCause::Unexplained, why) => {
                    assert!((time < 5 || !is_end) && why == "it says no")
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(world.requests().len(), 1, "the server is checked once");
    }
    let world = World::new(&[(400, "")], 0).await;
    (1..5).for_each(|_| assert!(!world.account.tokens.change(TokenState::count_unexplained)));
    let refusal = world.log_in().await.unwrap_err();
    assert!(refusal.reason == Reason::AuthorizationEnded && refusal.text.contains("again and again"), "{refusal:?}");
}

/// A client whose token still works does not wait for a retry. A lost answer may have contained the next refresh token.
#[tokio::test]
async fn a_failed_request_is_repeated_for_a_client_that_waits() {
    const DOWN: (u16, &str) = (503, "");
    for (left, is_refused, answers, expected) in [
        (0, false, [DOWN, SECOND], 2),
        (100, false, [DOWN, SECOND], 1),
        (100, true, [DOWN, SECOND], 2),
        (100, false, [LOST, SECOND], 2),
        (100, false, [(400, ""), SECOND], 1),
    ] {
        let world = World::new(&answers, left).await;
        if is_refused {
            let (mailbox, refusal) = (world.account.mailbox(Protocol::Imap), Refusal::new(Reason::TokenRefused, "no"));
            let now = Instant::now();
            world.account.tokens.change(|state| state.refused(&mailbox, 1, &[Mechanism::XOAuth2], &refusal, now));
        }
        assert_eq!(world.renew().await.ok(), (expected == 2).then_some(2), "{answers:?}");
        assert_eq!(world.requests().len(), expected, "{answers:?}");
    }
}

#[tokio::test]
async fn a_process_that_ends_soon_requests_no_tokens_that_it_cannot_store() {
    for (is_short, expected) in [(true, None), (false, Some(2))] {
        let world = World::with(&[SECOND], WORKS, authorization(0), is_short).await;
        world.break_disk();
        let got = world.log_in().await;
        if let Err(refusal) = &got {
            assert!(
                refusal
                    .text
                    .starts_with("Try later: postkey requested no new tokens, because it could not store them: ")
            );
        }
        assert_eq!(got.ok(), expected);
        assert_eq!(world.requests().len(), usize::from(!is_short));
    }
    let world = World::with(&[SECOND], WORKS, authorization(0), true).await;
    assert_eq!(world.log_in().await.ok(), Some(2), "the disk works");
}

#[tokio::test]
async fn a_process_that_ends_begins_no_refresh() {
    let world = World::new(&[SECOND], 0).await;
    world.broker.refresher.finish().await;
    let login = world.broker.refresher.bearer(&world.account, Protocol::Imap);
    assert!(timeout(Duration::from_millis(300), login).await.is_err());
    assert_eq!(world.requests().len(), 0);
}

/// An account may be forgotten during its refresh. The logins that wait for the tokens still get them.
#[tokio::test]
async fn a_refresh_of_a_forgotten_account_still_brings_new_tokens() {
    let world = World::new(&[SECOND], 0).await;
    world.broker.context.vault.forget(ANN).unwrap();
    assert_eq!(world.log_in().await.ok(), Some(2));
}

#[tokio::test]
async fn an_accounts_own_client_sends_its_secret_each_time() {
    let secrets = Secrets { client_secret: Some(Secret::new(b"my-secret".to_vec())), grant_secret: None };
    let authorization = Authorization { client_id: Some("my-client".to_owned()), secrets, ..authorization(0) };
    let world = World::with(&[SECOND, THIRD], WORKS, authorization, false).await;
    assert_eq!((world.renew().await.ok(), world.renew().await.ok()), (Some(2), Some(3)));
    for request in world.requests() {
        assert!(request.contains("client_id=my-client") && request.contains("client_secret=my-secret"), "{request}");
    }
}

#[tokio::test]
async fn a_lost_self_registration_asks_for_a_new_sign_in() {
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

/// The secret is read for each request, so it can be corrected without a reload.
#[tokio::test]
async fn a_secret_that_cannot_be_read_is_tried_again_after_a_minute() {
    let world = World::new(&[SECOND], 0).await;
    let secret = world.folder.path().join("secret");
    std::fs::rename(&secret, secret.with_extension("away")).unwrap();
    let refusal = world.log_in().await.unwrap_err();
    assert!(refusal.text.contains("must be corrected ("), "{}", refusal.text);
    std::fs::rename(secret.with_extension("away"), &secret).unwrap();
    assert_eq!(world.log_in().await.unwrap_err(), refusal);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!((world.log_in().await.ok(), world.requests().len()), (Some(2), 1));
}

/// How many pauses there are between requests that fail for these reasons.
fn pauses(causes: &[TemporaryCause]) -> usize {
    let mut tries = Tries::begin();
    causes.iter().map_while(|cause| tries.pause(*cause)).count()
}

#[tokio::test]
async fn a_request_is_repeated_a_few_times() {
    use TemporaryCause::{Faulty, Lasting, Lost, Unreachable};
    assert_eq!(pauses(&[Faulty; 9]), 2);
    assert_eq!(pauses(&[Unreachable; 9]), 2);
    assert_eq!(pauses(&[Lost; 9]), 1, "after a lost answer, the request is repeated once");
    assert_eq!(pauses(&[Lost, Faulty, Faulty]), 2);
    assert_eq!(pauses(&[Lasting(None); 9]), 0);
}

#[tokio::test(start_paused = true)]
async fn the_pause_before_a_request_doubles() {
    let mut tries = Tries::begin();
    for longest in [PAUSE, PAUSE * 2] {
        let pause = tries.pause(TemporaryCause::Faulty).unwrap();
        assert!((longest * 3 / 4..=longest).contains(&pause), "{pause:?}");
    }
    assert_eq!(tries.pause(TemporaryCause::Faulty), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_repeated_once_the_client_has_waited_too_long() {
    let mut tries = Tries::begin();
    tokio::time::advance(LAST_TRY).await;
    assert_eq!(tries.pause(TemporaryCause::Unreachable), None);
    assert_eq!(Tries { was_lost: false, ..tries }.pause(TemporaryCause::Lost), Some(Duration::ZERO));
}
