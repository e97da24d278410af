//! `postkey doctor` names the flaw of a certificate, of a mail server and of the token endpoint.

use postkey::control::{self, ControlRequest};
use postkey::protocol::Security;

use crate::certificates::Flaw;
use crate::front::{Answer, Front};
use crate::server::{Fault, Servers, Stage};
use crate::support::house::{ANN, House, until};

const FLAWS: [(Flaw, &str); 4] = [
    (Flaw::Expired, "expired on 2020-01-01"),
    (Flaw::NotYet, "not valid before 4000-01-01"),
    (Flaw::WrongName, "for another name (DnsName(\"elsewhere.test\"))"),
    (Flaw::UnknownAuthority, "not signed by a CA that this machine trusts"),
];

/// Stops the postkey in this process, and waits until nobody can reach it.
async fn stop(house: &mut House) {
    house.stop().await;
    let socket = &house.config.control_socket;
    until("no daemon", async || matches!(control::ask(socket, None, &ControlRequest::Status).await, Ok(None))).await;
}

/// The likely cause, according to a separate process, whose clock is right.
fn expect(house: &House, subject: &str, words: &str) {
    let ended = house.run(&["doctor", ANN], &house.password);
    let cause = ended.out.lines().last().unwrap_or_default();
    assert!(cause.starts_with(&format!("The likely cause is the {subject}: ")), "{}{}", ended.out, ended.err);
    assert!(ended.code == Some(69) && cause.contains(words), "{:?} {}", ended.code, ended.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_flaw_of_a_mail_servers_certificate_is_named() {
    for security in [Security::Tls, Security::StartTls] {
        let servers = Servers::start(security).await;
        let mut house = servers.house().await;
        stop(&mut house).await;
        for (flaw, words) in FLAWS {
            servers.go_wrong(Some((Stage::Handshake, Fault::Certificate(flaw))));
            expect(&house, "IMAP server", words);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_flaw_of_the_token_endpoints_certificate_is_named() {
    for (flaw, words) in FLAWS {
        let mut front = Front::with_tls(Some(flaw)).await;
        let mut house = front.house().await;
        stop(&mut house).await;
        expect(&house, "token endpoint", words);
    }
}

/// A front that answers while the server behind it does not: what it hides does not count as fine.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_authorization_server_that_is_down_behind_its_front_is_a_problem() {
    let page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nOops".to_vec();
    for (answer, words) in [(Answer::Bytes(page), "HTTP status 502"), (Answer::HangUp, "does not answer")] {
        let mut front = Front::new().await;
        let mut house = front.house().await;
        stop(&mut house).await;
        front.set(answer);
        expect(&house, "authorization server", words);
        let ended = house.run(&["doctor", ANN], "\n");
        assert!(ended.code == Some(69) && !ended.out.contains("Everything works"), "{}", ended.out);
    }
}
