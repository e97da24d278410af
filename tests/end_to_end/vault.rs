//! The vault under a running postkey.

use std::process::Command;
use std::time::{Duration, Instant};

use postkey::control::Request;
use postkey::protocol::{Protocol, Security};
use postkey::vault::password::Password;

use crate::support::house::{ANN, BEN, House, LIFE, PATIENCE, Way, accepted, skip};
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
async fn an_account_whose_records_are_damaged_is_named_and_the_others_work() {
    let mut house = House::open().await;
    let password = Password::generate();
    house.authorize(BEN, Some(("main", &password))).await;
    house.stop().await;
    let (state, password) = (house.config.state_dir.clone(), String::from_utf8(password.expose()).unwrap());
    std::fs::remove_dir_all(state.join("sled")).unwrap();
    std::fs::write(state.join("copies").join(ANN), "nonsense").unwrap();
    house.start().await;
    let mut program = house.program(Protocol::Imap, Security::Clear).await;
    assert!(accepted(Protocol::Imap, &program.log_in(Way::Plain, BEN, &password).await));
    assert!(!accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    let said = postkey(&house, &["status"]);
    assert!(said.contains("ann@example.test: its record in the vault is damaged; `postkey forget`"), "{said}");
    assert!(!said.contains("ben@example.test: its record"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_have_older_tokens_is_named() {
    let mut house = House::open().await;
    house.stop().await;
    std::fs::write(house.config.state_dir.join("copies").join(ANN), "nonsense").unwrap();
    for _ in 0..2 {
        house.restart().await;
        let said = postkey(&house, &["status"]);
        assert!(said.contains("may be older; if logins fail, run `postkey authorize ann@example.test`"), "{said}");
        assert!(
            postkey(&house, &["status", "--exit-code"])
                .contains("Perhaps with older tokens than it had: ann@example.test.")
        );
    }
    house.pass(LIFE);
    assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
    assert!(!postkey(&house, &["status"]).contains("older"), "a new token set has come");
}

/// Space comes back, and postkey is stopped before its next try to write.
#[tokio::test]
async fn a_stop_writes_what_only_memory_has() {
    let Some(disk) = Tmpfs::mount() else { return };
    let state = format!("state_dir = {:?}", disk.path().join("state"));
    let mut house = House::with(Security::Tls, |config| config.replace("state_dir = \"state\"", &state)).await;
    disk.fill();
    // The first one still fits into sled's file; after that not even sled takes anything.
    for _ in 0..2 {
        house.pass(LIFE);
        assert!(accepted(Protocol::Imap, &house.try_login(Protocol::Imap).await));
        // In the end its tries to write are seconds apart; an export waits for the one that is under way.
        for _ in 0..4 {
            skip(Duration::from_secs(4)).await;
            assert!(degraded(&house).await.is_some());
            house.command(&Request::Export { address: ANN.into() }).await;
        }
    }
    disk.empty();
    house.stop().await;
    house.start().await;
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
