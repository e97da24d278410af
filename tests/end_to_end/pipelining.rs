//! What a client sends after its login without waiting reaches the provider once and in order.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postkey::protocol::{Protocol, Security};

use crate::support::house::{ANN, House, SECURITIES};

/// Sends everything in one piece. Returns the first words of all lines until the connection ends.
async fn replies(house: &House, protocol: Protocol, security: Security, all: &str) -> Vec<String> {
    let mut program = house.program(protocol, security).await;
    program.client.send(all.as_bytes()).await;
    let heard = String::from_utf8(program.client.rest().await).unwrap();
    heard.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn imap() {
    let house = House::open().await;
    let login = format!("a LOGIN {ANN} {}\r\n", house.password);
    let rest = "b APPEND INBOX {3+}\r\none\r\nc APPEND INBOX {3+}\r\ntwo\r\nd NOOP\r\ne LOGOUT\r\n";
    for (count, security) in (1..).zip(SECURITIES) {
        let heard = replies(&house, Protocol::Imap, security, &(login.clone() + rest)).await;
        assert_eq!(heard, ["a OK", "b OK", "c OK", "d OK", "* BYE", "e OK"]);
        assert_eq!(house.provider.mailbox(ANN), [b"one", b"two"].repeat(count));
    }
}

#[tokio::test]
async fn imap_behind_a_login_with_literals_and_one_that_failed() {
    let house = House::open().await;
    let (name, password) = (ANN.len(), house.password.len());
    let all = format!(
        "a LOGIN {{{name}+}}\r\n{ANN} {{5+}}\r\nwrong\r\nb LOGIN {{{name}+}}\r\n{ANN} {{{password}+}}\r\n{}\r\n\
         c NOOP\r\nd LOGOUT\r\n",
        house.password
    );
    let heard = replies(&house, Protocol::Imap, Security::Clear, &all).await;
    assert_eq!(heard, ["a NO", "b OK", "c OK", "* BYE", "d OK"]);
    assert_eq!(house.provider.connections(Protocol::Imap), 1);
}

#[tokio::test]
async fn pop3() {
    let house = House::open().await;
    for security in SECURITIES {
        assert!(house.provider.deliver(ANN, b"one\r\n") && house.provider.deliver(ANN, b"two\r\n"));
        let all = format!("USER {ANN}\r\nPASS {}\r\nSTAT\r\nDELE 1\r\nSTAT\r\nDELE 2\r\nQUIT\r\n", house.password);
        let heard = replies(&house, Protocol::Pop3, security, &all).await;
        assert_eq!((heard.len(), &*heard[2], &*heard[4]), (7, "+OK 2", "+OK 1"), "{heard:?}");
        assert_eq!(house.provider.mailbox(ANN).len(), 0);
    }
}

#[tokio::test]
async fn smtp() {
    let house = House::open().await;
    let plain = BASE64_STANDARD.encode(format!("\0{ANN}\0{}", house.password));
    for (count, security) in (1..).zip(SECURITIES) {
        let all = format!(
            "AUTH PLAIN {plain}\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@example.test>\r\nRCPT TO:<{ANN}>\r\nDATA\r\none\r\n.\r\nQUIT\r\n"
        );
        let heard = replies(&house, Protocol::Smtp, security, &all).await;
        assert_eq!(heard, ["235 2.7.0", "250 2.1.0", "550 5.1.1", "250 2.1.5", "354 go", "250 2.0.0", "221 2.0.0"]);
        assert_eq!(house.provider.mailbox(ANN), [b"one\r\n"].repeat(count));
    }
}

/// As `printf ... | nc` does.
#[tokio::test]
async fn a_client_that_ends_its_half_behind_all_that_it_asks_is_answered() {
    let house = House::open().await;
    let (plain, password) = (BASE64_STANDARD.encode(format!("\0{ANN}\0{}", house.password)), &house.password);
    let mail = "MAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\none\r\n.\r\n";
    for (protocol, all, answers, last) in [
        (Protocol::Imap, format!("a LOGIN {ANN} {password}\r\nb NOOP\r\nc LOGOUT\r\n"), 4, "c OK"),
        (Protocol::Pop3, format!("USER {ANN}\r\nPASS {password}\r\nNOOP\r\nQUIT\r\n"), 4, "+OK"),
        (Protocol::Smtp, format!("AUTH PLAIN {plain}\r\n{mail}QUIT\r\n"), 6, "221"),
    ] {
        for security in SECURITIES {
            let mut program = house.program(protocol, security).await;
            program.client.send(all.as_bytes()).await;
            program.client.finish().await;
            let heard = String::from_utf8(program.client.rest().await).unwrap();
            let lines: Vec<_> = heard.lines().collect();
            assert!(lines.len() >= answers && lines.last().unwrap().starts_with(last), "{security:?}: {heard}");
        }
    }
    assert_eq!(house.provider.mailbox(ANN), [b"one\r\n"].repeat(SECURITIES.len()));
}
