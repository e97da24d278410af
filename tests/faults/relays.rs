//! Sessions with one dead half.

use std::io::ErrorKind;
use std::time::Duration;

use postkey::net::transport::Transport;
use postkey::protocol::{Protocol, Security};
use postkey::relay::{Ending, Relayed, Side, relay};
use postkey::shutdown::ShutdownSender;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::Servers;
use crate::support::house::{rest, skip, until};

/// The end of a postkey that runs until it is stopped.
fn ending(shutdown: &ShutdownSender) -> Ending {
    Ending { shutdown: shutdown.subscribe(), limit: SENDING, farewell: b"", removed: Box::pin(std::future::pending()) }
}

/// How long a relay may take to end when postkey stops.
const SENDING: Duration = Duration::from_secs(30);

/// How long a direction may be silent after the other has ended.
const HALF: Duration = Duration::from_secs(600);

/// How long a peer may not read.
const BLOCKED: Duration = Duration::from_secs(1800);

/// The two peers of a relay, and the relay.
async fn relayed() -> (TcpStream, TcpStream, JoinHandle<(Relayed, std::io::Result<()>)>) {
    relayed_until(Box::leak(Box::default())).await
}

async fn relayed_until(
    shutdown: &ShutdownSender,
) -> (TcpStream, TcpStream, JoinHandle<(Relayed, std::io::Result<()>)>) {
    let (client, near) = connected().await;
    let (server, far) = connected().await;
    let side = |socket| Side { transport: Transport::new(socket).unwrap(), rest: Vec::new() };
    (client, server, tokio::spawn(relay(side(near), side(far), ending(shutdown))))
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

async fn is_over(peer: &mut TcpStream) -> bool {
    let end = timeout(Duration::from_secs(5), peer.read(&mut [0])).await;
    matches!(end, Ok(Ok(0) | Err(_)))
}

/// How long a provider may be silent after it has answered a client that has ended its half.
const ANSWERED: Duration = Duration::from_secs(30);

/// How long a provider may take for what a client has requested that has disconnected since.
const UNHEARD: Duration = Duration::from_secs(5);

/// Whether the peer receives no end, once everything that was on the way has reached it.
async fn hears_no_end(peer: &mut TcpStream) -> bool {
    rest().await;
    peer.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

async fn hears(peer: &mut TcpStream, words: &[u8]) {
    let mut heard = vec![0; words.len()];
    timeout(Duration::from_secs(5), peer.read_exact(&mut heard)).await.expect("words").unwrap();
    assert_eq!(heard, words);
}

#[tokio::test]
async fn silence_after_the_providers_end_has_an_end() {
    let (mut client, mut server, relay) = relayed().await;
    server.shutdown().await.unwrap();
    assert!(is_over(&mut client).await);
    skip(HALF - Duration::from_secs(5)).await;
    assert!(!relay.is_finished(), "the client may go on");
    skip(Duration::from_secs(10)).await;
    let (_, result) = timeout(Duration::from_secs(5), relay).await.expect("an end").unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(is_over(&mut server).await);
    assert!(client.write_all(b"x").await.is_err() || is_over(&mut client).await);
}

#[tokio::test]
async fn a_client_that_has_asked_nothing_waits_for_no_answer() {
    let (mut client, mut server, relay) = relayed().await;
    client.shutdown().await.unwrap();
    assert!(is_over(&mut server).await);
    server.write_all(b"* BYE\r\n").await.unwrap();
    drop(server);
    hears(&mut client, b"* BYE\r\n").await;
    assert!(is_over(&mut client).await);
    relay.await.unwrap().1.unwrap();
}

#[tokio::test]
async fn what_was_asked_before_a_half_close_may_take_its_time() {
    for asked in [&b"DATA\r\n.\r\n"[..], b"BDAT 5 LAST\r\nmails", b"quit\r\n", b"a logout\r\n", b"x SEARCH BODY x\r\n"]
    {
        let (mut client, mut server, relay) = relayed().await;
        client.write_all(asked).await.unwrap();
        client.shutdown().await.unwrap();
        hears(&mut server, asked).await;
        skip(HALF - Duration::from_secs(5)).await;
        assert!(hears_no_end(&mut server).await, "{}", String::from_utf8_lossy(asked));
        server.write_all(b"250 taken\r\n221 bye\r\n").await.unwrap();
        drop(server);
        hears(&mut client, b"250 taken\r\n221 bye\r\n").await;
        assert!(is_over(&mut client).await);
        relay.await.unwrap().1.unwrap();
    }
}

#[tokio::test]
async fn a_provider_that_was_told_goodbye_ends_by_itself() {
    for pieces in
        [&[&b"MAIL FROM:<>\r\nQUIT\r\n"[..]][..], &[b"STAT\r\nQu", b"iT\r", b"\n"], &[b"a SELECT x\r\nb LogOut\r\n"]]
    {
        let (mut client, mut server, _relay) = relayed().await;
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            hears(&mut server, piece).await;
        }
        client.shutdown().await.unwrap();
        server.write_all(b"250 the first answer\r\n").await.unwrap();
        hears(&mut client, b"250 the first answer\r\n").await;
        skip(HALF - Duration::from_secs(5)).await;
        assert!(hears_no_end(&mut server).await);
        server.write_all(b"250 the last\r\n").await.unwrap();
        drop(server);
        hears(&mut client, b"250 the last\r\n").await;
    }
}

#[tokio::test]
async fn a_provider_that_has_answered_is_left_after_a_while() {
    for unfinished in [true, false] {
        let (mut client, mut server, relay) = relayed().await;
        client.write_all(b"NOOP\r\n").await.unwrap();
        hears(&mut server, b"NOOP\r\n").await;
        client.shutdown().await.unwrap();
        server.write_all(if unfinished { b"250-o" } else { b"250 ok\r\n" }).await.unwrap();
        hears(&mut client, if unfinished { b"250-o" } else { b"250 ok\r\n" }).await;
        // Once to check whether anybody is there, and then for the rest of the silence.
        for _ in 0..2 {
            assert!(hears_no_end(&mut server).await, "the client waits");
            skip(ANSWERED - Duration::from_secs(5)).await;
        }
        skip(Duration::from_secs(10)).await;
        if unfinished {
            assert!(hears_no_end(&mut server).await, "half a line is no answer");
            continue;
        }
        assert!(is_over(&mut server).await);
        server.write_all(b"250 and this\r\n").await.unwrap();
        hears(&mut client, b"250 and this\r\n").await;
        drop(server);
        relay.await.unwrap().1.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_is_gone_altogether_is_not_waited_for() {
    for asked in [&b""[..], b"QUIT\r\n", b"BDAT 4 LAST\r\nmail"] {
        let (mut client, mut server, relay) = relayed().await;
        client.write_all(asked).await.unwrap();
        drop(client);
        hears(&mut server, asked).await;
        if !asked.is_empty() {
            assert!(hears_no_end(&mut server).await, "it may take a moment to do what it was told");
            skip(UNHEARD + Duration::from_secs(1)).await;
        }
        assert!(is_over(&mut server).await);
        drop(server);
        relay.await.unwrap().1.unwrap();
    }
}

/// Exim pipelines QUIT after the mail's end and half-closes. The answer to MAIL is not the answer to the mail.
#[tokio::test]
async fn a_stop_waits_for_the_mail_of_a_client_that_has_ended_its_half() {
    let shutdown = ShutdownSender::default();
    let (mut client, mut server, relay) = relayed_until(&shutdown).await;
    client.write_all(b"MAIL\r\nBDAT 4 LAST\r\nmail").await.unwrap();
    client.shutdown().await.unwrap();
    hears(&mut server, b"MAIL\r\nBDAT 4 LAST\r\nmail").await;
    server.write_all(b"250 sender ok\r\n").await.unwrap();
    hears(&mut client, b"250 sender ok\r\n").await;
    shutdown.send();
    skip(SENDING - Duration::from_secs(1)).await;
    assert!(hears_no_end(&mut server).await, "the mail is under way");
    server.write_all(b"250 taken\r\n").await.unwrap();
    drop(server);
    hears(&mut client, b"250 taken\r\n").await;
    relay.await.unwrap().1.unwrap();
}

#[tokio::test]
async fn a_provider_that_never_answers_is_left_in_the_end() {
    let (mut client, mut server, relay) = relayed().await;
    client.write_all(b"NOOP\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    hears(&mut server, b"NOOP\r\n").await;
    for wait in [UNHEARD, HALF] {
        assert!(hears_no_end(&mut server).await);
        skip(wait + Duration::from_secs(5)).await;
    }
    assert!(is_over(&mut server).await);
    assert!(!relay.is_finished(), "it may have been deaf to what was asked until now");
    skip(HALF + Duration::from_secs(5)).await;
    let (_, result) = timeout(Duration::from_secs(5), relay).await.expect("an end").unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_half_close_that_moves_bytes_goes_on() {
    let (mut client, mut server, relay) = relayed().await;
    client.write_all(b"FETCH\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    hears(&mut server, b"FETCH\r\n").await;
    for _ in 0..20 {
        skip(HALF - Duration::from_secs(5)).await;
        server.write_all(b"x").await.unwrap();
        let byte = timeout(Duration::from_secs(5), client.read_u8()).await.expect("what the server says").unwrap();
        assert_eq!(byte, b'x');
    }
    drop(server);
    let (relayed, result) = relay.await.unwrap();
    result.unwrap();
    assert_eq!((relayed.up, relayed.down), (7, 20));
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_not_waited_for_for_ever() {
    let (client, server, relay) = relayed().await;
    // More than all buffers on the way can hold.
    let piece = vec![0; 1 << 20];
    let mut is_full = false;
    while !is_full {
        rest().await;
        is_full = client.try_write(&piece).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    }
    drop(client);
    skip(BLOCKED - Duration::from_secs(60)).await;
    assert!(!relay.is_finished(), "it may be busy");
    skip(Duration::from_secs(120)).await;
    assert!(timeout(Duration::from_secs(5), relay).await.is_ok());
    drop(server);
}

#[tokio::test]
async fn silence_of_both_sides_does_not_end_a_session() {
    let (mut client, mut server, relay) = relayed().await;
    skip(Duration::from_secs(7 * 24 * 3600)).await;
    assert!(!relay.is_finished());
    server.write_all(b"x").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
}

/// The system notices a peer that has vanished: after 2 to 4 minutes it probes five times, 20 to 40 seconds apart.
/// Its default is two hours.
#[tokio::test]
async fn both_legs_of_a_session_have_keepalive() {
    let servers = Servers::start(Security::Tls).await;
    let house = servers.house().await;
    let _session = house.logged_in(Protocol::Imap).await;
    let client_leg = || keepalive(|local, _| local == house.port(Protocol::Imap, Security::Clear));
    let provider_leg = || keepalive(|_, remote| remote == servers.ports[Protocol::Imap as usize]);
    // While bytes are on the way, another timer runs.
    let is_set = |seconds: Option<u64>| seconds.is_some_and(|seconds| (80..=240).contains(&seconds));
    until("keepalive towards the client", async || is_set(client_leg())).await;
    until("keepalive towards the provider", async || is_set(provider_leg())).await;
}

/// The seconds until the system probes the peer, on the connection with these ports (proc(5)).
fn keepalive(is_it: impl Fn(u16, u16) -> bool) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(&address[address.len() - 4..], 16).unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut connected = lines.filter(|fields| fields[3] == "01");
    let found = connected.find(|fields| is_it(port(fields[1]), port(fields[2])))?;
    // The kind of the timer, 2 for keepalive, and its time in hundredths of a second.
    let (timer, left) = found[5].split_once(':').unwrap();
    (timer == "02").then(|| u64::from_str_radix(left, 16).unwrap() / 100)
}
