//! A panic in one session: sessions are tasks, and only that one ends.

use std::cell::Cell;
use std::sync::Once;

use postkey::control::{Reply, Request};
use postkey::protocol::{Protocol, Security};
use tokio::io::AsyncReadExt;
use tracing::span::Id;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::relay::pair;
use crate::support::house::{House, PATIENCE, until};

thread_local! {
    /// Whether the next session that is polled on this thread panics. A test has all its sessions on its own thread.
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

/// A log that panics once when it is told to. Each session is polled within a span of its own, so this happens in the midst
/// of it, wherever it is, and no hook for tests has to be built into postkey.
struct Defect;

impl Defect {
    /// The log of the whole process, and not of a thread: tracing keeps for all threads whether anybody listens to a span,
    /// and asks the log of the thread that happens to come to it first, which would be another test's.
    fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing::subscriber::set_global_default(Registry::default().with(Self)).expect("the only log here");
            // Some may have been asked for while it was not in its place yet.
            tracing::callsite::rebuild_interest_cache();
        });
    }

    fn arm() {
        ARMED.set(true);
    }
}

impl Layer<Registry> for Defect {
    fn on_enter(&self, _: &Id, _: Context<'_, Registry>) {
        assert!(!ARMED.replace(false), "a defect for this test");
    }
}

#[tokio::test]
async fn a_panic_ends_its_session_and_no_other() {
    Defect::install();
    let house = House::open().await;
    for protocol in Protocol::ALL {
        let mut waits = house.program(protocol, Security::Clear).await;
        let (mut relays, mut lives) = (house.logged_in(protocol).await, house.logged_in(protocol).await);
        for unlucky in [&mut waits, &mut relays] {
            Defect::arm();
            unlucky.client.say("a NOOP").await;
            assert!(unlucky.client.is_closed().await, "{protocol}");
        }
        lives.prove().await;
        house.logged_in(protocol).await.prove().await;
        drop(lives);
        let (open, ended) =
            (format!("postkey_sessions{{protocol=\"{}\"}} 0", protocol.name()), protocol as usize * 2 + 2);
        let ended = format!("postkey_defects_total {ended}");
        until("none is counted as open, and each defect", async || {
            let Reply::Metrics(text) = house.command(&Request::Metrics).await else { panic!("no metrics") };
            [&open, &ended].iter().all(|line| text.lines().any(|other| other == **line))
        })
        .await;
    }
}

#[tokio::test]
async fn a_panic_closes_the_connection_to_the_provider_too() {
    Defect::install();
    let (_house, mut program, mut server) = pair(Security::Clear, "").await;
    Defect::arm();
    program.client.say("a NOOP").await;
    assert!(program.client.is_closed().await);
    let end = tokio::time::timeout(PATIENCE, server.read(&mut [0; 64])).await.expect("an end in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
