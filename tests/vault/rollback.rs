//! Older files put back in the place of newer ones, and the counters that show it.

use std::fs;

use postkey::vault::password::Password;

use crate::damage::duplicate;
use crate::{
    ADDRESSES, ANN, BEN, EVE, NEWEST, NOW, assert_newest, authorization, folder, refresh_token, reopen, tokens,
    vault_of_three,
};

#[test]
fn older_files_in_the_place_of_both_copies_are_noticed() {
    let dir = folder();
    let (state, before) = (dir.path().join("state"), dir.path().join("before"));
    let password = vault_of_three(&state);
    let removed = Password::generate();
    let vault = reopen(&state);
    vault.add_slot(ANN, &password, "leaked", &removed, postkey::vault::Limits::default(), NOW).unwrap();
    drop(vault);
    duplicate(&state, &before);
    let vault = reopen(&state);
    vault.remove_slot(ANN, "leaked").unwrap();
    vault.forget(EVE).unwrap();
    drop(vault);
    for part in ["copies", "sled"] {
        duplicate(&before.join(part), &state.join(part));
    }
    for _ in 0..2 {
        let vault = reopen(&state);
        assert_eq!(ADDRESSES.map(|address| vault.account(address).unwrap().rolled_back), [true, false, true]);
    }
    let vault = reopen(&state);
    vault.keep(ANN, NEWEST, &tokens(ANN, 5)).unwrap();
    assert!(vault.account(ANN).unwrap().rolled_back, "a refresh does not take the app password away");
    vault.authorize(&authorization(ANN, 6), None, NOW).unwrap();
    assert!(!vault.account(ANN).unwrap().rolled_back);
    drop(vault);
    for part in ["copies", "sled"] {
        fs::remove_dir_all(state.join(part)).unwrap();
    }
    assert_eq!(reopen(&state).damaged(), ADDRESSES, "both copies are gone");
}

#[test]
fn damaged_counters_are_no_reason_for_an_alarm() {
    let dir = folder();
    let state = dir.path().join("state");
    let password = vault_of_three(&state);
    for bytes in [&b""[..], b"nonsense", b"postkey-counters 1 AAAA\n9999999999 account ann@example.test\n"] {
        fs::write(state.join("counters"), bytes).unwrap();
        let vault = reopen(&state);
        assert!(vault.accounts().iter().all(|account| !account.rolled_back));
        assert_newest(&vault, &password, "with damaged counters");
    }
}

#[test]
fn counters_that_begin_again_know_every_record() {
    let dir = folder();
    let (state, before) = (dir.path().join("state"), dir.path().join("before"));
    vault_of_three(&state);
    duplicate(&state, &before);
    reopen(&state).keep(ANN, NEWEST, &tokens(ANN, 5)).unwrap();
    for name in ["counters", "counters.log"] {
        fs::remove_file(state.join(name)).unwrap();
    }
    drop(reopen(&state));
    for part in ["copies", "sled"] {
        duplicate(&before.join(part), &state.join(part));
    }
    let vault = reopen(&state);
    assert_eq!(ADDRESSES.map(|address| vault.account(address).unwrap().rolled_back), [true, false, false]);
}

#[test]
fn counters_that_begin_again_miss_no_account_that_was_forgotten() {
    let dir = folder();
    let state = dir.path().join("state");
    vault_of_three(&state);
    reopen(&state).forget(EVE).unwrap();
    for name in ["counters", "counters.log"] {
        fs::remove_file(state.join(name)).unwrap();
    }
    drop(reopen(&state));
    for part in ["copies", "sled"] {
        fs::remove_dir_all(state.join(part)).unwrap();
    }
    assert_eq!(reopen(&state).damaged(), [ANN, BEN]);
}

#[test]
fn a_write_that_only_one_copy_has_taken_counts() {
    let dir = folder();
    let (state, before) = (dir.path().join("state"), dir.path().join("before"));
    let password = vault_of_three(&state);
    duplicate(&state, &before);
    let vault = reopen(&state);
    // In the place of the draft, it prevents any file from being written.
    fs::create_dir(state.join("copies/%draft")).unwrap();
    vault.keep(ANN, NEWEST, &tokens(ANN, 5)).unwrap();
    assert!(vault.trouble().is_some());
    drop(vault);
    let vault = reopen(&state);
    assert_eq!(refresh_token(&vault, ANN, &password), Some(format!("refresh-{ANN}-5")));
    drop(vault);
    for part in ["copies", "sled"] {
        duplicate(&before.join(part), &state.join(part));
    }
    assert!(reopen(&state).account(ANN).unwrap().rolled_back);
}
