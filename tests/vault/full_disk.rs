//! A disk that is really full.

use postkey::vault::Vault;

use crate::tmpfs::Tmpfs;
use crate::{
    ADDRESSES, ANN, BEN, EVE, NEWEST, NOW, assert_newest, authorization, refresh_token, reopen, tokens, vault_of_three,
};

#[test]
fn changes_stay_in_memory_until_there_is_room_again() {
    let Some(disk) = Tmpfs::mount() else { return };
    let state = disk.path().join("state");
    let password = vault_of_three(&state);
    let vault = reopen(&state);
    let copy = || std::fs::read(state.join("copies").join(ANN)).unwrap();
    let before = copy();
    disk.fill();
    for generation in [5, 6, 7] {
        assert_eq!(vault.keep(ANN, generation - 1, &tokens(ANN, generation)).unwrap(), generation);
        assert_eq!(refresh_token(&vault, ANN, &password), Some(format!("refresh-{ANN}-{generation}")));
    }
    assert!(vault.trouble().is_some());
    assert_eq!(copy(), before, "a file on a full disk stays whole");
    assert!(vault.heal().is_empty());
    assert!(vault.trouble().is_some(), "there is no room yet");
    disk.empty();
    assert!(vault.heal().is_empty());
    assert!(vault.trouble().is_none());
    assert_eq!(vault.keep(BEN, NEWEST, &tokens(BEN, 5)).unwrap(), 5, "sled works again, too");
    drop(vault);
    for side in ["both", "sled", "copies"] {
        // Each copy alone is complete.
        let alone = disk.path().join(side);
        let copied = std::process::Command::new("cp").arg("--archive").args([&state, &alone]).status().unwrap();
        assert!(copied.success());
        match side {
            "sled" => std::fs::remove_dir_all(alone.join("copies")).unwrap(),
            "copies" => std::fs::remove_dir_all(alone.join("sled")).unwrap(),
            _ => {}
        }
        let vault = reopen(&alone);
        let newest = [7, 5, NEWEST];
        for (address, generation) in ADDRESSES.into_iter().zip(newest) {
            let expected = Some(format!("refresh-{address}-{generation}"));
            assert_eq!(refresh_token(&vault, address, &password), expected, "{side}");
        }
        drop(vault);
        std::fs::remove_dir_all(&alone).unwrap();
    }
}

#[test]
fn it_starts_on_a_full_disk_and_heals() {
    let Some(disk) = Tmpfs::mount() else { return };
    let state = disk.path().join("state");
    let password = vault_of_three(&state);
    disk.fill();
    let vault = reopen(&state);
    assert_newest(&vault, &password, "on a full disk");
    assert!(vault.trouble().is_some());
    assert_eq!(vault.keep(EVE, NEWEST, &tokens(EVE, 5)).unwrap(), 5);
    vault.forget(BEN).unwrap();
    vault.authorize(&authorization(BEN, 5), Some(("main", &password)), NOW).unwrap();
    disk.empty();
    vault.heal();
    assert!(vault.trouble().is_none());
    drop(vault);
    let vault = reopen(&state);
    for (address, generation) in [(ANN, NEWEST), (BEN, 5), (EVE, 5)] {
        assert_eq!(refresh_token(&vault, address, &password), Some(format!("refresh-{address}-{generation}")));
    }
}

#[test]
fn a_vault_cannot_begin_on_a_full_disk() {
    let Some(disk) = Tmpfs::mount() else { return };
    disk.fill();
    assert!(Vault::open(&disk.path().join("state")).is_err());
    disk.empty();
    assert!(Vault::open(&disk.path().join("state")).is_ok(), "what the first try has left does no harm");
}
