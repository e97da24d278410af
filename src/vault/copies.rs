//! The second copy of every record: a separate file for each account, so that damage to one does not affect the others.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::error::StoreError;
use super::files;
use super::memory_record::{Found, FoundRecord};
use super::record::Record;
use crate::name::Name;

/// The longest record that is read; a real one has 5 to 90 KiB.
const MOST: u64 = 4 * 1024 * 1024;

/// No account's file has this name, because a percent sign is followed by hexadecimal digits there.
const DRAFT: &str = "%draft";

/// The prefix of the file names of long addresses. The address is the file's first line.
const LONG: &str = "%long-";

/// The longest name, in bytes, that every file system supports. It is the limit of eCryptfs.
const LONGEST_NAME: usize = 143;

pub struct Copies {
    dir: PathBuf,
}

impl Copies {
    /// The copies in this vault.
    pub fn new(vault: &Path) -> Self {
        Self { dir: vault.join("copies") }
    }

    /// Reads all files. `read` turns the bytes of a key into what is found; a file that cannot be read is empty, which no record
    /// is.
    pub fn read(&self, mut read: impl FnMut(&str, Vec<u8>) -> FoundRecord) -> Result<Found, StoreError> {
        files::make_folder(&self.dir)?;
        files::check_folder(&self.dir)?;
        let (mut records, mut long) = (BTreeMap::new(), BTreeMap::new());
        for entry in std::fs::read_dir(&self.dir).map_err(StoreError::at(&self.dir))? {
            let name = entry.map_err(StoreError::at(&self.dir))?.file_name();
            let (path, Some(name)) = (self.dir.join(&name), name.to_str()) else { continue };
            if name.starts_with(LONG) {
                long.extend(read_long(&path, name)?.map(|(key, bytes)| (key.clone(), read(&key, bytes))));
            } else if let Some(key) = key(name) {
                let found = read(&key, read_file(&path)?);
                records.insert(key, found);
            } else if name != DRAFT {
                warn_of_foreign(&path);
            }
        }
        for key in foreign(&records) {
            warn_of_foreign(&self.path(&key));
            records.remove(&key);
        }
        // An earlier version used the spelled name up to 255 bytes, so a file with the prefix is newer.
        records.extend(long);
        // A crash leaves a draft, which may contain something that has been removed since.
        let _missing = std::fs::remove_file(self.dir.join(DRAFT));
        Ok(records)
    }

