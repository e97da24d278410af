//! Clients that have not logged in: which of them may connect, what they can use, and what the log says about them.

use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use postkey::vault::password::Password;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::house::{ANN, House, PATIENCE, Way, accepted, skip};
use crate::users::{MALLORY, as_user, can_be_others, is_in, log_in_as};

/// The lines of the log that contain these words.
fn lines<'a>(log: &'a str, words: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(words)).collect()
}

/// A house whose postkey is a separate process, so that its log can be read.
async fn logging() -> (House, crate::support::process::Process) {
    let mut house = House::furnished(Security::Tls, |config| format!("log = \"info\"\n{config}")).await;
    let process = house.serve().await;
    (house, process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_user_who_may_not_come_in_is_gone_before_tls() {
    if !can_be_others() {
        return;
    }
    let allow = |config: String| {
        let (listeners, provider) = config.split_once("[provider").unwrap();
        let listeners = listeners.replace("security = ", "allow_uids = [0]\nsecurity = ");
        format!("{listeners}[provider{provider}")
    };
    let house = House::with(Security::Tls, allow).await;
    for protocol in Protocol::ALL {
        // Nobody begins a handshake, so only postkey can end this in less than ten seconds.
        let heard = timeout(PATIENCE / 3, as_user(MALLORY, house.port(protocol, Security::Tls), &[])).await;
        assert_eq!(heard.as_deref(), Ok(""), "{protocol}");
        let reply = house.program(protocol, Security::Tls).await.log_in(Way::Plain, ANN, &house.password).await;
        assert!(accepted(protocol, &reply), "{reply}");
    }
}

/// Three times as many connections as postkey has places for one source.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let mut house = House::furnished(Security::Tls, |config| config).await;
    // 35 places, eight of them for one source.
    let process = house.serve_by("ulimit -n 700").await;
    let mut session = house.logged_in(Protocol::Imap).await;
    let mut crowd = JoinSet::new();
    for number in 0..60 {
        let port = house.port(Protocol::ALL[number % 3], Security::Clear);
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        crowd.spawn(async move { socket.read_to_end(&mut Vec::new()).await.map(drop) });
    }
    // All but eight, so that none of them still waits to be accepted and takes the place of the next one.
    for _ in 0..52 {
        let ended = timeout(PATIENCE, crowd.join_next()).await;
        assert!(ended.is_ok(), "the oldest make room");
    }
    for protocol in Protocol::ALL {
        let reply = house.try_login(protocol).await;
        assert!(accepted(protocol, &reply), "{reply}");
        if can_be_others() {
            let heard = log_in_as(MALLORY, &house, protocol, &house.password).await;
            assert!(is_in(protocol, &heard), "{heard}");
        }
    }
    session.prove().await;
    drop(process);
}

/// The first 16,000 bytes of a hello that claims to have 64 KiB, in records of this size.
fn endless_hello(record: u16) -> Vec<u8> {
    let (mut bytes, mut message) = (Vec::new(), b"\x01\x00\xff\xf0\x03\x03".to_vec());
    message.resize(0xfff4, 0);
    for piece in message.chunks(record.into()) {
        bytes.extend(b"\x16\x03\x01");
        bytes.extend(record.to_be_bytes());
        bytes.extend(piece);
    }
    bytes.truncate(16_000);
    bytes
}

/// TLS would buffer all of it until it is complete. What clients send is 2 KB long.
#[tokio::test]
async fn a_tls_handshake_that_grows_too_long_is_ended() {
    let house = House::with(Security::Tls, |config| config).await;
    for (protocol, record) in Protocol::ALL.into_iter().zip([16_384, 4096, 100]) {
        let mut client = TcpStream::connect(("127.0.0.1", house.port(protocol, Security::Tls))).await.unwrap();
        client.write_all(&endless_hello(record)).await.unwrap();
        let ended = timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{protocol}: more of it is waited for");
    }
}

/// A Unix socket holds 200 KB for a client that does not read; a network holds less.
#[tokio::test]
async fn a_client_that_does_not_read_has_a_minute_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("imap");
    let listener = format!("[[listener]]\nprotocol = \"imap\"\naddress = {path:?}\n");
    let house = House::with(Security::Tls, |config| format!("{config}\n{listener}")).await;
    let mut client = UnixStream::connect(&path).await.unwrap();
    // postkey reads no more from them once they do not read its answers.
    let commands = b"a CAPABILITY\r\n".repeat(40_000);
    assert!(timeout(Duration::from_secs(1), client.write_all(&commands)).await.is_err());
    skip(Duration::from_secs(61)).await;
    // They do not read its goodbye either.
    skip(Duration::from_secs(3)).await;
    let mut heard = Vec::new();
    let ended = timeout(PATIENCE, client.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "the connection is still there");
    assert!(heard.len() < 300_000, "what it hears now was sent before, and nobody answers any more");
    drop(house);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_password_in_the_wrong_field_is_not_logged() {
    let (house, process) = logging().await;
    let (generated, other) = (house.password.clone(), String::from_utf8(Password::generate().expose()).unwrap());
    let misplaced =
        [&*generated, &generated.to_uppercase(), &format!("{other}@example.test"), "correct horse", "Geheim!"];
    for name in misplaced {
        let reply = house.program(Protocol::Imap, Security::Clear).await.log_in(Way::Plain, name, ANN).await;
        assert!(!accepted(Protocol::Imap, &reply));
    }
    for name in [ANN, "nobody@example.test"] {
        house.program(Protocol::Imap, Security::Clear).await.log_in(Way::Plain, name, &other).await;
    }
    let log = process.terminate().err;
    for name in misplaced {
        assert!(!log.contains(name), "{name}: {log}");
    }
    let refused = lines(&log, " refused after ");
    assert_eq!(refused.len(), 7, "{log}");
    assert_eq!(refused.iter().filter(|line| line.contains("login of ? (13 bytes) by IMAP from")).count(), 1, "{log}");
    for name in [ANN, "nobody@example.test"] {
        assert_eq!(lines(&log, &format!("login of {name} by IMAP from 127.0.0.1 refused")).len(), 1, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_has_ten_refusals_a_minute_of_one_source() {
    let (house, process) = logging().await;
    for _ in 0..8 {
        let mut program = house.program(Protocol::Pop3, Security::Clear).await;
        for _ in 0..3 {
            let wrong = String::from_utf8(Password::generate().expose()).unwrap();
            program.log_in(Way::Plain, ANN, &wrong).await;
        }
    }
    let log = process.terminate().err;
    assert_eq!(lines(&log, " refused after ").len(), 10, "{log}");
}

/// What a client sends that does not succeed, and the log's words about it, once for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_tells_once_why_tls_did_not_work() {
    /// A record with the beginning of a hello of TLS 1.0.
    const HELLO: &[u8] = b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x01";
    /// The hello of SSL 2.0 that offers TLS 1.0.
    const OLD_HELLO: &[u8] = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10";
    let cases: [(Security, &[u8], &str); 4] = [
        (Security::Tls, b"GET / HTTP/1.1\r\n\r\n", "TLS handshake for "),
        (Security::Tls, b"a NOOP\r\nb NOOP\r\n", "TLS handshake for "),
        (Security::Clear, HELLO, "TLS from 127.0.0.1 on a port for "),
        (Security::Clear, OLD_HELLO, "TLS from 127.0.0.1 on a port for "),
    ];
    for (security, sent, words) in cases {
        let (house, process) = logging().await;
        for protocol in [Protocol::Imap, Protocol::Pop3, Protocol::Smtp] {
            let mut client = TcpStream::connect(("127.0.0.1", house.port(protocol, security))).await.unwrap();
            client.write_all(sent).await.unwrap();
            // It ends at once, not after the client's minute.
            timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.unwrap().unwrap_or_default();
        }
        let log = process.terminate().err;
        assert_eq!(lines(&log, words).len(), 1, "{log}");
    }
}

/// Monitoring connects and disconnects, once a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_probe_of_a_tls_port_is_not_a_failed_handshake() {
    let (house, process) = logging().await;
    for protocol in Protocol::ALL {
        let mut client = TcpStream::connect(("127.0.0.1", house.port(protocol, Security::Tls))).await.unwrap();
        client.shutdown().await.unwrap();
        timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.unwrap().unwrap_or_default();
    }
    let log = process.terminate().err;
    assert!(lines(&log, "TLS handshake").is_empty(), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_look_at_the_control_socket_leaves_no_warning() {
    let (house, process) = logging().await;
    for _ in 0..3 {
        drop(UnixStream::connect(&house.config.control_socket).await.unwrap());
        // A command whose user does not wait for its answer.
        let mut command = UnixStream::connect(&house.config.control_socket).await.unwrap();
        command.write_all(b"?\n").await.unwrap();
    }
    assert_eq!(house.run_beside(&["status"], "").await.code, Some(0));
    let log = process.terminate().err;
    assert!(lines(&log, "control socket").is_empty(), "{log}");
}
