//! Load balancers before postkey, which name their clients by the PROXY protocol.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::{Protocol, Security};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::client::Client;
use crate::support::house::{ANN, BEN, House, PATIENCE, Program, Way, accepted, skip};
use crate::support::process::Process;

/// The user of these tests, who is the load balancer.
fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A listener for each protocol behind a load balancer at this address, with TLS or without, and with further lines.
fn behind(balancer: &str, security: Security, lines: &str) -> String {
    let certificate = if security == Security::Clear { "" } else { "certificate = \"cert.pem\"\nkey = \"key.pem\"\n" };
    let listener = |protocol: Protocol| {
        format!(
            "[[listener]]\nprotocol = \"{}\"\naddress = \"127.0.0.1:0\"\nsecurity = \"{}\"\n{certificate}\
             proxy_protocol = [{balancer:?}]\n{lines}\n",
            protocol.name(),
            security.name(),
        )
    };
    Protocol::ALL.map(listener).concat()
}

/// A house in which this process is a load balancer, with further lines for its listeners.
async fn balanced(lines: &str) -> House {
    balanced_with(lines, "").await
}

/// The same with further tables.
async fn balanced_with(lines: &str, tables: &str) -> House {
    let lines = format!("allow_uids = [{}]\n{lines}", own());
    let listeners = [Security::Clear, Security::Tls].map(|security| behind("127.0.0.1", security, &lines)).concat();
    House::with(Security::Tls, |config| format!("{config}\n{listeners}{tables}")).await
}

/// The same in a separate process, whose log can be read.
async fn logging(lines: &str) -> (House, Process) {
    let lines = format!("allow_uids = [{}]\n{lines}", own());
    let listeners = behind("127.0.0.1", Security::Clear, &lines);
    let mut house = House::furnished(Security::Tls, |config| format!("log = \"info\"\n{config}\n{listeners}")).await;
    let process = house.serve().await;
    (house, process)
}

fn line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.10 50000 993\r\n").into_bytes()
}

/// A header of version 2, with a field that is ignored.
fn binary(client: &str) -> Vec<u8> {
    let [client, server] = [client, "192.0.2.10"].map(|address| address.parse::<Ipv4Addr>().unwrap().octets());
    let field = [5, 0, 3, b'a', b'b', b'c'];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12", &client[..], &server, &[0xc3, 0x50, 3, 0xe1], &field].concat()
}

/// A health check of version 2, and a client without an address of version 1.
const NAMELESS: [&[u8]; 2] = [b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"PROXY UNKNOWN\r\n"];

/// A connection of the load balancer that begins with these bytes.
async fn connect(house: &House, protocol: Protocol, security: Security, first: &[u8]) -> Client {
    let mut client = Client::clear(house.port(protocol, security)).await;
    client.send(first).await;
    client
}

/// The answer to Ann's login behind this header.
async fn log_in(house: &House, protocol: Protocol, security: Security, header: &[u8]) -> String {
    let mut client = connect(house, protocol, security, header).await;
    if security == Security::Tls {
        client = client.protect(&house.identity).await;
    }
    Program::over(client, protocol).await.log_in(Way::Plain, ANN, &house.password).await
}

/// Whether the connection ends without a word.
async fn is_turned_away(mut client: Client) -> bool {
    client.is_closed().await
}

#[tokio::test]
async fn clients_behind_a_load_balancer_log_in_with_and_without_tls() {
    let house = balanced("").await;
    for protocol in Protocol::ALL {
        for security in [Security::Clear, Security::Tls] {
            for header in [&line("192.0.2.7")[..], &binary("192.0.2.7")[..], NAMELESS[0], NAMELESS[1]] {
                let reply = log_in(&house, protocol, security, header).await;
                assert!(accepted(protocol, &reply), "{protocol} {security}: {reply}");
            }
        }
    }
}

