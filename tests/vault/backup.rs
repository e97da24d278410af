//! Backups, with the command itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use postkey::vault::Restored;

use crate::{ADDRESSES, ANN, BEN, EVE, NEWEST, assert_newest, folder, refresh_token, reopen, tokens, vault_of_three};

fn postkey(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postkey"));
    command.arg("--config").arg(folder.join("postkey.toml")).args(arguments).current_dir(folder).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A configuration for the vault in `state` of this folder.
fn configure(folder: &Path) -> PathBuf {
    fs::write(folder.join("postkey.toml"), "state_dir = \"state\"\n").unwrap();
    folder.join("state")
}

#[test]
fn a_backup_brings_everything_back_on_another_machine() {
    let (here, there) = (folder(), folder());
    let password = vault_of_three(&configure(here.path()));
    let output = postkey(here.path(), &["backup", "file"]);
    assert!(output.status.success(), "{}", said(&output));
    let file = here.path().join("file");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let backup = fs::read(&file).unwrap();
    let secrets = ADDRESSES.map(|address| format!("refresh-{address}").into_bytes());
    for secret in secrets.into_iter().chain([b"client-secret".to_vec(), password.expose()]) {
        assert!(!backup.windows(secret.len()).any(|window| window == secret));
    }
    let state = configure(there.path());
    let output = postkey(there.path(), &["restore", file.to_str().unwrap()]);
    assert!(output.status.success() && said(&output).contains("eve@example.test: restored"), "{}", said(&output));
    assert_newest(&reopen(&state), &password, "restored");
    let again = said(&postkey(there.path(), &["restore", file.to_str().unwrap()]));
    assert!(again.contains("eve@example.test: unchanged, the same as in the backup"), "{again}");
}

#[test]
fn something_newer_is_replaced_only_by_force() {
    let dir = folder();
    let state = configure(dir.path());
    let password = vault_of_three(&state);
    assert!(postkey(dir.path(), &["backup", "file"]).status.success());
    let vault = reopen(&state);
    vault.keep(ANN, NEWEST, &tokens(ANN, 5)).unwrap();
    vault.forget(BEN).unwrap();
    drop(vault);
    let output = said(&postkey(dir.path(), &["restore", "file"]));
    assert!(output.contains("ann@example.test: kept, because it is newer"), "{output}");
    assert!(
        output.contains("ben@example.test: restored") && output.contains("eve@example.test: unchanged, the same as in"),
        "{output}"
    );
    let vault = reopen(&state);
    let expected = [(ANN, 5), (BEN, NEWEST), (EVE, NEWEST)];
    for (address, generation) in expected {
        assert_eq!(refresh_token(&vault, address, &password), Some(format!("refresh-{address}-{generation}")));
    }
    drop(vault);
    let output = said(&postkey(dir.path(), &["restore", "file", "--force"]));
    assert!(output.contains("ann@example.test: restored"), "{output}");
    assert_newest(&reopen(&state), &password, "by force");
}

#[test]
fn a_damaged_or_foreign_file_changes_nothing() {
    let dir = folder();
    let state = configure(dir.path());
    vault_of_three(&state);
    assert!(postkey(dir.path(), &["backup", "file"]).status.success());
    let whole = fs::read(dir.path().join("file")).unwrap();
    reopen(&state).forget(ANN).unwrap();
    let newer = String::from_utf8(whole.clone()).unwrap().replace("postkey-backup 1", "postkey-backup 2");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&b""[..], b"\x7fELF", newer.as_bytes(), &flipped, &whole[..whole.len() - 1]] {
        fs::write(dir.path().join("bad"), bytes).unwrap();
        let output = postkey(dir.path(), &["restore", "bad"]);
        assert_eq!(output.status.code(), Some(65), "{}", said(&output));
        assert!(said(&output).contains("nothing was changed"));
    }
    assert_eq!(postkey(dir.path(), &["restore", "missing"]).status.code(), Some(74));
    assert!(reopen(&state).account(ANN).is_none());
}

#[test]
fn an_account_is_restored_under_its_own_address_only() {
    let dir = folder();
    let state = dir.path().join("state");
    vault_of_three(&state);
    let vault = reopen(&state);
    let ann = vault.export(ANN).unwrap();
    assert!(vault.restore(BEN, &ann, true).is_err());
    assert_eq!(vault.restore(ANN, &ann, false).unwrap(), Restored::Same);
}

#[test]
fn a_file_that_is_not_plain_is_not_overwritten() {
    let dir = folder();
    vault_of_three(&configure(dir.path()));
    std::os::unix::fs::symlink("elsewhere", dir.path().join("link")).unwrap();
    for file in ["link", "state"] {
        assert_eq!(postkey(dir.path(), &["backup", file]).status.code(), Some(74), "{file}");
    }
    assert!(!dir.path().join("elsewhere").exists());
}
