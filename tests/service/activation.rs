//! Sockets that the service manager keeps open.

use std::net::TcpListener;

use postkey::protocol::{Protocol, Security};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::manager::{Service, Start, house};
use crate::support::house::{ANN, Way, accepted};

fn socket() -> (TcpListener, u16) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_refuses_nobody() {
    let (socket, port) = socket();
    let address = format!("127.0.0.1:{port}");
    let mut house = house(|config| config.replacen("127.0.0.1:0", &address, 1)).await;
    for _ in 0..3 {
        // A client that connects while no postkey runs waits for one.
        let mut early = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let sockets = [("imap", &socket)];
        let service = Service::start(house, Start { sockets: &sockets, ..Start::default() }).await;
        let mut greeting = [0; 4];
        early.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"* OK");
        assert!(accepted(Protocol::Smtp, &service.house.try_login(Protocol::Smtp).await), "the others are bound");
        let (next, ended) = service.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        house = next;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imap_session_ends_without_bye_if_its_port_stays_open() {
    let (imap, port) = socket();
    let (smtp, smtp_port) = socket();
    let house = house(|config| {
        let smtp_listener = "protocol = \"smtp\"\naddress = \"127.0.0.1:";
        let config = config.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
        config.replacen(&format!("{smtp_listener}0"), &format!("{smtp_listener}{smtp_port}"), 1)
    })
    .await;
    let sockets = [("imap", &imap), ("smtp", &smtp)];
    let service = Service::start(house, Start { sockets: &sockets, ..Start::default() }).await;
    let mut kept = service.house.logged_in(Protocol::Imap).await;
    let mut sender = service.house.logged_in(Protocol::Smtp).await;
    let mut closing = service.house.program(Protocol::Imap, Security::Tls).await;
    let reply = closing.log_in(Way::Plain, ANN, &service.house.password).await;
    assert!(accepted(Protocol::Imap, &reply), "{reply}");
    service.process.signal(Signal::TERM);
    assert_eq!(kept.client.rest().await, b"", "the port is the service manager's");
    closing.client.expect("* BYE").await;
    assert_eq!(closing.client.rest().await, b"");
    sender.client.expect("421 4.3.2").await;
    assert_eq!(sender.client.rest().await, b"");
    assert_eq!(service.process.end().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_comes_back_when_its_listener_does() {
    let (socket, port) = socket();
    let own = format!("[[listener]]\nprotocol = \"pop3\"\naddress = \"127.0.0.1:{port}\"\n");
    let sockets = [("pop3", &socket)];
    let house = house(|config| config + "\n" + &own).await;
    let mut service = Service::start(house, Start { sockets: &sockets, ..Start::default() }).await;
    service.reload(|config| config).await;
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting).await.unwrap();
    // Without a listener nobody would answer there, and the reload says so.
    service.edit(|config| config.replace(&own, ""));
    let ended = service.house.run(&["reload"], "");
    assert!(ended.code == Some(78) && ended.err.contains("but no [[listener]] has it"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_configuration_has_is_taken() {
    let (socket, port) = socket();
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = format!("127.0.0.1:{port}");
    for (name, socket, said) in [
        ("imap", &everywhere, "but no [[listener]] has it"),
        ("smtp", &socket, "but no [[listener]] has it"),
        ("http", &socket, "FileDescriptorName="),
        ("", &socket, "FileDescriptorName="),
    ] {
        let house = house(|config| config.replacen("127.0.0.1:0", &address, 1)).await;
        let sockets = [(name, socket)];
        let mut service = Service::begin(house, Start { sockets: &sockets, ..Start::default() });
        service.process.hear_complaint(said);
        assert_eq!(service.process.end().code, Some(78), "{name}");
    }
}
