//! Sessions of which one half is dead.

use std::time::Duration;

use postkey::net::transport::Transport;
use postkey::protocol::{Protocol, Security};
use postkey::relay::{Ending, Relayed, Side, relay};
use postkey::stop::Stopping;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::Servers;
use crate::support::house::{skip, until};

/// The end of a postkey that does not end.
fn ending() -> Ending {
    let stopping: &'static Stopping = Box::leak(Box::default());
    Ending {
        stop: stopping.listener(),
        limit: std::time::Duration::ZERO,
        farewell: b"",
        withdrawn: Box::pin(std::future::pending()),
    }
}

/// How long a direction may be silent after the other has ended.
const HALF: Duration = Duration::from_secs(600);

/// How long a peer may refuse bytes.
const BLOCKED: Duration = Duration::from_secs(1800);

/// The two peers of a relay, and the relay.
async fn relayed() -> (TcpStream, TcpStream, JoinHandle<(Relayed, std::io::Result<()>)>) {
    let (client, near) = connected().await;
    let (server, far) = connected().await;
    let side = |socket| Side { transport: Transport::new(socket).unwrap(), rest: Vec::new() };
    (client, server, tokio::spawn(relay(side(near), side(far), ending())))
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

#[tokio::test]
async fn silence_after_a_half_close_has_an_end() {
    for client_ends in [true, false] {
        let (client, server, relay) = relayed().await;
        let (mut ending, mut silent) = if client_ends { (client, server) } else { (server, client) };
        ending.shutdown().await.unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        skip(HALF - Duration::from_secs(5)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!relay.is_finished(), "it may still answer");
        skip(Duration::from_secs(10)).await;
        let (_, result) = timeout(Duration::from_secs(5), relay).await.expect("an end").unwrap();
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        assert!(is_over(&mut ending).await);
        assert!(silent.write_all(b"x").await.is_err() || is_over(&mut silent).await);
    }
}

#[tokio::test]
async fn a_half_close_that_moves_bytes_goes_on() {
    let (mut client, mut server, relay) = relayed().await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    for _ in 0..20 {
        skip(HALF - Duration::from_secs(5)).await;
        server.write_all(b"x").await.unwrap();
        let byte = timeout(Duration::from_secs(5), client.read_u8()).await.expect("what the server says").unwrap();
        assert_eq!(byte, b'x');
    }
    drop(server);
    let (relayed, result) = relay.await.unwrap();
    result.unwrap();
    assert_eq!((relayed.up, relayed.down), (0, 20));
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_not_waited_for_for_ever() {
    let (mut client, server, relay) = relayed().await;
    // More than all buffers on the way hold.
    let flood = async {
        let piece = vec![0; 1 << 20];
        while let Ok(sent) = timeout(Duration::from_millis(300), client.write(&piece)).await {
            sent.unwrap();
        }
    };
    flood.await;
    drop(client);
    skip(BLOCKED - Duration::from_secs(60)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!relay.is_finished(), "it may be busy");
    skip(Duration::from_secs(120)).await;
    assert!(timeout(Duration::from_secs(5), relay).await.is_ok());
    drop(server);
}

#[tokio::test]
async fn silence_of_both_is_nobodys_business() {
    let (mut client, mut server, relay) = relayed().await;
    skip(Duration::from_secs(7 * 24 * 3600)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!relay.is_finished());
    server.write_all(b"x").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
}

/// Who has vanished without a word is noticed by the system: after 2 to 4 minutes it asks, five times, 20 to 40 seconds apart.
/// Two hours are its default.
#[tokio::test]
async fn both_legs_of_a_session_have_keepalive() {
    let servers = Servers::start(Security::Tls).await;
    let house = servers.house().await;
    let _session = house.logged_in(Protocol::Imap).await;
    let client_leg = || keepalive(|local, _| local == house.port(Protocol::Imap, Security::Clear));
    let provider_leg = || keepalive(|_, remote| remote == servers.ports[Protocol::Imap as usize]);
    // While there are bytes on the way, another timer runs.
    let is_set = |seconds: Option<u64>| seconds.is_some_and(|seconds| (80..=240).contains(&seconds));
    until("keepalive towards the client", async || is_set(client_leg())).await;
    until("keepalive towards the provider", async || is_set(provider_leg())).await;
}

/// The seconds until the system asks whether the peer is still there, on the connection with these ports (proc(5)).
fn keepalive(is_it: impl Fn(u16, u16) -> bool) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(&address[address.len() - 4..], 16).unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut connected = lines.filter(|fields| fields[3] == "01");
    let found = connected.find(|fields| is_it(port(fields[1]), port(fields[2])))?;
    // Which timer runs, 2 being keepalive's, and for how many hundredths of a second.
    let (timer, left) = found[5].split_once(':').unwrap();
    (timer == "02").then(|| u64::from_str_radix(left, 16).unwrap() / 100)
}
