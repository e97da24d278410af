//! The bytes after the login, between a mail program and a server that sends whatever a test wants.

use std::time::Duration;

use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use crate::support::house::{ANN, House, PATIENCE, Program, SECURITIES, Way};

type Server = BufReader<TlsStream<TcpStream>>;

/// A house with one of our IMAP servers, and that server's port.
async fn house_with_own_server() -> (House, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let house = House::with(Security::Tls, |config| {
        let (before, imap) = config.split_once("[provider.own.imap]\n").unwrap();
        let (_, after) = imap.split_once("[provider.own.pop3]").unwrap();
        format!("{before}[provider.own.imap]\nhost = \"localhost\"\nport = {port}\n[provider.own.pop3]{after}")
    })
    .await;
    (house, listener)
}

/// A mail program and the server, logged in to each other; `behind` came together with the server's acceptance.
pub(super) async fn pair(security: Security, behind: &str) -> (House, Program, Server) {
    let (house, listener) = house_with_own_server().await;
    let mut program = house.program(Protocol::Imap, security).await;
    program.client.say(&format!("a LOGIN {ANN} {}", house.password)).await;
    let (socket, _) = listener.accept().await.unwrap();
    let mut server = BufReader::new(house.provider.acceptor().accept(socket).await.unwrap());
    server.write_all(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n").await.unwrap();
    let mut line = String::new();
    server.read_line(&mut line).await.unwrap();
    let (tag, command) = line.split_once(' ').unwrap();
    assert!(command.starts_with("AUTHENTICATE XOAUTH2 "), "{line}");
    server.write_all(format!("{tag} OK [CAPABILITY IMAP4rev1] yes\r\n{behind}").as_bytes()).await.unwrap();
    server.flush().await.unwrap();
    program.client.expect("a OK").await;
    (house, program, server)
}

/// Bytes that show if one is missing, doubled or moved (xorshift64).
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(next).collect()
}

async fn send(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) {
    let mut sizes = noise(4096, 7).into_iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        // Single bytes, records, and everything between.
        let size = 1usize << (sizes.next().unwrap() % 18);
        let (piece, later) = rest.split_at(rest.len().min(size));
        to.write_all(piece).await.unwrap();
        to.flush().await.unwrap();
        rest = later;
    }
}

async fn receive(mut from: impl AsyncRead + Unpin, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    tokio::time::timeout(PATIENCE, from.read_exact(&mut bytes)).await.expect("all of it in time").unwrap();
    bytes
}

async fn receive_all(from: &mut Server) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, from.read_to_end(&mut bytes)).await.expect("an end in time").unwrap();
    bytes
}

#[tokio::test]
async fn what_the_server_sends_behind_its_yes_arrives_once() {
    let (_house, mut program, mut server) = pair(Security::Clear, "* 1 EXISTS\r\n* 2 EXISTS\r\n").await;
    server.write_all(b"* 3 EXISTS\r\n").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(program.client.rest().await, b"* 1 EXISTS\r\n* 2 EXISTS\r\n* 3 EXISTS\r\n");
}

#[tokio::test]
async fn much_in_pieces_of_any_size_arrives_bit_for_bit_both_ways_at_once() {
    for security in [Security::Clear, Security::Tls] {
        let (_house, program, server) = pair(security, "").await;
        let (up, down) = (noise(2_000_003, 1), noise(3_000_017, 2));
        let (client_reads, client_writes) = tokio::io::split(program.client.into_stream());
        let (server_reads, server_writes) = tokio::io::split(server);
        let ((), (), went_up, came_down) = tokio::join!(
            send(client_writes, &up),
            send(server_writes, &down),
            receive(server_reads, up.len()),
            receive(client_reads, down.len()),
        );
        assert!(went_up == up && came_down == down, "{security:?}");
    }
}

