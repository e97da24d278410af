//! How postkey leaves a provider's server if a login does not get as far as the relay.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::support::house::{ANN, House, PATIENCE};

type Server = BufReader<TlsStream<TcpStream>>;

/// The server's answer to each of our lines, beginning with the greeting; the last one is to the bearer. An IMAP server
/// puts the command's tag in the place of `TAG`.
const SERVERS: [(Protocol, &[&str]); 3] = [
    (Protocol::Imap, &["* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] hi", "TAG NO [AUTHENTICATIONFAILED] no"]),
    (Protocol::Pop3, &["+OK hi", "+OK\r\nSASL XOAUTH2\r\n.", "+ ", "-ERR [AUTH] no"]),
    (Protocol::Smtp, &["220 hi", "250-hi\r\n250 AUTH XOAUTH2", "535 5.7.8 no"]),
];

/// A house with one of our servers, and that server's port.
async fn house_with_own(protocol: Protocol) -> (House, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let house = House::with(Security::Tls, |config| {
        let table = format!("[provider.own.{}]\n", protocol.name());
        let (before, rest) = config.split_once(&table).unwrap();
        let after = rest.find("\n[").map_or("", |at| &rest[at..]);
        format!("{before}{table}host = \"localhost\"\nport = {port}\nsecurity = \"tls\"\n{after}")
    })
    .await;
    (house, listener)
}

fn login(protocol: Protocol, password: &str) -> String {
    match protocol {
        Protocol::Imap => format!("a LOGIN {ANN} {password}\r\n"),
        Protocol::Pop3 => format!("USER {ANN}\r\nPASS {password}\r\n"),
        Protocol::Smtp => format!("AUTH PLAIN {}\r\n", BASE64_STANDARD.encode(format!("\0{ANN}\0{password}"))),
    }
}

async fn accept(house: &House, listener: &TcpListener) -> Server {
    let (socket, _) = timeout(PATIENCE, listener.accept()).await.expect("a connection").unwrap();
    BufReader::new(house.provider.acceptor().accept(socket).await.unwrap())
}

async fn line(server: &mut Server) -> String {
    let mut line = String::new();
    timeout(PATIENCE, server.read_line(&mut line)).await.expect("a line in time").unwrap();
    line
}

/// Sends its answers. Returns the line that followed each of them except the last.
async fn talk(server: &mut Server, words: &[&str]) {
    let mut heard = String::new();
    for (at, word) in words.iter().enumerate() {
        let tag = heard.split(' ').next().unwrap_or_default();
        server.write_all(format!("{}\r\n", word.replace("TAG", tag)).as_bytes()).await.unwrap();
        server.flush().await.unwrap();
        if at + 1 < words.len() {
            heard = line(server).await;
        }
    }
}

/// Reads close_notify. An end without it is an error.
async fn hears_the_end(server: &mut Server) {
    let end = timeout(PATIENCE, server.read(&mut [0])).await.expect("an end in time");
    assert_eq!(end.expect("close_notify"), 0);
}

#[tokio::test]
async fn a_server_that_says_no_is_told_goodbye() {
    for (protocol, words) in SERVERS {
        let (house, listener) = house_with_own(protocol).await;
        let mut program = house.program(protocol, Security::Clear).await;
        program.client.send(login(protocol, &house.password).as_bytes()).await;
        // The second time with a new token; then the login is refused.
        for _ in 0..2 {
            let mut server = accept(&house, &listener).await;
            talk(&mut server, words).await;
            let goodbye = line(&mut server).await;
            assert!(["QUIT\r\n", "P0 LOGOUT\r\n"].contains(&goodbye.as_str()), "{protocol}: {goodbye}");
            server.write_all(b"* BYE\r\n").await.unwrap();
            server.shutdown().await.unwrap();
            hears_the_end(&mut server).await;
        }
    }
}

#[tokio::test]
async fn a_refused_client_does_not_wait_for_the_goodbye() {
    let (house, listener) = house_with_own(Protocol::Smtp).await;
    let mut program = house.program(Protocol::Smtp, Security::Clear).await;
    program.client.send(login(Protocol::Smtp, &house.password).as_bytes()).await;
    let mut first = accept(&house, &listener).await;
    talk(&mut first, SERVERS[2].1).await;
    let mut second = accept(&house, &listener).await;
    talk(&mut second, SERVERS[2].1).await;
    // Neither server has answered QUIT.
    program.client.expect("535 5.7.8").await;
}

#[tokio::test]
async fn a_server_that_has_not_answered_yet_hears_the_end_and_no_command() {
    for (protocol, words) in SERVERS {
        let (house, listener) = house_with_own(protocol).await;
        let mut program = house.program(protocol, Security::Clear).await;
        program.client.send(login(protocol, &house.password).as_bytes()).await;
        let mut server = accept(&house, &listener).await;
        talk(&mut server, &words[..words.len() - 1]).await;
        let bearer = line(&mut server).await;
        assert!(bearer.len() > 50, "{bearer}");
        drop(house);
        hears_the_end(&mut server).await;
    }
}

#[tokio::test]
async fn a_server_that_breaks_its_protocol_hears_the_end_and_no_command() {
    let (house, listener) = house_with_own(Protocol::Smtp).await;
    let mut program = house.program(Protocol::Smtp, Security::Clear).await;
    program.client.send(login(Protocol::Smtp, &house.password).as_bytes()).await;
    let mut server = accept(&house, &listener).await;
    talk(&mut server, &["hello"]).await;
    hears_the_end(&mut server).await;
}

#[tokio::test]
async fn a_spare_connection_hears_no_secret_and_is_told_goodbye_at_a_stop() {
    for (protocol, words) in SERVERS {
        let (mut house, listener) = house_with_own(protocol).await;
        let welcome = ["TAG OK in", "+OK in", "235 2.7.0 in"][protocol as usize];
        let (last, before) = words.split_last().unwrap();
        let accepting: Vec<&str> = before.iter().copied().chain([welcome]).collect();
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let mut program = house.program(protocol, Security::Clear).await;
            program.client.send(login(protocol, &house.password).as_bytes()).await;
            let mut server = accept(&house, &listener).await;
            // POP3's capabilities are known the second time.
            let known = protocol == Protocol::Pop3 && !sessions.is_empty();
            let skipped = accepting.iter().enumerate().filter(|(at, _)| !(known && *at == 1)).map(|(_, word)| *word);
            talk(&mut server, &skipped.collect::<Vec<_>>()).await;
            sessions.push((program, server));
        }
        assert!(!last.is_empty());
        let mut spare = accept(&house, &listener).await;
        let greetings = if protocol == Protocol::Smtp { &words[..2] } else { &words[..1] };
        talk(&mut spare, greetings).await;
        drop(sessions);
        let left = async {
            // Nothing but close_notify if postkey has not read our last words yet.
            let goodbye = line(&mut spare).await;
            assert!(["", "QUIT\r\n", "P0 LOGOUT\r\n"].contains(&goodbye.as_str()), "{protocol}: {goodbye}");
            if !goodbye.is_empty() {
                spare.shutdown().await.unwrap();
                hears_the_end(&mut spare).await;
            }
        };
        tokio::join!(house.stop(), left);
    }
}
