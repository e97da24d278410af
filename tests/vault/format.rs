//! Format 1, the first released one, must be readable for ever. Its files lie beside this one as they were written then; a
//! later format adds its own, and migrates these.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use postkey::vault::backup::Backup;
use postkey::vault::password::Password;
use postkey::vault::{Ended, Limits, Vault};

use crate::{ANN, BEN, EVE, NOW, authorization, folder, refresh_token, reopen, tokens};

/// Opens every account in format 1's files; the first one has the form of a generated password, the other was chosen.
const PASSWORDS: [&[u8]; 2] = [b"abcde-fghjk-mnpqr-stvwx-yz2345", b"correct horse battery staple"];

fn format_1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vault/format-1")
}

/// What the files of format 1 hold.
fn check(vault: &Vault) {
    for password in PASSWORDS.map(Password::read) {
        assert_eq!(refresh_token(vault, ANN, &password), Some(format!("refresh-{ANN}-2")));
        assert_eq!(refresh_token(vault, BEN, &password), Some(format!("refresh-{BEN}-1")));
        let unlocked = vault.unlock(ANN, &password).unwrap();
        assert_eq!((unlocked.generation, unlocked.tokens.scope.as_str()), (2, "mail"));
        assert_eq!(unlocked.secrets.client_secret.unwrap().expose(), b"client-secret");
    }
    let (ann, ben) = (vault.account(ANN).unwrap(), vault.account(BEN).unwrap());
    assert!(vault.is_unsettled(ANN, 2) && ann.ended.is_none());
    assert_eq!(ben.ended.as_ref().unwrap().why, "revoked");
    assert_eq!(ann.slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["main", "chosen"]);
    assert_eq!((ann.authorized, ann.provider.as_str(), ann.client_id.as_deref()), (NOW, "own", Some("a-client")));
}

#[test]
fn a_vault_of_format_1_is_read() {
    let dir = folder();
    let (state, copies) = (dir.path().join("state"), dir.path().join("state/copies"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&copies).unwrap();
    for address in [ANN, BEN, EVE] {
        fs::copy(format_1().join(address), copies.join(address)).unwrap();
        fs::set_permissions(copies.join(address), Permissions::from_mode(0o600)).unwrap();
    }
    let vault = reopen(&state);
    check(&vault);
    let again = vault.authorize(&authorization(EVE, 1), None, NOW).unwrap();
    assert_eq!(again, 2, "what was forgotten counts on");
}

#[test]
fn a_backup_of_format_1_is_restored() {
    let dir = folder();
    let vault = Vault::open(&dir.path().join("state")).unwrap();
    for (address, record) in Backup::read(&format_1().join("backup")).unwrap().unwrap().records() {
        vault.restore(&address, record.as_bytes(), false).unwrap();
    }
    check(&vault);
}

/// Wrote the files. They stay as they are; a later format gets its own.
#[test]
#[ignore = "writes the files of a format, once"]
fn write_format_1() {
    let dir = folder();
    let vault = Vault::open(&dir.path().join("state")).unwrap();
    let [generated, chosen] = PASSWORDS.map(Password::read);
    for address in [ANN, BEN, EVE] {
        vault.authorize(&authorization(address, 1), Some(("main", &generated)), NOW).unwrap();
        vault.add_slot(address, &generated, "chosen", &chosen, Limits::default(), NOW).unwrap();
    }
    vault.keep(ANN, 1, &tokens(ANN, 2)).unwrap();
    vault.end(BEN, 1, Ended { at: NOW, why: "revoked".into() }).unwrap();
    vault.forget(EVE).unwrap();
    let mut backup = Backup::default();
    for address in [ANN, BEN] {
        backup.add(address.to_owned(), String::from_utf8(vault.export(address).unwrap()).unwrap());
    }
    backup.write(&format_1().join("backup")).unwrap();
    for address in [ANN, BEN, EVE] {
        fs::copy(dir.path().join("state/copies").join(address), format_1().join(address)).unwrap();
    }
}
