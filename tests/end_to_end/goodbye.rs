//! What happens to a POP3 client's deletions: the server commits them at QUIT and at no other end (RFC 1939 section 6).

use postkey::protocol::{Protocol, Security};
use socket2::SockRef;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::house::{ANN, House, Program, SECURITIES, Way, accepted, until};

/// The ways to reach a provider.
const UPSTREAM: [Security; 2] = [Security::Tls, Security::StartTls];

/// A client that has marked the only message, in a mailbox that had none before.
async fn marked(house: &House, security: Security) -> Program {
    assert!(house.provider.deliver(ANN, b"old news\r\n"));
    let mut program = house.program(Protocol::Pop3, security).await;
    let reply = program.log_in(Way::Own, ANN, &house.password).await;
    assert!(accepted(Protocol::Pop3, &reply), "{reply}");
    program.client.say("DELE 1").await;
    program.client.expect("+OK").await;
    program
}

#[tokio::test]
async fn a_client_that_hangs_up_right_after_quit_has_deleted() {
    for upstream in UPSTREAM {
        let house = House::with(upstream, |config| config).await;
        for security in SECURITIES {
            let mut program = marked(&house, security).await;
            program.client.say("QUIT").await;
            drop(program);
            until("the deletion", async || house.provider.mailbox(ANN).is_empty()).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_vanishes_without_quit_has_not_deleted() {
    for upstream in UPSTREAM {
        let house = House::with(upstream, |config| config).await;
        for (count, security) in (1..).zip(SECURITIES) {
            drop(marked(&house, security).await);
            // After the relay's end there is nothing to wait for, so another session shows that the server has
            // continued.
            house.logged_in(Protocol::Pop3).await.prove().await;
            assert_eq!(house.provider.mailbox(ANN).len(), count, "{security:?}");
        }
    }
}

/// A client without TLS that has marked the only message, and does not read what it receives: if it closes now, its
/// system sends RST.
async fn marked_and_deaf(house: &House) -> TcpStream {
    assert!(house.provider.deliver(ANN, b"old news\r\n"));
    let socket = TcpStream::connect(("127.0.0.1", house.port(Protocol::Pop3, Security::Clear))).await.unwrap();
    let mut stream = BufReader::new(socket);
    let password = &house.password;
    for command in ["", &format!("USER {ANN}\r\n"), &format!("PASS {password}\r\n"), "DELE 1\r\n"] {
        stream.write_all(command.as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("+OK"), "{line}");
    }
    stream.write_all(b"NOOP\r\n").await.unwrap();
    let stream = stream.into_inner();
    stream.peek(&mut [0]).await.unwrap();
    stream
}

#[tokio::test]
async fn quit_counts_even_if_a_reset_follows_it() {
    for upstream in UPSTREAM {
        let house = House::with(upstream, |config| config).await;
        let mut stream = marked_and_deaf(&house).await;
        stream.write_all(b"QUIT\r\n").await.unwrap();
        drop(stream);
        until("the deletion", async || house.provider.mailbox(ANN).is_empty()).await;
    }
}

#[tokio::test]
async fn a_reset_alone_deletes_nothing() {
    for upstream in UPSTREAM {
        let house = House::with(upstream, |config| config).await;
        let stream = marked_and_deaf(&house).await;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        house.logged_in(Protocol::Pop3).await.prove().await;
        assert_eq!(house.provider.mailbox(ANN).len(), 1);
    }
}
