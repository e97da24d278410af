//! Mail programs that look for their settings on the port of the metrics.

use std::net::SocketAddr;

use postkey::protocol::Security;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::house::{ANN, BEN, House, free_port};

/// A house whose configuration names the ports, because it is all that the answers depend on.
async fn house(metrics: SocketAddr, more: &str) -> House {
    House::with(Security::Tls, |config| {
        let mut config = format!("metrics = \"{metrics}\"\n{config}{more}");
        while config.contains("127.0.0.1:0\"") {
            config = config.replacen("127.0.0.1:0\"", &format!("127.0.0.1:{}\"", free_port()), 1);
        }
        config
    })
    .await
}

fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// Sends one request; returns the status and the body.
async fn ask(place: SocketAddr, host: &str, request: &str, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(place).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn autoconfig(place: SocketAddr, address: &str) -> (u16, String) {
    ask(place, "localhost", &format!("GET /mail/config-v1.1.xml?emailaddress={address}"), "").await
}

async fn autodiscover(place: SocketAddr, address: &str) -> (u16, String) {
    let body = format!("<Autodiscover><Request><EMailAddress>{address}</EMailAddress></Request></Autodiscover>");
    ask(place, "localhost", "POST /autodiscover/autodiscover.xml", &body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_answers_are_those_of_the_command() {
    let metrics = free_address();
    let house = house(metrics, "").await;
    let command = async |program| house.run_beside(&["settings", ANN, "--for", program], "").await.out;
    let (code, found) = autoconfig(metrics, ANN).await;
    assert_eq!((code, found.trim_end()), (200, command("autoconfig").await.trim_end()));
    let (code, found) = autodiscover(metrics, ANN).await;
    assert_eq!((code, found.trim_end()), (200, command("autodiscover").await.trim_end()));
    let well_known = format!("GET /.well-known/autoconfig/mail/config-v1.1.xml?emailaddress={ANN}");
    assert_eq!(ask(metrics, "localhost", &well_known, "").await, autoconfig(metrics, ANN).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answers_do_not_tell_which_accounts_exist() {
    let metrics = free_address();
    let own = format!("[account.\"{BEN}\"]\n[account.\"carl@elsewhere.test\"]\nprovider = \"own\"\n");
    let own = format!(
        "{own}[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:{}\"\naccount = \"{ANN}\"\n",
        free_port()
    );
    let house = house(metrics, &own).await;
    let (_, of_ann) = autoconfig(metrics, ANN).await;
    for stranger in [BEN, "nobody@example.test"] {
        assert_eq!(autoconfig(metrics, stranger).await.1, of_ann);
        assert_eq!(autodiscover(metrics, stranger).await.1, autodiscover(metrics, ANN).await.1.replace(ANN, stranger));
    }
    for unknown in ["carl@elsewhere.test", "nobody@elsewhere.test"] {
        assert_eq!((autoconfig(metrics, unknown).await.0, autodiscover(metrics, unknown).await.0), (404, 404));
    }
    drop(house);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_names_of_known_domains_lead_there() {
    let metrics = free_address();
    let house = house(metrics, "").await;
    let request = format!("GET /mail/config-v1.1.xml?emailaddress={ANN}");
    for (host, code) in [
        ("autoconfig.example.test", 200),
        ("Autodiscover.example.test:80", 200),
        ("example.test", 200),
        ("evil.test", 421),
        ("autoconfig.evil.test", 421),
        ("other.example.test", 421),
    ] {
        assert_eq!(ask(metrics, host, &request, "").await.0, code, "{host}");
    }
    assert_eq!(ask(metrics, "autoconfig.example.test", "GET /metrics", "").await.0, 421, "for this machine only");
    drop(house);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_request_is_refused_and_cannot_change_the_answer() {
    let metrics = free_address();
    let house = house(metrics, "").await;
    for (address, code) in [("", 400), ("ann", 400), ("a%20b@example.test", 400), ("a@b@other.test", 404)] {
        assert_eq!(autoconfig(metrics, address).await.0, code, "{address}");
    }
    let (code, answer) = autodiscover(metrics, "a&<b>\"@example.test").await;
    assert!(code == 200 && answer.contains("<LoginName>a&amp;&lt;b&gt;&quot;@example.test</LoginName>"), "{answer}");
    assert_eq!(ask(metrics, "localhost", "POST /autodiscover/autodiscover.xml", "<x/>").await.0, 400);
    assert_eq!(autodiscover(metrics, &"a".repeat(20_000)).await.0, 413);
    drop(house);
}