    /// Replaces a record.
    pub fn put(&self, key: &str, record: &[u8]) -> Result<(), StoreError> {
        let (path, draft) = (self.path(key), self.dir.join(DRAFT));
        let spelled = spelled(key);
        if spelled.len() <= LONGEST_NAME {
            return files::replace(&path, &draft, record).map_err(StoreError::at(&path));
        }
        files::replace(&path, &draft, &[key.as_bytes(), b"\n", record].concat()).map_err(StoreError::at(&path))?;
        // An earlier version used this name.
        let _missing = std::fs::remove_file(self.dir.join(spelled));
        Ok(())
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.dir.join(name(key))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    match files::open_private(path) {
        Ok(file) => {
            if let Err(error) = file.take(MOST).read_to_end(&mut bytes) {
                warn!(file = %path.display(), %error, "cannot read {}: {error}", path.display());
                bytes.clear();
            }
        }
        Err(StoreError::Failed(_, error)) if error.kind() != io::ErrorKind::PermissionDenied => {
            warn!(file = %path.display(), %error, "cannot open {}: {error}", path.display());
        }
        Err(error) => return Err(error),
    }
    Ok(bytes)
}

fn warn_of_foreign(path: &Path) {
    let shown = path.display();
    warn!(file = %shown, "{shown} is not a record of the vault, so it is ignored; move it away if you do not need it");
}

/// The keys of files that are not records: an editor's, or a copy of a record under a name that contains the record's.
/// A damaged record is not one of them.
fn foreign(records: &Found) -> Vec<String> {
    let is_address = |key: &str| Name::address(key).is_ok_and(|address| address.as_str() == key);
    let is_copy = |key: &str, bytes: &[u8]| {
        records.keys().any(|other| other != key && key.contains(other.as_str()) && Record::read(other, bytes).is_some())
    };
    let is_foreign = |(key, found): &(&String, &FoundRecord)| match found {
        FoundRecord::Whole(_) => false,
        FoundRecord::Damaged(bytes) => !is_address(key) || is_copy(key, bytes),
    };
    records.iter().filter(is_foreign).map(|(key, _)| key.clone()).collect()
}

/// Reads a file whose first line is its key. None if the key does not match the file's name, because the account is
/// unknown then.
fn read_long(path: &Path, file_name: &str) -> Result<Option<(String, Vec<u8>)>, StoreError> {
    let mut bytes = read_file(path)?;
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let key = bytes.get(..end).and_then(|key| std::str::from_utf8(key).ok()).map(str::to_owned);
    match key.filter(|key| name(key) == file_name) {
        Some(key) => Ok(Some((key, bytes.split_off(end + 1)))),
        None => {
            warn!(file = %path.display(), "{} is damaged; the vault's other copy is used", path.display());
            Ok(None)
        }
    }
}

/// Whether an earlier version could not create a file for this address.
pub fn had_no_file(key: &str) -> bool {
    spelled(key).len() > 255
}

/// The name of an address's file.
fn name(key: &str) -> String {
    let spelled = spelled(key);
    match spelled.len() <= LONGEST_NAME {
        true => spelled,
        false => Sha256::digest(key).iter().fold(LONG.to_owned(), |name, byte| format!("{name}{byte:02x}")),
    }
}

/// An address as a file name, with percent-encoding for what such a name cannot contain or begin with.
fn spelled(key: &str) -> String {
    let mut name = String::new();
    for c in key.chars() {
        match c {
            '.' if !name.is_empty() => name.push('.'),
            '/' | '%' | '.' | '\0'..='\x1f' | '\x7f' => name += &format!("%{:02x}", u32::from(c)),
            c => name.push(c),
        }
    }
    name
}

/// The address of this file name, the reverse of [`spelled`].
fn key(file_name: &str) -> Option<String> {
    let mut parts = file_name.split('%');
    let mut key = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        key.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        key += rest;
    }
    (spelled(&key) == file_name).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_its_own_file_name() {
        for address in ["ann@example.test", "a/b%2f@example.test", ".a@example.test", "é@example.test", "..", "%draft"]
        {
            let name = name(address);
            assert_eq!(key(&name).as_deref(), Some(address), "{name}");
            assert!(!name.contains('/') && !name.starts_with('.') && name != DRAFT);
        }
        let long = format!("{}@example.test", "%".repeat(200));
        assert!(name(&long).len() <= LONGEST_NAME && name(&long) != name(&format!("a{long}")));
        assert_eq!(key(&name(&long)), None, "its key is in the file");
        for other in [DRAFT, "%41", ".hidden", "a%", "a%zz", "a%é"] {
            assert_eq!(key(other), None, "{other}");
        }
    }

    #[test]
    fn an_address_that_is_too_long_for_a_file_name_has_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::new(dir.path());
        let address = |length: usize| format!("{}@example.test", "/".repeat(length));
        let addresses: Vec<String> = [1, 43, 44, 80, 81, 82, 240].map(address).into();
        let read = || copies.read(|_, bytes| FoundRecord::Damaged(bytes)).unwrap();
        assert!(read().is_empty());
        // As an earlier version wrote it.
        std::fs::write(dir.path().join("copies").join(spelled(&address(50))), "older").unwrap();
        for key in addresses.iter().chain([&address(50)]) {
            copies.put(key, key.as_bytes()).unwrap();
        }
        let found = read();
        assert!(found.len() == 8 && found.iter().all(|(key, bytes)| key.as_bytes() == bytes.to_bytes(key)));
        std::fs::write(copies.path(&address(240)), "nonsense\nnonsense").unwrap();
        assert_eq!(read().len(), 7, "the account of that file is unknown");
    }
}
