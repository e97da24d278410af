//! A backup: all accounts in one file, sealed as they are in the vault.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::account::{StoredAccount, exported};
use super::files;
use super::record::checksum;
use crate::guard;
use crate::random;

/// The beginning of a backup's first line; a checksum follows.
const MAGIC: &str = "postkey-backup 1";

/// The longest backup that is read, in bytes: 10,000 of the longest accounts.
const MOST: u64 = 1024 * 1024 * 1024;

/// Accounts' records by address, as [`super::Vault::export`] gives them.
#[derive(Default)]
pub struct Backup(BTreeMap<String, String>);

impl Backup {
    pub fn add(&mut self, address: String, record: String) {
        self.0.insert(address, record);
    }

    pub fn records(self) -> BTreeMap<String, String> {
        self.0
    }

    /// Writes it to a file that is inaccessible to others. An older backup there is replaced as a whole, or not at all.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        match std::fs::symlink_metadata(file) {
            Ok(about) if !about.is_file() => return Err(io::Error::other("it exists and is not a regular file")),
            _ => {}
        }
        // An unused name, because we must not remove a file of somebody else.
        let mut draft = OsString::from(file);
        draft.push(format!(".{}", random::name()));
        files::write(file, Path::new(&draft), &self.to_bytes()?, std::fs::File::sync_all)?;
        files::sync_parent(file)
    }

    /// Reads a file. None if it is damaged anywhere, or is not a backup that this version can read.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        guard::readable(file)?;
        let mut bytes = Vec::new();
        std::fs::File::open(file)?.take(MOST).read_to_end(&mut bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// The accounts in it, without what is sealed.
    pub fn accounts(&self) -> Vec<Arc<StoredAccount>> {
        let account = |(address, record): (&String, &String)| exported(address, record.as_bytes()).ok();
        self.0.iter().filter_map(account).map(|(_, account)| account).collect()
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec_pretty(&self.0)?;
        Ok([first_line(&json).as_bytes(), b"\n", &json].concat())
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let (first, json) = (lines.next()?, lines.next()?);
        if first != first_line(json).as_bytes() {
            return None;
        }
        let backup = Self(serde_json::from_slice(json).ok()?);
        (backup.accounts().len() == backup.0.len()).then_some(backup)
    }
}

fn first_line(json: &[u8]) -> String {
    format!("{MAGIC} {}", checksum(&[MAGIC.as_bytes(), json]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_truncation_is_detected() {
        let backup = Backup::default().to_bytes().unwrap();
        assert!(Backup::from_bytes(&backup).is_some());
        for bit in 0..backup.len() * 8 {
            let mut damaged = backup.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Backup::from_bytes(&damaged).is_none(), "bit {bit}");
        }
        for length in 0..backup.len() {
            assert!(Backup::from_bytes(&backup[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn a_backup_with_a_record_that_is_not_an_account_is_refused() {
        let mut backup = Backup::default();
        backup.add("ann@example.test".into(), "postkey-record 1 1 x\n{}".into());
        assert!(Backup::from_bytes(&backup.to_bytes().unwrap()).is_none());
    }
}
