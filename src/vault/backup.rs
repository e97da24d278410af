//! A backup: all accounts as they lie in the vault, sealed, in one file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::Path;

use super::account::{StoredAccount, exported};
use super::files;
use super::record::checksum;
use crate::guard;
use crate::random;

/// What a backup's first line begins with; format and checksum follow.
const MAGIC: &str = "postkey-backup 1";

/// The longest backup that is read; that is 1000 of the longest accounts.
const MOST: u64 = 100 * 1024 * 1024;

/// Accounts' records by address, as [`super::Vault::export`] gives them.
#[derive(Default)]
pub struct Backup(BTreeMap<String, String>);

impl Backup {
    /// Adds an account.
    pub fn add(&mut self, address: String, record: String) {
        self.0.insert(address, record);
    }

    /// The accounts in it.
    pub fn records(self) -> BTreeMap<String, String> {
        self.0
    }

    /// Writes it to a file that is closed to others and whole, or does nothing. A backup that was there is replaced.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        match std::fs::symlink_metadata(file) {
            Ok(about) if !about.is_file() => return Err(io::Error::other("it is there, and is no plain file")),
            _ => {}
        }
        // A name that nobody has used: what is there is not ours to remove.
        let mut draft = OsString::from(file);
        draft.push(format!(".{}", random::name()));
        files::write(file, Path::new(&draft), &self.to_bytes()?, std::fs::File::sync_all)?;
        files::sync_parent(file)
    }

    /// Reads a file. None if it is damaged in any place, or no backup that this version reads.
    pub fn read(file: &Path) -> io::Result<Option<Self>> {
        guard::readable(file)?;
        let mut bytes = Vec::new();
        std::fs::File::open(file)?.take(MOST).read_to_end(&mut bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// The accounts in it, as far as they are plain text.
    pub fn accounts(&self) -> Vec<StoredAccount> {
        let account = |(address, record): (&String, &String)| exported(address, record.as_bytes());
        self.0.iter().filter_map(|entry| account(entry).ok()).map(|(_, account)| *account).collect()
    }

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec_pretty(&self.0)?;
        let mut bytes = format!("{MAGIC} {}\n", checksum(&[MAGIC.as_bytes(), &json])).into_bytes();
        bytes.extend(json);
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let (header, json) = (lines.next()?, lines.next()?);
        let expected = format!("{MAGIC} {}", checksum(&[MAGIC.as_bytes(), json]));
        let backup: Self = (header == expected.as_bytes()).then(|| serde_json::from_slice(json).ok().map(Self))??;
        let is_whole = |(address, record): (&String, &String)| exported(address, record.as_bytes()).is_ok();
        backup.0.iter().all(is_whole).then_some(backup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_truncation_shows() {
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
    fn a_record_that_is_no_account_spoils_the_backup() {
        let mut backup = Backup::default();
        backup.add("ann@example.test".into(), "postkey-record 1 1 x\n{}".into());
        assert!(Backup::from_bytes(&backup.to_bytes().unwrap()).is_none());
    }
}