/// Many servers treat close_notify as the end of both directions, and answer nothing after it.
#[tokio::test]
async fn a_client_that_has_nothing_more_to_say_still_hears_the_answer() {
    for security in SECURITIES {
        let (_house, mut program, mut server) = pair(security, "").await;
        program.client.send(b"a NOOP\r\nb LOGOUT\r\n").await;
        program.client.finish().await;
        assert_eq!(receive(&mut server, 18).await, b"a NOOP\r\nb LOGOUT\r\n");
        let end = tokio::time::timeout(Duration::from_millis(300), server.read(&mut [0])).await;
        assert!(end.is_err(), "{security:?}: the provider hears an end before it has answered");
        let answer = noise(300_000, 3);
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
        assert!(program.client.rest().await == answer, "{security:?}");
        assert_eq!(receive_all(&mut server).await, b"");
    }
}

#[tokio::test]
async fn a_server_that_has_nothing_more_to_say_still_hears_the_client() {
    let (_house, mut program, mut server) = pair(Security::Clear, "").await;
    server.write_all(b"* BYE\r\n").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(program.client.rest().await, b"* BYE\r\n");
    let words = noise(300_000, 4);
    program.client.send(&words).await;
    program.client.finish().await;
    assert!(receive_all(&mut server).await == words);
}

#[tokio::test]
async fn the_end_of_one_side_ends_the_other() {
    for security in [Security::Clear, Security::StartTls, Security::Tls] {
        let (_house, mut program, server) = pair(security, "").await;
        drop(server);
        assert!(program.client.is_closed().await, "{security:?}: the provider has left");

        let (_house, program, mut server) = pair(security, "").await;
        drop(program);
        let end = tokio::time::timeout(PATIENCE, server.read(&mut [0])).await.expect("an end in time");
        assert!(matches!(end, Ok(0) | Err(_)), "{security:?}: the client has left");
    }
}

/// An end without close_notify is an error in many servers' logs.
#[tokio::test]
async fn a_client_that_resets_its_connection_ends_it_in_good_order_at_the_provider() {
    let (_house, mut program, mut server) = pair(Security::Clear, "").await;
    server.write_all(&noise(100_000, 6)).await.unwrap();
    server.flush().await.unwrap();
    // Its system sends RST, because there are bytes that it has not read.
    program.client.exactly(1).await;
    drop(program);
    let end = tokio::time::timeout(PATIENCE, server.read(&mut [0])).await.expect("an end in time");
    assert_eq!(end.expect("close_notify"), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_server() {
    /// The most that two connections' socket buffers can hold here, with some room: about 10 MiB each.
    const MOST: usize = 48 * 1024 * 1024;
    let (_house, mut program, mut server) = pair(Security::Clear, "").await;
    let piece = noise(256 * 1024, 5);
    let mut sent = 0;
    // On a machine so slow that it pauses for this long, the test is only less strict.
    while let Ok(size) =
        tokio::time::timeout(Duration::from_millis(500), server.write(&piece[sent % piece.len()..])).await
    {
        sent += size.unwrap();
        assert!(sent < MOST, "somebody takes everything");
    }
    let receive_all = async {
        let mut received = 0;
        while received < sent {
            let size = (sent - received).min(piece.len() - received % piece.len());
            let bytes = program.client.exactly(size).await;
            assert!(bytes == piece[received % piece.len()..][..size]);
            received += size;
        }
    };
    let (flushed, ()) = tokio::join!(server.flush(), receive_all);
    flushed.unwrap();
    // It continues in both directions.
    program.client.send(b"x").await;
    assert_eq!(receive(&mut server, 1).await, b"x");
}

#[tokio::test]
async fn new_mail_reaches_a_client_that_idles() {
    let house = House::open().await;
    let mut program = house.program(Protocol::Imap, Security::Tls).await;
    program.log_in(Way::Own, ANN, &house.password).await;
    program.client.run("a SELECT INBOX").await;
    program.client.say("a IDLE").await;
    program.client.expect("+ ").await;
    for count in 1..=3 {
        assert!(house.provider.deliver(ANN, b"news\r\n"));
        program.client.expect(&format!("* {count} EXISTS")).await;
    }
    program.client.run("DONE").await;
}

#[tokio::test]
async fn a_session_outlives_its_token() {
    let house = House::open().await;
    let mut program = house.logged_in(Protocol::Imap).await;
    house.provider.revoke_access_tokens();
    house.pass(10 * 3600);
    program.prove().await;
    assert_eq!(house.provider.requests(), [""; 0]);
}
