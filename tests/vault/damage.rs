//! Flipped bits, truncations and lost files.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use postkey::vault::password::Password;
use postkey::vault::{Vault, VaultError};

use crate::{
    ADDRESSES, ANN, BEN, EVE, NEWEST, NOW, assert_newest, authorization, files, folder, refresh_token, reopen, tokens,
    vault_of_three,
};

/// Flipped bits and truncations of each of sled's two files, and of each of the three copies, for which the tests of
/// `record.rs` try every bit without a vault around it: 570 together.
const FLIPS: [u64; 2] = [140, 50];
const TRUNCATIONS: [u64; 2] = [50, 15];

/// The same in a complete run: 1020 flipped bits and 210 truncations.
const ALL_FLIPS: [u64; 2] = [300, 140];
const ALL_TRUNCATIONS: [u64; 2] = [60, 30];

/// How often both copies are damaged at once.
const BOTH: usize = 120;

/// Copies a vault with its modes.
pub fn duplicate(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = std::process::Command::new("cp").arg("--archive").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Whether the vault says that the tokens of an account may be older ones.
fn doubts(vault: &Vault) -> bool {
    vault.accounts().iter().any(|account| account.doubtful)
}

fn is_copy(file: &Path) -> bool {
    file.parent().unwrap().ends_with("copies")
}

/// Opens a vault with one damaged file: everything is there, and both copies are complete afterwards. With only the
/// beginning of a first line, postkey cannot know whether the other copy is older.
fn check(state: &Path, file: &Path, whole: &[u8], password: &Password, thorough: bool, what: &str) {
    let left = fs::metadata(file).unwrap().len();
    let vault = Vault::open(state).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(vault.trouble().is_none(), "{what}");
    let is_known = !is_copy(file) || left > 100;
    assert!(!is_known || !doubts(&vault), "{what}");
    assert_newest(&vault, password, what);
    drop(vault);
    if is_copy(file) && is_known {
        assert_eq!(fs::read(file).unwrap(), whole, "{what}");
    } else if !is_copy(file) && thorough {
        fs::remove_dir_all(state.join("copies")).unwrap();
        assert_newest(&reopen(state), password, &format!("{what}, from sled alone"));
    }
}

#[test]
fn any_damage_to_one_copy_is_healed_from_the_other_and_no_old_token_comes_back() {
    assert!(heal_from_damage(FLIPS, TRUNCATIONS) >= 570);
}

#[test]
#[ignore = "the same at length; `tests/run --soak` runs it"]
fn any_damage_at_all_is_healed() {
    let healed = heal_from_damage(ALL_FLIPS, ALL_TRUNCATIONS);
    println!("{healed} flipped bits and truncations, all healed from the other copy");
    assert!(healed >= 1200);
}

/// Damages each file of a vault this often, and has it healed. Returns how often that was.
fn heal_from_damage(flips: [u64; 2], truncations: [u64; 2]) -> u64 {
    let dir = folder();
    let (whole, state) = (dir.path().join("whole"), dir.path().join("state"));
    let password = vault_of_three(&whole);
    let (mut dice, mut trials) = (Dice(1), 0);
    let names: Vec<PathBuf> = files(&whole).iter().map(|path| path.strip_prefix(&whole).unwrap().to_owned()).collect();
    for name in names {
        let (bytes, file) = (fs::read(whole.join(&name)).unwrap(), state.join(&name));
        // Sled's log is mostly zeros after its end, so half of the damage goes to what has been written.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
        if written == 0 {
            continue;
        }
        let kind = usize::from(is_copy(&file));
        for trial in 0..flips[kind] + truncations[kind] {
            let place = dice.below(if trial % 2 == 0 { written } else { bytes.len() as u64 });
            let mut damaged = bytes.clone();
            match trial < flips[kind] {
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
    trials
}

#[test]
fn a_copy_that_steps_back_loses_against_the_newer_one() {
    let dir = folder();
    let (state, before) = (dir.path().join("state"), dir.path().join("before"));
    let password = vault_of_three(&state);
    duplicate(&state, &before);
    let newest = NEWEST + 1;
    reopen(&state).keep(ANN, NEWEST, &tokens(ANN, newest)).unwrap();
    for old in ["sled", "copies"] {
        let mixed = dir.path().join(format!("old-{old}"));
        duplicate(&state, &mixed);
        duplicate(&before.join(old), &mixed.join(old));
        let vault = reopen(&mixed);
        assert_eq!(refresh_token(&vault, ANN, &password), Some(format!("refresh-{ANN}-{newest}")), "old {old}");
        drop(vault);
        let other = if old == "sled" { "copies" } else { "sled" };
        fs::remove_dir_all(mixed.join(other)).unwrap();
        let alone = refresh_token(&reopen(&mixed), ANN, &password);
        assert_eq!(alone, Some(format!("refresh-{ANN}-{newest}")), "{old} is put right");
    }
}

thread_local! {
    /// The log of this thread.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a vault logs about the copies that it repairs when it is opened.
fn repairs(state: &Path) -> Vec<String> {
    // One subscriber for all threads, because a line that a thread without one logs first would stay silent from then
    // on.
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init());
    LOGGED.take();
    drop(reopen(state));
    let text = String::from_utf8(LOGGED.take()).unwrap();
    let told = text.lines().filter_map(|line| line.split("copy of ").nth(1)?.split_once(" instead of write "));
    told.map(|(what, _)| what.replace(&format!("{}/", state.display()), "")).collect()
}

#[test]
fn the_log_names_each_copy_that_is_repaired() {
    let dir = folder();
    let (state, before) = (dir.path().join("state"), dir.path().join("before"));
    vault_of_three(&state);
    duplicate(&state, &before);
    reopen(&state).keep(ANN, NEWEST, &tokens(ANN, 5)).unwrap();
    assert_eq!(repairs(&state), Vec::<String>::new(), "both copies are the same");
    duplicate(&before.join("sled"), &state.join("sled"));
    fs::remove_file(state.join("copies").join(BEN)).unwrap();
    fs::OpenOptions::new().write(true).open(state.join("copies").join(EVE)).unwrap().set_len(100).unwrap();
    let record = fs::read_to_string(before.join("copies").join(ANN)).unwrap();
    let older = record.split(' ').nth(2).unwrap();
    let expected = [
        format!("{BEN} in copies/{BEN} repaired: it had nothing"),
        format!("{EVE} in copies/{EVE} repaired: it had a damaged record"),
        format!("{ANN} in sled/db repaired: it had write {older}"),
    ];
    assert_eq!(repairs(&state), expected);
    assert_eq!(repairs(&state), Vec::<String>::new());
}

/// Damages a file: in a bit, or at its end.
fn damage(file: &Path, dice: &mut Dice) -> String {
    let mut bytes = fs::read(file).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
    let place = dice.below(written) as usize;
    match dice.below(4) {
        0 => bytes.truncate(place),
        _ => bytes[place] ^= 1 << dice.below(8),
    }
    fs::write(file, &bytes).unwrap();
    format!("damaged at {place}, {} left", bytes.len())
}

/// Sled has an older record, because it is damaged itself or has been left behind, and the file of the newest is damaged.
#[test]
fn an_older_record_is_never_taken_in_silence() {
    let dir = folder();
    let (whole, state, before) = (dir.path().join("whole"), dir.path().join("state"), dir.path().join("before"));
    let password = vault_of_three(&whole);
    duplicate(&whole, &before);
    let newest = NEWEST + 1;
    reopen(&whole).keep(ANN, NEWEST, &tokens(ANN, newest)).unwrap();
    let (mut dice, mut older) = (Dice(2), 0);
    for trial in 0..BOTH {
        duplicate(&whole, &state);
        let mut what = String::new();
        match trial % 4 {
            0 => fs::remove_file(state.join("copies").join(ANN)).unwrap(),
            _ => what += &damage(&state.join("copies").join(ANN), &mut dice),
        }
        match trial % 2 {
            0 => duplicate(&before.join("sled"), &state.join("sled")),
            _ => what += &damage(&state.join("sled/db"), &mut dice),
        }
        let vault = reopen(&state);
        let token = refresh_token(&vault, ANN, &password);
        let is_newest = token == Some(format!("refresh-{ANN}-{newest}"));
        let is_doubtful = vault.account(ANN).is_some_and(|account| account.doubtful);
        assert!(is_newest || is_doubtful || vault.damaged() == [ANN], "trial {trial}: {what}, in silence: {token:?}");
        older += usize::from(token.is_some() && !is_newest);
        for address in [BEN, EVE] {
            assert_eq!(
                refresh_token(&vault, address, &password),
                Some(format!("refresh-{address}-{NEWEST}")),
                "{what}"
            );
        }
    }
    assert!(older > BOTH / 3, "only {older} were older");
}

#[test]
fn a_doubt_is_kept_until_a_new_token_set_comes() {
    let dir = folder();
    let state = dir.path().join("state");
    let password = vault_of_three(&state);
    fs::write(state.join("copies").join(ANN), b"").unwrap();
    for _ in 0..2 {
        assert!(reopen(&state).account(ANN).unwrap().doubtful);
    }
    let vault = reopen(&state);
    vault.add_slot(ANN, &password, "another", &Password::generate(), postkey::vault::Limits::default(), NOW).unwrap();
    assert!(vault.account(ANN).unwrap().doubtful, "that says nothing of the tokens");
    vault.keep(ANN, NEWEST, &tokens(ANN, 5)).unwrap();
    drop(vault);
    assert!(!doubts(&reopen(&state)));
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
    let vault = reopen(&state);
    assert_eq!(vault.damaged(), [ANN]);
    for password in [&password, &Password::generate()] {
        assert!(matches!(vault.unlock(ANN, password), Err(VaultError::Damaged(_))), "nobody knows if it is wrong");
    }
    let (no_password, stranger) = (authorization(ANN, 9), Password::generate());
    assert!(matches!(vault.authorize(&no_password, None, NOW), Err(VaultError::Damaged(_))));
    assert!(matches!(vault.begin(&no_password, ("main", &stranger), NOW), Err(VaultError::Exists(_))), "a first login");
    for address in [BEN, EVE] {
        assert_eq!(refresh_token(&vault, address, &password), Some(format!("refresh-{address}-{NEWEST}")));
    }
    vault.authorize(&authorization(ANN, 9), Some(("main", &password)), NOW).unwrap();
    assert!(vault.damaged().is_empty());
    drop(vault);
    assert_eq!(refresh_token(&reopen(&state), ANN, &password), Some(format!("refresh-{ANN}-9")));
}

/// A file that an administrator or an editor leaves beside a record is not an account.
#[test]
fn a_file_that_is_no_record_is_left_alone_and_a_damaged_record_is_named() {
    let dir = folder();
    let state = dir.path().join("state");
    let password = vault_of_three(&state);
    let copy = |name: &str| state.join("copies").join(name);
    let record = fs::read(copy(ANN)).unwrap();
    let names = [".bak", "~", ".2026-11-28", ".orig"].map(|behind| format!("{ANN}{behind}"));
    let names = names.into_iter().chain(["#", ".", "Copy of "].map(|before| format!("{before}{ANN}.swp")));
    let names: Vec<String> = names.chain(["notes".to_owned()]).collect();
    for name in &names {
        fs::copy(copy(ANN), copy(name)).unwrap();
    }
    let vault = reopen(&state);
    assert!(vault.damaged().is_empty() && vault.trouble().is_none(), "{:?}", vault.damaged());
    assert_newest(&vault, &password, "with other files");
    drop(vault);
    for name in &names {
        assert_eq!(fs::read(copy(name)).unwrap(), record, "{name}");
    }
    // Damaged, these could be records, and nobody knows whose.
    let longer = format!("{ANN}.org");
    fs::remove_dir_all(state.join("sled")).unwrap();
    for name in [BEN, &longer] {
        fs::copy(copy(EVE), copy(name)).unwrap();
        fs::OpenOptions::new().write(true).open(copy(name)).unwrap().set_len(100).unwrap();
    }
    assert_eq!(reopen(&state).damaged(), [&longer, BEN]);
}

#[test]
fn an_unreadable_sled_is_rebuilt() {
    let dir = folder();
    let state = dir.path().join("state");
    let password = vault_of_three(&state);
    fs::write(state.join("sled/conf"), b"segment_size: ten\nnonsense").unwrap();
    let vault = reopen(&state);
    assert_newest(&vault, &password, "without sled's conf");
    assert!(vault.trouble().is_none());
    drop(vault);
    assert!(state.join("sled.old/conf").exists());
    fs::remove_dir_all(state.join("copies")).unwrap();
    assert_newest(&reopen(&state), &password, "from the new sled alone");
}

#[test]
fn a_forgotten_account_does_not_come_back_and_counts_on() {
    let dir = folder();
    let (state, before) = (dir.path().join("state"), dir.path().join("before"));
    let password = vault_of_three(&state);
    duplicate(&state, &before);
    reopen(&state).forget(ANN).unwrap();
    for old in ["sled", "copies"] {
        let mixed = dir.path().join(format!("old-{old}"));
        duplicate(&state, &mixed);
        duplicate(&before.join(old), &mixed.join(old));
        assert!(reopen(&mixed).account(ANN).is_none(), "old {old}");
    }
    let vault = reopen(&state);
    assert!(matches!(vault.keep(ANN, NEWEST, &tokens(ANN, 9)), Err(VaultError::NoAccount(_))));
    let other = Password::generate();
    assert_eq!(vault.authorize(&authorization(ANN, 5), Some(("main", &other)), NOW).unwrap(), NEWEST + 1);
    // A refresh of the forgotten account was under way all the time.
    assert!(matches!(vault.keep(ANN, NEWEST, &tokens(ANN, 9)), Err(VaultError::Superseded(_))));
    assert!(refresh_token(&vault, ANN, &password).is_none());
    drop(vault);
    duplicate(&before.join("sled"), &state.join("sled"));
    let vault = reopen(&state);
    assert_eq!(refresh_token(&vault, ANN, &other), Some(format!("refresh-{ANN}-5")));
    assert_eq!(ADDRESSES.map(|address| vault.account(address).is_some()), [true; 3]);
}

#[test]
fn a_record_of_a_newer_version_is_left_alone() {
    let dir = folder();
    let state = dir.path().join("state");
    let password = vault_of_three(&state);
    let of_3 = crate::vouched(ANN, 4_000_000_000, "{}").replace("postkey-record 2", "postkey-record 3");
    let checksum = |format| crate::checksum(format, ANN, 4_000_000_000, "{}");
    fs::write(state.join("copies").join(ANN), of_3.replace(&checksum(2), &checksum(3))).unwrap();
    let vault = reopen(&state);
    assert!(matches!(vault.unlock(ANN, &password), Err(VaultError::Newer(_))));
    let refused = vault.authorize(&authorization(ANN, 9), Some(("main", &password)), NOW);
    assert!(matches!(refused, Err(VaultError::Newer(_))), "all of its app passwords would be gone");
    drop(vault);
    let copy = fs::read_to_string(state.join("copies").join(ANN)).unwrap();
    assert!(copy.starts_with("postkey-record 3 4000000000 "), "{copy}");
    reopen(&state).forget(ANN).unwrap();
    assert!(reopen(&state).damaged().is_empty());
}

#[test]
fn what_may_be_in_a_copy_that_cannot_be_read_is_not_lost() {
    let dir = folder();
    let (state, aside) = (dir.path().join("state"), dir.path().join("aside"));
    let password = vault_of_three(&state);
    fs::remove_file(state.join("copies").join(BEN)).unwrap();
    fs::rename(state.join("sled"), &aside).unwrap();
    fs::write(state.join("sled"), b"no folder").unwrap();
    let vault = reopen(&state);
    assert!(vault.trouble().is_some() && vault.damaged().is_empty(), "{:?}", vault.damaged());
    fs::remove_file(state.join("sled")).unwrap();
    fs::rename(&aside, state.join("sled")).unwrap();
    vault.heal();
    assert!(vault.trouble().is_none());
    assert_newest(&vault, &password, "after sled is back");
}

/// Where these bytes are in any file of the vault.
fn found(state: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes);
    files(state).into_iter().filter(holds).collect()
}

#[test]
fn what_was_removed_or_forgotten_is_gone_from_the_disk() {
    let dir = folder();
    let state = dir.path().join("state");
    let password = vault_of_three(&state);
    // A damaged sled is set aside, and a crash leaves a draft.
    fs::write(state.join("sled/conf"), b"segment_size: ten\nnonsense").unwrap();
    let vault = reopen(&state);
    vault
        .add_slot(ANN, &password, "leaked-slot", &Password::generate(), postkey::vault::Limits::default(), NOW)
        .unwrap();
    drop(vault);
    fs::copy(state.join("copies").join(ANN), state.join("copies/%draft")).unwrap();
    assert!(state.join("sled.old").exists());
    assert_eq!(found(&state, b"leaked-slot").len(), 3, "the copy, the draft and sled");
    let vault = reopen(&state);
    vault.remove_slot(ANN, "leaked-slot").unwrap();
    assert_eq!(found(&state, b"leaked-slot"), Vec::<PathBuf>::new());
    assert!(!state.join("sled.old").exists());
    vault.forget(BEN).unwrap();
    assert_eq!(found(&state, b"\"address\":\"ben@example.test\""), Vec::<PathBuf>::new());
    drop(vault);
    let vault = reopen(&state);
    assert!(vault.trouble().is_none() && vault.account(BEN).is_none());
    for address in [ANN, EVE] {
        assert_eq!(refresh_token(&vault, address, &password), Some(format!("refresh-{address}-{NEWEST}")));
    }
}
