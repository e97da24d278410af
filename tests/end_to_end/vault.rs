//! The vault under a running postkey.

use std::process::Command;
use std::time::{Duration, Instant};

use postkey::control::Request;
use postkey::protocol::{Protocol, Security};

use crate::support::house::{ANN, House, LIFE, PATIENCE, accepted};
use crate::support::tmpfs::Tmpfs;

/// Since when the daemon says that it is not on stable storage.
async fn degraded(house: &House) -> Option<String> {
    let status = serde_json::to_value(house.command(&Request::Status).await).unwrap();
    Some(status["Status"]["degraded"]["why"].as_str()?.to_owned())
}

/// What the command says, run beside the daemon.
fn postkey(house: &House, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkey"));
    let output = command.arg("--config").arg(&house.file).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_nothing_and_heals_without_a_login() {
    let Some(disk) = Tmpfs::mount() else { return };
    let state = format!("state_dir = {:?}", disk.path().join("state"));
    let mut house = House::with(Security::Tls, |config| config.replace("state_dir = \"state\"", &state)).await;
    disk.fill();
    house.pass(LIFE);
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await), "the new token is used from memory");
    assert!(degraded(&house).await.is_some());
    assert!(postkey(&house, &["status"]).contains("degraded: not on stable storage since "));
    disk.empty();
    let emptied = Instant::now();
    while degraded(&house).await.is_some() {
        assert!(emptied.elapsed() < PATIENCE, "it does not heal");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(emptied.elapsed() < Duration::from_secs(10), "{:?}", emptied.elapsed());
    house.restart().await;
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await), "the new token has been stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_taken_and_restored_while_the_daemon_runs() {
    let house = House::open().await;
    let file = house.folder.path().join("backup");
    let said = postkey(&house, &["backup", file.to_str().unwrap()]);
    assert!(said.contains("ann@example.test: in the backup"), "{said}");
    house.command(&Request::Forget { address: ANN.into(), password: None }).await;
    assert!(!accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    let said = postkey(&house, &["restore", file.to_str().unwrap()]);
    assert!(said.contains("ann@example.test: restored"), "{said}");
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
}