/// Everything in one packet: the header, and a whole session that does not wait for answers. Then byte by byte.
#[tokio::test]
async fn what_follows_a_header_is_the_clients_however_it_arrives() {
    let house = balanced("").await;
    let plain = BASE64_STANDARD.encode(format!("\0{ANN}\0{}", house.password));
    let session = format!("a AUTHENTICATE PLAIN {plain}\r\nb STATUS INBOX (MESSAGES)\r\nc LOGOUT\r\n");
    for header in [line("192.0.2.7"), binary("192.0.2.7")] {
        let bytes = [&header, session.as_bytes()].concat();
        for size in [1, 13, bytes.len()] {
            let port = house.port(Protocol::Imap, Security::Clear);
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            socket.set_nodelay(true).unwrap();
            for piece in bytes.chunks(size) {
                socket.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut heard = String::new();
            timeout(PATIENCE, socket.read_to_string(&mut heard)).await.unwrap().unwrap();
            for expected in ["* OK", "\r\na OK", "\r\nb OK", "\r\nc OK"] {
                assert!(heard.contains(expected), "pieces of {size}: {heard}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_log_names_the_client_and_not_the_load_balancer() {
    let (house, process) = logging("").await;
    for (protocol, client) in Protocol::ALL.into_iter().zip(["192.0.2.7", "198.51.100.7", "127.0.0.9"]) {
        let reply = log_in(&house, protocol, Security::Clear, &binary(client)).await;
        assert!(accepted(protocol, &reply), "{reply}");
        let mut guesser =
            Program::over(connect(&house, protocol, Security::Clear, &line(client)).await, protocol).await;
        assert!(!accepted(protocol, &guesser.log_in(Way::Plain, ANN, "wrong").await));
    }
    let log = process.terminate().err;
    for client in ["192.0.2.7", "198.51.100.7", "127.0.0.9"] {
        for words in ["logged in by", "login of"] {
            let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!(" from {client} "))).collect();
            let found = lines.iter().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {log}"));
            assert!(found.contains(&format!("peer={client}:50000")) && !found.contains("peer=127.0.0.1"), "{found}");
            assert!(!found.contains("uid="), "it is not the load balancer's user: {found}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_load_balancer_that_names_nobody_is_closed_and_logged() {
    let (house, process) = logging("").await;
    for (number, protocol) in Protocol::ALL.into_iter().enumerate() {
        let first = [&b"EHLO client.example.test\r\n"[..], b"\x16\x03\x01\x02\0", b"PROXY TCP4 nonsense\r\n"][number];
        assert!(is_turned_away(connect(&house, protocol, Security::Clear, first).await).await);
        let mut half = connect(&house, protocol, Security::Clear, b"PROXY ").await;
        half.finish().await;
        assert!(is_turned_away(half).await);
        // A look at the port, such as a health check without a header.
        let mut probe = connect(&house, protocol, Security::Clear, b"").await;
        probe.finish().await;
        assert!(is_turned_away(probe).await);
    }
    let log = process.terminate().err;
    let lines: Vec<_> = log.lines().filter(|line| line.contains("of the load balancer 127.0.0.1 closed: ")).collect();
    assert_eq!(lines.len(), 6, "{log}");
    assert_eq!(lines.iter().filter(|line| line.contains("it did not begin with a PROXY header")).count(), 3);
    assert_eq!(lines.iter().filter(|line| line.contains("it ended within its PROXY header")).count(), 3);
    assert!(lines.iter().all(|line| line.contains("; turn send-proxy-v2 on there")), "{log}");
}

#[tokio::test]
async fn a_header_has_five_seconds() {
    let house = balanced("").await;
    let (imap, clear) = (Protocol::Imap, Security::Clear);
    let (silent, mut slow) = (connect(&house, imap, clear, b"").await, connect(&house, imap, clear, b"P").await);
    for byte in b"ROX" {
        skip(Duration::from_secs(1)).await;
        slow.send(&[*byte]).await;
    }
    skip(Duration::from_secs(1)).await;
    let mut late = connect(&house, imap, clear, b"").await;
    skip(Duration::from_secs(1)).await;
    assert!(is_turned_away(silent).await && is_turned_away(slow).await);
    late.send(&line("192.0.2.7")).await;
    late.expect("* OK").await;
}

#[tokio::test]
async fn only_load_balancers_that_are_named_can_claim_addresses() {
    let lines = format!("allow_uids = [{}]", own());
    let listeners = behind("127.0.0.2", Security::Clear, &lines);
    let house = House::with(Security::Tls, |config| format!("{config}\n{listeners}")).await;
    for header in [&line("192.0.2.7")[..], NAMELESS[0], b"a NOOP\r\n"] {
        assert!(is_turned_away(connect(&house, Protocol::Imap, Security::Clear, header).await).await);
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let port = house.port(Protocol::Imap, Security::Clear);
    let mut balancer = socket.connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
    assert!(
        timeout(Duration::from_millis(300), balancer.read(&mut [0])).await.is_err(),
        "nobody is greeted before a header"
    );
    balancer.write_all(&line("192.0.2.7")).await.unwrap();
    let mut greeting = [0; 4];
    balancer.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"* OK");
}

#[tokio::test]
async fn another_user_of_this_machine_is_no_load_balancer() {
    let listeners = behind("127.0.0.1", Security::Clear, &format!("allow_uids = [{}]", own() + 1));
    let house = House::with(Security::Tls, |config| format!("{config}\n{listeners}")).await;
    let mut client = connect(&house, Protocol::Imap, Security::Clear, &line("192.0.2.7")).await;
    client.expect("* BYE [UNAVAILABLE] This port of postkey is not open to your user.").await;
}

#[tokio::test]
async fn allow_addresses_is_for_the_client_that_is_named() {
    let named = [line("192.0.2.7"), line("192.0.2.200"), binary("192.0.2.7")];
    let others = [line("198.51.100.7"), binary("127.0.0.1")];
    for (allowed, lets_the_balancer_in) in [("\"192.0.2.0/24\"", false), ("\"192.0.2.0/24\", \"127.0.0.1\"", true)] {
        let house = balanced(&format!("allow_addresses = [{allowed}]")).await;
        let is_in =
            async |header: &[u8]| !is_turned_away(connect(&house, Protocol::Pop3, Security::Clear, header).await).await;
        for header in &named {
            assert!(is_in(header).await, "{}", header.escape_ascii());
        }
        assert!(!is_in(&others[0]).await);
        assert_eq!(is_in(&others[1]).await, lets_the_balancer_in);
        for header in NAMELESS {
            assert_eq!(is_in(header).await, lets_the_balancer_in, "its own address counts: {}", header.escape_ascii());
        }
    }
}

/// Whatever a header names, and even if it names nobody: the kernel knows the user of the load balancer only.
#[tokio::test]
async fn a_client_behind_a_load_balancer_is_never_local() {
    let tables = format!("[account.\"{ANN}\"]\nallow_uids = [{}]\n[account.\"*@example.test\"]\n", own());
    let (house, imap, clear) = (balanced_with("", &tables).await, Protocol::Imap, Security::Clear);
    for header in [line("127.0.0.1"), binary("127.0.0.1"), NAMELESS[0].to_vec(), NAMELESS[1].to_vec()] {
        let reply = log_in(&house, imap, clear, &header).await;
        assert!(reply.contains("This account is not for your user on this machine."), "{reply}");
        let mut client = Program::over(connect(&house, imap, clear, &header).await, imap).await;
        let reply = client.log_in(Way::Plain, BEN, "correct horse battery").await;
        assert!(reply.contains("[AUTHENTICATIONFAILED]"), "no first login: {reply}");
    }
    // Without a load balancer, the same user has both.
    let program = async || house.program(imap, Security::StartTls).await;
    let reply = program().await.log_in(Way::Plain, ANN, &house.password).await;
    assert!(accepted(imap, &reply), "{reply}");
    let reply = program().await.log_in(Way::Plain, BEN, "correct horse battery").await;
    assert!(reply.contains("open http://127.0.0.1:"), "{reply}");
}

/// Each client has its own share of the places before the login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_behind_a_load_balancer_keeps_no_other_client_out() {
    let listeners = behind("127.0.0.1", Security::Clear, &format!("allow_uids = [{}]", own()));
    let mut house = House::furnished(Security::Tls, |config| format!("{config}\n{listeners}")).await;
    // 35 places, eight of them for one source.
    let process = house.serve_by("ulimit -n 700").await;
    let (imap, clear) = (Protocol::Imap, Security::Clear);
    let mut first = Program::over(connect(&house, imap, clear, &line("192.0.2.8")).await, imap).await;
    let mut crowd = Vec::new();
    for _ in 0..60 {
        let mut client = connect(&house, imap, clear, &line("192.0.2.7")).await;
        client.expect("* OK").await;
        crowd.push(client);
    }
    for client in &mut crowd[..52] {
        assert!(client.is_closed().await, "the oldest make room");
    }
    let reply = first.log_in(Way::Plain, ANN, &house.password).await;
    assert!(accepted(imap, &reply), "{reply}");
    drop(process);
}

#[tokio::test]
async fn a_reload_turns_the_protocol_on_and_off() {
    let mut house = balanced("").await;
    let (imap, clear) = (Protocol::Imap, Security::Clear);
    let with_balancers = house.config.clone();
    house.config.listeners.iter_mut().for_each(|listener| listener.balancers.clear());
    house.reload().await;
    assert!(accepted(imap, &house.try_login(imap).await), "no header is expected");
    house.config = with_balancers;
    house.reload().await;
    let reply = log_in(&house, imap, clear, &line("192.0.2.7")).await;
    assert!(accepted(imap, &reply), "{reply}");
    // A stop does not wait for a header.
    let waiting = connect(&house, imap, clear, b"PROXY").await;
    timeout(Duration::from_secs(3), house.stop()).await.expect("a stop at once");
    assert!(is_turned_away(waiting).await);
}
