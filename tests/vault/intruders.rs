//! Links, foreign owners, open modes, and a second process.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use postkey::vault::{StoreError, VaultError};

use crate::skipped::skipped;
use crate::{ANN, files, folder, reopen, try_reopen, vault_of_three};

/// The vault does not open, and the message names the file that prevents it.
fn assert_exposed(state: &Path, blamed: &Path) {
    match try_reopen(state) {
        Err(VaultError::Store(StoreError::Exposed(path))) => assert_eq!(path, blamed),
        Err(error) => panic!("{}: {error}", blamed.display()),
        Ok(_) => panic!("{} was not noticed", blamed.display()),
    }
}

#[test]
fn links_are_refused_and_not_followed() {
    let dir = folder();
    let state = dir.path().join("state");
    vault_of_three(&state);
    for name in ["copies/ann@example.test", "copies", "sled/db", "sled/conf", "sled"] {
        let (path, target) = (state.join(name), dir.path().join("target"));
        fs::rename(&path, &target).unwrap();
        symlink(&target, &path).unwrap();
        assert_exposed(&state, &path);
        fs::remove_file(&path).unwrap();
        fs::rename(&target, &path).unwrap();
    }
    reopen(&state);
    let link = dir.path().join("link");
    symlink(&state, &link).unwrap();
    assert_exposed(&link, &link);
}

#[test]
fn a_link_in_the_place_of_a_draft_is_not_written_through() {
    let dir = folder();
    let (state, target) = (dir.path().join("state"), dir.path().join("target"));
    vault_of_three(&state);
    fs::write(&target, "precious").unwrap();
    symlink(&target, state.join("copies/%draft")).unwrap();
    let vault = reopen(&state);
    vault.forget(ANN).unwrap();
    assert!(vault.trouble().is_none());
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn what_others_can_read_or_own_is_refused() {
    let dir = folder();
    let state = dir.path().join("state");
    vault_of_three(&state);
    for name in ["copies/ann@example.test", "copies", ""] {
        let path = state.join(name);
        let mode = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, Permissions::from_mode(mode.mode() | 0o040)).unwrap();
        assert_exposed(&state, &state.join(name));
        fs::set_permissions(&path, mode).unwrap();
    }
    for name in ["copies/ann@example.test", "copies", "sled/db", "sled", ""] {
        let path = state.join(name);
        if chown(&path, Some(1234), None).is_err() {
            skipped("in part: only root can give a file away");
            return;
        }
        assert_exposed(&state, &state.join(name));
        chown(&path, Some(0), None).unwrap();
    }
    reopen(&state);
}

#[test]
fn the_copies_are_closed_to_others() {
    let dir = folder();
    let state = dir.path().join("state");
    vault_of_three(&state);
    for path in files(&state.join("copies")) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    for name in ["", "copies"] {
        assert_eq!(fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777, 0o700, "{name}");
    }
}

#[test]
fn a_second_process_waits_and_then_fails() {
    let dir = folder();
    let state = dir.path().join("state");
    vault_of_three(&state);
    fs::write(dir.path().join("postkey.toml"), "state_dir = \"state\"\n").unwrap();
    let status = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postkey"));
        command.arg("--config").arg(dir.path().join("postkey.toml")).args(["status", "--json"]).output().unwrap()
    };
    let vault = reopen(&state);
    let refused = status();
    assert_eq!(refused.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use by another postkey"));
    drop(vault);
    assert!(status().status.success());
}
