//! `postkey doctor` names what is wrong with a certificate, of a mail server and of the token endpoint.

use postkey::control::{self, Request};
use postkey::protocol::Security;

use crate::certificates::Flaw;
use crate::front::Front;
use crate::server::{Fault, Servers, Stage};
use crate::support::house::{ANN, House, until};

const FLAWS: [(Flaw, &str); 4] = [
    (Flaw::Expired, "has expired, on 2020-01-01"),
    (Flaw::NotYet, "not valid before 4000-01-01"),
    (Flaw::WrongName, "for another name (DnsName(\"elsewhere.test\"))"),
    (Flaw::UnknownAuthority, "signed by nobody whom this machine trusts"),
];

/// Stops the postkey in this process, and waits until nobody finds it any more.
async fn stop(house: &mut House) {
    house.stop().await;
    let socket = &house.config.control_socket;
    until("no daemon", async || matches!(control::ask(socket, &Request::Status).await, Ok(None))).await;
}

/// The likely cause, by a process of its own, whose clock is right.
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
