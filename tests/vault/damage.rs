//! Flipped bits, truncations and lost files.

use std::fs;
use std::path::{Path, PathBuf};

use postkey::vault::password::Password;
use postkey::vault::{Vault, VaultError};

use crate::{
    ADDRESSES, ANN, BEN, EVE, NEWEST, NOW, assert_newest, authorization, files, folder, refresh_token, tokens,
    vault_of_three,
};

/// Flipped bits and truncations of each of sled's two files, and of each of the three copies, of which `record.rs` tries
/// every bit without a vault around it: 570 together.
const FLIPS: [u64; 2] = [140, 50];
const TRUNCATIONS: [u64; 2] = [50, 15];

/// Copies a vault with its modes.
fn duplicate(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = std::process::Command::new("cp").arg("--archive").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn is_copy(file: &Path) -> bool {
    file.parent().unwrap().ends_with("copies")
}

/// Opens a vault with one damaged file: everything is there, and both copies are whole afterwards.
fn check(state: &Path, file: &Path, whole: &[u8], password: &Password, thorough: bool, what: &str) {
    let vault = Vault::open(state).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(vault.trouble().is_none(), "{what}");
    assert_newest(&vault, password, what);
    drop(vault);
    if is_copy(file) {
        assert_eq!(fs::read(file).unwrap(), whole, "{what}");
    } else if thorough {
        fs::remove_dir_all(state.join("copies")).unwrap();
        assert_newest(&Vault::open(state).unwrap(), password, &format!("{what}, from sled alone"));
    }
}

#[test]
fn any_damage_to_one_copy_is_healed_from_the_other_and_no_old_token_comes_back() {
    let dir = folder();
    let (whole, state) = (dir.path().join("whole"), dir.path().join("state"));
    let password = vault_of_three(&whole);
    let (mut dice, mut trials) = (Dice(1), 0);
    let names: Vec<PathBuf> = files(&whole).iter().map(|path| path.strip_prefix(&whole).unwrap().to_owned()).collect();
    for name in names {
        let (bytes, file) = (fs::read(whole.join(&name)).unwrap(), state.join(&name));
        // Sled's log is mostly zeros behind its end; half of the damage goes to what has been written.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
        if written == 0 {
            continue;
        }
        let kind = usize::from(is_copy(&file));
        for trial in 0..FLIPS[kind] + TRUNCATIONS[kind] {
            let place = dice.below(if trial % 2 == 0 { written } else { bytes.len() as u64 });
            let mut damaged = bytes.clone();
            match trial < FLIPS[kind] {
                true => damaged[place as usize] ^= 1 << dice.below(8),
                false => damaged.truncate(place as usize),
            }
            duplicate(&whole, &state);
            fs::write(&file, &damaged).unwrap();
            check(
                &state,
                &file,
                &bytes,
                &password,
                trial % 5 == 0,
                &format!("{} trial {trial} at {place}", name.display()),
            );
            trials += 1;
        }
    }
    assert!(trials >= 570, "{trials}");
}

#[test]
fn a_copy_that_steps_back_loses_against_the_newer_one() {
    let dir = folder();
    let (state, before) = (dir.path().join("state"), dir.path().join("before"));
    let password = vault_of_three(&state);
    duplicate(&state, &before);
    let newest = NEWEST + 1;
    Vault::open(&state).unwrap().keep(ANN, NEWEST, &tokens(ANN, newest)).unwrap();
    for old in ["sled", "copies"] {
        let mixed = dir.path().join(format!("old-{old}"));
        duplicate(&state, &mixed);
        duplicate(&before.join(old), &mixed.join(old));
        let vault = Vault::open(&mixed).unwrap();
        assert_eq!(refresh_token(&vault, ANN, &password), Some(format!("refresh-{ANN}-{newest}")), "old {old}");
    }
}

#[test]
fn what_both_copies_have_lost_is_named_and_the_others_work() {
    let dir = folder();
    let state = dir.path().join("state");
    let password = vault_of_three(&state);
    fs::remove_dir_all(state.join("sled")).unwrap();
    let mut record = fs::read(state.join("copies").join(ANN)).unwrap();
    record.truncate(100);
    fs::write(state.join("copies").join(ANN), record).unwrap();
    let vault = Vault::open(&state).unwrap();
    assert_eq!(vault.damaged(), [ANN]);
    assert!(matches!(vault.unlock(ANN, &password), Err(VaultError::WrongCredentials)));
    assert!(matches!(vault.authorize(&authorization(ANN, 9), None, NOW), Err(VaultError::Damaged(_))));
    for address in [BEN, EVE] {
        assert_eq!(refresh_token(&vault, address, &password), Some(format!("refresh-{address}-{NEWEST}")));
    }
    vault.forget(ANN).unwrap();
    assert!(vault.damaged().is_empty());
    vault.authorize(&authorization(ANN, 9), Some(("main", &password)), NOW).unwrap();
    drop(vault);
    assert_eq!(refresh_token(&Vault::open(&state).unwrap(), ANN, &password), Some(format!("refresh-{ANN}-9")));
}

#[test]
fn what_sled_cannot_read_at_all_is_made_anew() {
    let dir = folder();
    let state = dir.path().join("state");
    let password = vault_of_three(&state);
    fs::write(state.join("sled/conf"), b"segment_size: ten\nnonsense").unwrap();
    let vault = Vault::open(&state).unwrap();
    assert_newest(&vault, &password, "without sled's conf");
    assert!(vault.trouble().is_none());
    drop(vault);
    assert!(state.join("sled.old/conf").exists());
    fs::remove_dir_all(state.join("copies")).unwrap();
    assert_newest(&Vault::open(&state).unwrap(), &password, "from the new sled alone");
}

#[test]
fn a_forgotten_account_does_not_come_back_and_counts_on() {
    let dir = folder();
    let (state, before) = (dir.path().join("state"), dir.path().join("before"));
    let password = vault_of_three(&state);
    duplicate(&state, &before);
    Vault::open(&state).unwrap().forget(ANN).unwrap();
    for old in ["sled", "copies"] {
        let mixed = dir.path().join(format!("old-{old}"));
        duplicate(&state, &mixed);
        duplicate(&before.join(old), &mixed.join(old));
        assert!(Vault::open(&mixed).unwrap().account(ANN).is_none(), "old {old}");
    }
    let vault = Vault::open(&state).unwrap();
    assert!(matches!(vault.keep(ANN, NEWEST, &tokens(ANN, 9)), Err(VaultError::NoAccount(_))));
    let other = Password::generate();
    assert_eq!(vault.authorize(&authorization(ANN, 5), Some(("main", &other)), NOW).unwrap(), NEWEST + 1);
    // A refresh of the forgotten account was under way all the time.
    assert!(matches!(vault.keep(ANN, NEWEST, &tokens(ANN, 9)), Err(VaultError::Superseded(_))));
    assert!(refresh_token(&vault, ANN, &password).is_none());
    drop(vault);
    duplicate(&before.join("sled"), &state.join("sled"));
    let vault = Vault::open(&state).unwrap();
    assert_eq!(refresh_token(&vault, ANN, &other), Some(format!("refresh-{ANN}-5")));
    assert_eq!(ADDRESSES.map(|address| vault.account(address).is_some()), [true; 3]);
}
