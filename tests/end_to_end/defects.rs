//! A panic in one session: sessions are tasks, and only that one ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postkey::control::{Reply, Request};
use postkey::protocol::{Protocol, Security};
use tokio::io::AsyncReadExt;
use tracing::span::Id;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::relay::pair;
use crate::support::house::{House, PATIENCE, until};

/// A log that panics once when it is told to. Each session is polled within a span of its own, so this happens in the midst
/// of it, wherever it is, and no hook for tests has to be built into postkey.
#[derive(Clone, Default)]
struct Defect(Arc<AtomicBool>);

impl Defect {
    fn log(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(Registry::default().with(self.clone()))
    }

    fn arm(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Layer<Registry> for Defect {
    fn on_enter(&self, _: &Id, _: Context<'_, Registry>) {
        assert!(!self.0.swap(false, Ordering::SeqCst), "a defect for this test");
    }
}

#[tokio::test]
async fn a_panic_ends_its_session_and_no_other() {
    let defect = Defect::default();
    let _log = defect.log();
    let house = House::open().await;
    for protocol in Protocol::ALL {
        let mut waits = house.program(protocol, Security::Clear).await;
        let (mut relays, mut lives) = (house.logged_in(protocol).await, house.logged_in(protocol).await);
        for unlucky in [&mut waits, &mut relays] {
            defect.arm();
            unlucky.client.say("a NOOP").await;
            assert!(unlucky.client.is_closed().await, "{protocol}");
        }
        lives.prove().await;
        house.logged_in(protocol).await.prove().await;
    }
}

#[tokio::test]
async fn a_session_that_a_panic_has_ended_is_not_counted_as_open() {
    let defect = Defect::default();
    let _log = defect.log();
    let house = House::open().await;
    let mut waits = house.program(Protocol::Imap, Security::Clear).await;
    let mut relays = house.logged_in(Protocol::Imap).await;
    let has = async |line: &str| match house.command(&Request::Metrics).await {
        Reply::Metrics(text) => text.lines().any(|one| one == line),
        _ => panic!("no metrics"),
    };
    assert!(has("postkey_sessions{protocol=\"imap\"} 2").await);
    for unlucky in [&mut waits, &mut relays] {
        defect.arm();
        unlucky.client.say("a NOOP").await;
        assert!(unlucky.client.is_closed().await);
    }
    until("the end of both", async || has("postkey_sessions{protocol=\"imap\"} 0").await).await;
    assert!(has("postkey_panics_total{task=\"session\"} 2").await);
}

#[tokio::test]
async fn a_panic_closes_the_connection_to_the_provider_too() {
    let defect = Defect::default();
    let _log = defect.log();
    let (_house, mut program, mut server) = pair(Security::Clear, "").await;
    defect.arm();
    program.client.say("a NOOP").await;
    assert!(program.client.is_closed().await);
    let end = tokio::time::timeout(PATIENCE, server.read(&mut [0; 64])).await.expect("an end in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
