//! A panic in one session ends only that session, because each is a task.

use postkey::protocol::{Protocol, Security};
use tokio::io::AsyncReadExt;

use crate::relay::pair;
use crate::support::canaries::arm_defect;
use crate::support::house::{House, PATIENCE, until};

#[tokio::test]
async fn a_panic_ends_its_session_and_no_other() {
    let house = House::open().await;
    for protocol in Protocol::ALL {
        let mut waits = house.program(protocol, Security::Clear).await;
        let (mut relays, mut lives) = (house.logged_in(protocol).await, house.logged_in(protocol).await);
        for unlucky in [&mut waits, &mut relays] {
            arm_defect();
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
            let text = house.metrics().await;
            [&open, &ended].iter().all(|line| text.lines().any(|other| other == **line))
        })
        .await;
    }
}

#[tokio::test]
async fn a_panic_closes_the_connection_to_the_provider_too() {
    let (_house, mut program, mut server) = pair(Security::Clear, "").await;
    arm_defect();
    program.client.say("a NOOP").await;
    assert!(program.client.is_closed().await);
    let end = tokio::time::timeout(PATIENCE, server.read(&mut [0; 64])).await.expect("an end in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
