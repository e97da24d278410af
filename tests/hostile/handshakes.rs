//! B6. Bytes around a TLS handshake, in both roles, however they arrive. Those before it end the connection, and nobody
//! uses them. Those right after it are used.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::servers::{Script, Server};
use crate::support::client::Client;
use crate::support::house::House;

/// STARTTLS, and what a man in the middle adds.
const INJECTED: [&str; 3] = ["a STARTTLS\r\nb NOOP\r\n", "STLS\r\nCAPA\r\n", "STARTTLS\r\nNOOP\r\n"];

#[tokio::test]
async fn from_a_client() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        let sent = INJECTED[protocol as usize].as_bytes();
        for position in 0..sent.len() {
            let (one, two) = sent.split_at(position);
            let mut client = Client::clear(house.port(protocol, Security::StartTls)).await;
            client.expect(["* OK", "+OK", "220"][protocol as usize]).await;
            let heard = client.talk(&[one, two]).await;
            let lines = heard.split(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\r")).count();
            // After the answer to STARTTLS there can be a TLS alert, but no answer to what was added.
            assert_eq!(lines, 1, "{protocol}, split at {position}: {}", heard.escape_ascii());
        }
        assert_eq!(house.provider.connections(protocol), 0);
    }
}

/// More than fits into a handshake, in the packet that ends the handshake.
#[tokio::test]
async fn a_client_that_talks_as_soon_as_the_handshake_ends_is_heard() {
    let house = House::open().await;
    let mut socket = TcpStream::connect(("127.0.0.1", house.port(Protocol::Imap, Security::Tls))).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(house.identity.client_config()), name).unwrap();
    let (mut heard, mut has_talked) = (Vec::new(), false);
    loop {
        if !tls.is_handshaking() && !has_talked {
            has_talked = true;
            tls.writer().write_all(format!("a LOGIN {}\r\nb LOGOUT\r\n", "(".repeat(10_000)).as_bytes()).unwrap();
        }
        let mut sent = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut sent).unwrap();
        }
        socket.write_all(&sent).await.unwrap();
        let mut arrived = Vec::with_capacity(4096);
        if socket.read_buf(&mut arrived).await.unwrap() == 0 {
            break;
        }
        tls.read_tls(&mut &arrived[..]).unwrap();
        tls.process_new_packets().unwrap();
        // An error means that there is no more for now.
        let _for_now = tls.reader().read_to_end(&mut heard);
    }
    let lines: Vec<_> = heard.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line)).collect();
    assert!(
        matches!(&*lines, [greeting, bad, bye, ..] if greeting.starts_with("* OK")
        && bad.starts_with("a BAD Line too long.") && bye.starts_with("* BYE")),
        "{lines:?}"
    );
}

/// The server's acceptance, and what a man in the middle adds.
const CONSENT: [&str; 3] = [
    "% OK go\r\n* CAPABILITY AUTH=XOAUTH2\r\n",
    "+OK go\r\n+OK\r\nSASL XOAUTH2\r\n.\r\n",
    "220 go\r\n250 AUTH XOAUTH2\r\n",
];

#[tokio::test]
async fn from_a_server() {
    for protocol in Protocol::ALL {
        let server = Server::start(protocol, Security::StartTls).await;
        let house = server.house().await;
        for position in 0..CONSENT[protocol as usize].len() {
            let consent = CONSENT[protocol as usize];
            let key = ["STARTTLS", "STLS", "STARTTLS"][protocol as usize];
            server.says(Script::good(protocol).cut(position).with(key, consent));
            server.refuses_bearer(&house, "said ahead of TLS").await;
        }
        server.says(Script::good(protocol));
        house.logged_in(protocol).await;
    }
}

/// Everything that a man in the middle can send instead of an acceptance, and before.
#[tokio::test]
async fn from_a_server_that_does_without() {
    let stripped: [&[(&str, &str)]; 3] = [
        &[
            ("", "* PREAUTH welcome\r\n"),
            ("", "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] hi\r\n"),
            ("", "* BYE [REFERRAL imap://elsewhere.test/] go there\r\n"),
            ("STARTTLS", "% NO not today\r\n"),
            ("STARTTLS", "% BAD what\r\n"),
        ],
        &[("STLS", "-ERR not today\r\n"), ("", "-ERR [REFERRAL] go there\r\n")],
        &[
            ("EHLO", "250-hi\r\n250 AUTH XOAUTH2\r\n"),
            ("STARTTLS", "454 4.7.0 not today\r\n"),
            ("STARTTLS", "502 what\r\n"),
        ],
    ];
    for protocol in Protocol::ALL {
        let server = Server::start(protocol, Security::StartTls).await;
        let house = server.house().await;
        for (key, answer) in stripped[protocol as usize] {
            server.says(Script::good(protocol).with(key, answer));
            server.refuses_bearer(&house, answer).await;
        }
    }
}
