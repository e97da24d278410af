//! The messages to the service manager.

use crate::manager::{Service, Start, house};
use crate::support::house::{ANN, accepted};
use postkey::protocol::Protocol;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_is_reported_when_clients_are_served_and_not_before() {
    let mut service = Service::begin(house(|config| config).await, Start::default());
    let ready = service.hear("READY=1");
    assert!(ready.contains("STATUS=1 account.\n"), "{ready}");
    service.house.look().await;
    for protocol in Protocol::ALL {
        assert!(accepted(protocol, &service.house.try_login(protocol).await));
    }
    let (_, ended) = service.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_cannot_start_does_not_report_ready() {
    // Bound, so that no other process gets the port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut service =
        Service::begin(house(|config| config.replacen("127.0.0.1:0", &address, 1)).await, Start::default());
    service.process.hear_complaint(&format!("cannot listen on {address}"));
    assert!(service.has_said_nothing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watchdog_is_fed_as_often_as_it_wants() {
    let environment = [("WATCHDOG_USEC", "200000")];
    let start = Start { environment: &environment, ..Start::default() };
    let mut service = Service::start(house(|config| config).await, start).await;
    let begun = std::time::Instant::now();
    for _ in 0..5 {
        service.hear("WATCHDOG=1");
    }
    // Five pings, 100 ms apart; the first one may be there already.
    assert!(begun.elapsed().as_millis() >= 300, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_needs_a_person_is_in_the_status_and_the_log() {
    let environment = [("WATCHDOG_USEC", "200000")];
    let start = Start { environment: &environment, ..Start::default() };
    let mut service = Service::start(house(|config| config).await, start).await;
    service.house.provider.revoke_access_tokens();
    service.house.provider.end_grant(ANN);
    assert!(!accepted(Protocol::Imap, &service.house.try_login(Protocol::Imap).await));
    service.hear(&format!("STATUS=1 account. A person is needed for: {ANN}."));
    let line = service.process.hear_complaint(&format!("authorization of {ANN} ended: "));
    assert!(line.contains(&format!("run `postkey authorize {ANN}`")), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_and_stop_are_announced() {
    let mut service = Service::with(|config| config).await;
    service.process.signal(rustix::process::Signal::HUP);
    let reloading = service.hear("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    service.hear("READY=1");
    service.process.signal(rustix::process::Signal::TERM);
    let stopping = service.hear("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=45000000"), "{stopping}");
}
