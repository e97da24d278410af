//! Devices that cannot log in, on a listener that does it for them; and who may connect to a listener.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use postkey::clock::Clock;
use postkey::daemon::Daemon;
use postkey::exit::Exit;
use postkey::net::systemd::Sockets;
use postkey::protocol::{Protocol, Security};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::client::Client;
use crate::support::house::{ANN, BEN, House, stuffed};

/// A house with one more listener, for devices from these addresses that send without a login.
struct Office {
    house: House,
    password: PathBuf,
    _folder: TempDir,
}

impl Office {
    /// The same without a running daemon.
    async fn furnished(allowed: &str) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self::furnished_at("\"127.0.0.1:0\"", &format!("allow_addresses = [{allowed:?}]\nallow_uids = [{own}]")).await
    }

    /// The same at these addresses, for those whom this line names.
    async fn furnished_at(addresses: &str, allowed: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let password = folder.path().join("printer.password");
        std::fs::write(&password, "").unwrap();
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
        let listener = format!(
            "[[listener]]\nprotocol = \"smtp\"\naddress = {addresses}\naccount = \"{ANN}\"\n\
             {allowed}\npassword = {{ file = {password:?} }}\n"
        );
        let house = House::furnished(Security::Tls, |config| format!("{config}\n{listener}")).await;
        // With the line end that an editor adds.
        std::fs::write(&password, format!("{}\n", house.password)).unwrap();
        Self { house, password, _folder: folder }
    }

    async fn open() -> Self {
        let mut office = Self::furnished("127.0.0.1").await;
        office.house.start().await;
        office
    }

    async fn printer(&self) -> Client {
        let mut printer = Client::clear(self.house.port(Protocol::Smtp, Security::Clear)).await;
        printer.expect("220").await;
        printer
    }

    /// The message of a start that fails.
    async fn refusal(&self) -> String {
        match Daemon::start(self.house.config.clone(), Clock::System, Sockets::default()).await {
            Ok(_) => panic!("it starts"),
            Err(failed) => {
                assert_eq!(failed.exit, Exit::Config);
                failed.message
            }
        }
    }
}

const PAGE: &[u8] = b"Subject: scan\r\n\r\n.a page\r\n";

#[tokio::test]
async fn a_printer_that_knows_nothing_but_helo_sends_mail() {
    let office = Office::open().await;
    let mut printer = office.printer().await;
    printer.say("HELO printer").await;
    printer.expect("250 ").await;
    assert_eq!(office.house.provider.connections(Protocol::Smtp), 0, "a test of the connection costs no login");
    for _ in 0..2 {
        for (command, reply) in [(format!("MAIL FROM:<{ANN}>"), "250"), (format!("RCPT TO:<{BEN}>"), "250")] {
            printer.say(&command).await;
            printer.expect(reply).await;
        }
        printer.say("DATA").await;
        printer.expect("354").await;
        printer.send(&stuffed(PAGE)).await;
        printer.expect("250").await;
    }
    printer.say("QUIT").await;
    printer.expect("221").await;
    let arrived = office.house.provider.mailbox(BEN);
    assert!(arrived.len() == 2 && arrived.iter().all(|mail| mail.ends_with(PAGE)), "{arrived:?}");
    assert_eq!(office.house.provider.attempts(Protocol::Smtp).len(), 1);
}

#[tokio::test]
async fn a_mail_sent_in_one_go_arrives() {
    let office = Office::open().await;
    let mut fax = office.printer().await;
    fax.say("EHLO fax").await;
    let mut offered = vec![fax.line().await];
    while offered.last().is_some_and(|line| line.starts_with("250-")) {
        offered.push(fax.line().await);
    }
    assert!(!offered.iter().any(|line| line.contains("AUTH")), "{offered:?}");
    let mut all = format!("MAIL FROM:<{ANN}>\r\nRCPT TO:<{BEN}>\r\nDATA\r\n").into_bytes();
    all.extend(stuffed(PAGE));
    all.extend(b"QUIT\r\n");
    fax.send(&all).await;
    for reply in ["250", "250", "354", "250", "221"] {
        fax.expect(reply).await;
    }
    assert_eq!(office.house.provider.mailbox(BEN).len(), 1);
}

