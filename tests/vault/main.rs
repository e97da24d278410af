//! The vault on disks and with files that are not as they should be.

mod backup;
mod damage;
mod format;
mod full_disk;
mod intruders;
mod postgresql;
mod rollback;
#[path = "../support/skipped.rs"]
mod skipped;
#[path = "../support/tmpfs.rs"]
mod tmpfs;

use std::path::{Path, PathBuf};

use postkey::clock::Moment;
use postkey::config::flow::Flow;
use postkey::secret::{Secret, Token};
use postkey::token::{Life, TokenSet};
use postkey::vault::password::Password;
use postkey::vault::{Authorization, Secrets, StoreError, Vault, VaultError};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub const ANN: &str = "ann@example.test";
pub const BEN: &str = "ben@example.test";
pub const EVE: &str = "eve@example.test";
pub const ADDRESSES: [&str; 3] = [ANN, BEN, EVE];
pub const NOW: Moment = Moment(1_800_000_000);

/// The number of token sets that each account has had in [`vault_of_three`].
pub const NEWEST: u64 = 4;

/// The token set of this generation.
pub fn tokens(address: &str, generation: u64) -> TokenSet {
    TokenSet {
        access: Token::parse(&format!("access-{address}-{generation}")).unwrap(),
        refresh: Token::parse(&format!("refresh-{address}-{generation}")),
        life: Life { issued: NOW, expires: NOW.after(3600) },
        scope: "mail".into(),
    }
}

pub fn authorization(address: &str, generation: u64) -> Authorization {
    Authorization {
        address: address.into(),
        provider: "own".into(),
        flow: Flow::AuthorizationCode,
        client_id: Some("a-client".into()),
        secrets: Secrets { client_secret: Some(Secret::new(b"client-secret".to_vec())), grant_secret: None },
        discovered: None,
        tokens: tokens(address, generation),
    }
}

/// A folder where fsync costs nothing.
pub fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// Begins a vault whose three accounts have been refreshed and changed in turns. One app password opens all of them.
pub fn vault_of_three(state: &Path) -> Password {
    let (vault, password) = (Vault::open(state).unwrap(), Password::generate());
    for address in ADDRESSES {
        vault.authorize(&authorization(address, 1), Some(("main", &password)), NOW).unwrap();
    }
    for generation in 2..=NEWEST {
        for address in ADDRESSES {
            assert_eq!(vault.keep(address, generation - 1, &tokens(address, generation)).unwrap(), generation);
        }
    }
    password
}

/// Opens a vault that was open just now. A process that another test starts meanwhile has a copy of its lock for a
/// moment, until it executes another program.
pub fn try_reopen(state: &Path) -> Result<Vault, VaultError> {
    loop {
        match Vault::open(state) {
            Err(VaultError::Store(StoreError::InUse(_))) => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// The same if nothing prevents it.
pub fn reopen(state: &Path) -> Vault {
    try_reopen(state).unwrap_or_else(|error| panic!("{}: {error}", state.display()))
}

/// The refresh token that the password decrypts, if any.
pub fn refresh_token(vault: &Vault, address: &str, password: &Password) -> Option<String> {
    let tokens = vault.unlock(address, password).ok()?.tokens;
    tokens.refresh.map(|token| token.expose().to_owned())
}

/// Asserts that every account's newest refresh token is there.
pub fn assert_newest(vault: &Vault, password: &Password, what: &str) {
    for address in ADDRESSES {
        let expected = format!("refresh-{address}-{NEWEST}");
        assert_eq!(refresh_token(vault, address, password), Some(expected), "{what}");
    }
    assert!(vault.damaged().is_empty(), "{what}");
}

/// All plain files of a vault.
pub fn files(state: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(state).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// A record of format 2 with this content, as anybody who can write to the files could make it: the checksum needs no
/// key.
pub fn vouched(address: &str, serial: u64, content: &str) -> String {
    format!("postkey-record 2 {serial} {}\n{content}", checksum(2, address, serial, content))
}

/// The checksum in a record's first line.
pub fn checksum(format: u32, address: &str, serial: u64, content: &str) -> String {
    use base64::Engine as _;
    let mut hash = Sha256::new();
    for part in [format!("{format} {serial}").as_bytes(), address.as_bytes(), content.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    base64::prelude::BASE64_STANDARD_NO_PAD.encode(hash.finalize())
}
