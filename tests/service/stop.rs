//! The end of a service.

use std::time::{Duration, Instant};

use postkey::protocol::{Protocol, Security};
use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::manager::Service;
use crate::reload::raise_limit;
use crate::support::TokenEndpoint;
use crate::support::house::{ANN, BEN, stuffed, until};

/// Waits until no new client is accepted.
async fn closed(port: u16) {
    until("the port to be closed", async || TcpStream::connect(("127.0.0.1", port)).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_a_goodbye_in_its_protocol_and_it_ends_at_once() {
    let service = Service::with(|config| config).await;
    let mut early = Vec::new();
    for protocol in Protocol::ALL {
        early.push(service.house.program(protocol, Security::Tls).await);
    }
    let mut idle = service.house.logged_in(Protocol::Imap).await;
    idle.client.run("a SELECT INBOX").await;
    let mut sender = service.house.logged_in(Protocol::Smtp).await;
    let begun = Instant::now();
    service.process.signal(Signal::TERM);
    for program in &mut early {
        program.client.expect(["* BYE", "-ERR", "421 4.3.2"][program.protocol as usize]).await;
        assert_eq!(program.client.rest().await, b"");
    }
    idle.client.expect("* BYE").await;
    assert_eq!(idle.client.rest().await, b"");
    sender.client.expect("421 4.3.2").await;
    assert_eq!(sender.client.rest().await, b"");
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_is_being_sent_arrives() {
    let service = Service::with(|config| config).await;
    let port = service.house.port(Protocol::Imap, Security::Clear);
    let (mut sender, mut idle) =
        (service.house.logged_in(Protocol::Smtp).await, service.house.logged_in(Protocol::Smtp).await);
    for (command, reply) in [("MAIL FROM:<>", "250"), (&*format!("RCPT TO:<{BEN}>"), "250"), ("DATA", "354")] {
        sender.client.say(command).await;
        sender.client.expect(reply).await;
    }
    let message = stuffed(b"Subject: late\r\n\r\nHalf of it was sent when the stop came.\r\n");
    let (first, second) = message.split_at(20);
    sender.client.send(first).await;
    service.process.signal(Signal::TERM);
    closed(port).await;
    // Sessions in which nothing is under way have ended.
    idle.client.expect("421").await;
    assert_eq!(idle.client.rest().await, b"");
    sender.client.send(second).await;
    sender.client.expect("250").await;
    sender.client.expect("421").await;
    let provider = &service.house.provider;
    assert_eq!(provider.mailbox(BEN).len(), 1);
    assert_eq!(service.process.end().code, Some(0));
}

/// A thousand sessions, fifty of which are in the middle of a mail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_among_a_thousand_sessions_loses_none_of_fifty_mails() {
    raise_limit();
    let service = Service::with(|config| config).await;
    let port = service.house.port(Protocol::Imap, Security::Clear);
    let (mut idle, mut senders) = (Vec::new(), Vec::new());
    for _ in 0..950 {
        idle.push(service.house.logged_in(Protocol::Imap).await);
    }
    for _ in 0..50 {
        let mut sender = service.house.logged_in(Protocol::Smtp).await;
        for (command, reply) in [("MAIL FROM:<>", "250"), (&*format!("RCPT TO:<{BEN}>"), "250"), ("DATA", "354")] {
            sender.client.say(command).await;
            sender.client.expect(reply).await;
        }
        sender.client.send(b"Subject: one of fifty\r\n").await;
        senders.push(sender);
    }
    let begun = Instant::now();
    service.process.signal(Signal::TERM);
    closed(port).await;
    let closed_after = begun.elapsed();
    // They have half a minute, and no longer.
    for sender in &mut senders {
        sender.client.send(&stuffed(b"\r\nwhole\r\n")).await;
        sender.client.expect("250").await;
    }
    for sender in &mut senders {
        sender.client.expect("421").await;
    }
    for session in &mut idle {
        session.client.expect("* BYE").await;
    }
    assert_eq!(service.house.provider.mailbox(BEN).len(), 50);
    let ended = service.process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    println!("no client is accepted after {closed_after:?}, the end after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_does_not_wait() {
    let service = Service::with(|config| config).await;
    let port = service.house.port(Protocol::Imap, Security::Clear);
    let mut sender = service.house.logged_in(Protocol::Smtp).await;
    // A command without an end counts as under way for as long as it may.
    sender.client.send(b"NOO").await;
    let begun = Instant::now();
    service.process.signal(Signal::TERM);
    closed(port).await;
    service.process.signal(Signal::INT);
    let ended = service.process.end();
    assert!(ended.code == Some(0) && ended.err.contains("stopped without waiting"), "{}", ended.err);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_is_under_way_ends_and_is_stored() {
    let mut service = Service::with(|config| config).await;
    let before = service.house.state().await["token_expires"].clone();
    service.house.provider.revoke_access_tokens();
    service.house.provider.change(|settings| {
        settings.token_endpoint = TokenEndpoint::Delay(Duration::from_secs(2));
    });
    let mut program = service.house.program(Protocol::Imap, Security::Clear).await;
    program.client.say(&format!("a LOGIN {ANN} {}", service.house.password)).await;
    let provider = &service.house.provider;
    until("the refresh to begin", async || provider.token_requests("refresh_token") == 1).await;
    service.process.signal(Signal::TERM);
    program.client.expect("a NO [UNAVAILABLE]").await;
    program.client.expect("* BYE").await;
    let (house, ended) = (service.house, service.process.end());
    assert!(ended.code == Some(0) && ended.err.contains("stopped"), "{}", ended.err);
    service = Service::start(house, Default::default()).await;
    assert_ne!(service.house.state().await["token_expires"], before);
}