#[tokio::test]
async fn a_provider_that_is_down_delays_the_mail() {
    let office = Office::open().await;
    office.house.provider.change(|settings| settings.smtp.close_at_connect = true);
    let mut printer = office.printer().await;
    printer.say("HELO printer").await;
    printer.expect("250 ").await;
    printer.say(&format!("MAIL FROM:<{ANN}>")).await;
    printer.expect("451 4.3.0 ").await;
    office.house.provider.change(|settings| settings.smtp.close_at_connect = false);
    printer.say(&format!("MAIL FROM:<{ANN}>")).await;
    printer.expect("250").await;
}

#[tokio::test]
async fn a_password_that_is_none_of_the_accounts_opens_nothing() {
    let mut office = Office::furnished("127.0.0.1").await;
    std::fs::write(&office.password, "wrong").unwrap();
    office.house.start().await;
    let mut printer = office.printer().await;
    printer.say(&format!("MAIL FROM:<{ANN}>")).await;
    printer.expect("451 4.7.0 Wrong user name or password.").await;
    assert_eq!(office.house.provider.connections(Protocol::Smtp), 0);
}

#[tokio::test]
async fn a_password_that_others_could_read_is_not_used() {
    let office = Office::furnished("127.0.0.1").await;
    std::fs::set_permissions(&office.password, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(office.refusal().await.contains("inaccessible to others"));
    std::fs::set_permissions(&office.password, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&office.password, "\n").unwrap();
    assert!(office.refusal().await.contains("printer.password contains no app password"));
}

#[tokio::test]
async fn a_password_may_be_a_credential_of_systemd() {
    let mut office = Office::furnished("127.0.0.1").await;
    let credentials = TempDir::new().unwrap();
    std::fs::write(credentials.path().join("printer"), &office.house.password).unwrap();
    let from = format!("{{ file = {:?} }}", office.password);
    let config = std::fs::read_to_string(&office.house.file).unwrap();
    std::fs::write(&office.house.file, config.replace(&from, "{ credential = \"printer\" }")).unwrap();
    let ended = office.house.run(&[], "");
    assert!(ended.code == Some(78) && ended.err.contains("add LoadCredential=printer:FILE"), "{}", ended.err);
    let folder = credentials.path().to_str().unwrap();
    let _process = office.house.serve_with(&[("CREDENTIALS_DIRECTORY", folder)]).await;
    let mut printer = office.printer().await;
    printer.say(&format!("MAIL FROM:<{ANN}>")).await;
    printer.expect("250").await;
}

#[tokio::test]
async fn a_client_that_is_not_listed_is_not_even_greeted() {
    let mut office = Office::furnished("127.0.0.2/31").await;
    office.house.start().await;
    let port = office.house.port(Protocol::Smtp, Security::Clear);
    let mut stranger = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let heard = stranger.read(&mut [0; 64]).await;
    assert!(matches!(heard, Ok(0) | Err(_)), "{heard:?}");
    for named in ["127.0.0.2", "127.0.0.3"] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{named}:0").parse().unwrap()).unwrap();
        let mut printer = socket.connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap();
        let mut greeting = [0; 3];
        printer.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220", "{named}");
    }
}

#[tokio::test]
async fn devices_on_this_machine_may_be_named_by_their_users() {
    let own = rustix::process::geteuid().as_raw();
    for (named, greeting) in [(own, "220"), (own + 1, "421")] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("smtp");
        let mut office =
            Office::furnished_at(&format!("[{path:?}, \"127.0.0.1:0\"]"), &format!("allow_uids = [{named}]")).await;
        office.house.start().await;
        let port = office.house.port(Protocol::Smtp, Security::Clear);
        for mut device in [Client::clear(port).await, Client::unix(&path).await] {
            device.expect(greeting).await;
            if named == own {
                device.say(&format!("MAIL FROM:<{ANN}>")).await;
                device.expect("250").await;
            } else {
                assert!(device.is_closed().await);
            }
        }
    }
}

#[tokio::test]
async fn a_listener_that_asks_for_a_login_may_name_its_clients_too() {
    let listener = |allowed: &str| {
        format!("[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:0\"\nallow_addresses = {allowed:?}\n")
    };
    let house = House::with(Security::Tls, |config| format!("{config}\n{}", listener("127.0.0.2"))).await;
    let mut stranger = Client::clear(house.port(Protocol::Imap, Security::Clear)).await;
    assert!(stranger.is_closed().await);
    let house = House::with(Security::Tls, |config| format!("{config}\n{}", listener("127.0.0.0/8"))).await;
    house.logged_in(Protocol::Imap).await.prove().await;
}
