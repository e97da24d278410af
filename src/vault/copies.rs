//! The second copy of every record: a file of its own for each account, which no other account's damage reaches.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::StoreError;
use super::files;

/// The longest record that is read; a real one has 5 to 90 KiB.
const MOST: u64 = 4 * 1024 * 1024;

/// A name that no account's file has: there, a percent sign is followed by hexadecimal digits.
const DRAFT: &str = "%draft";

/// A folder of records.
pub struct Copies {
    dir: PathBuf,
}

impl Copies {
    /// The copies in this vault.
    pub fn new(vault: &Path) -> Self {
        Self { dir: vault.join("copies") }
    }

    /// All files, by key. A file that cannot be read is empty here, which no record is.
    pub fn read(&self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        files::make_folder(&self.dir)?;
        files::check_folder(&self.dir)?;
        let failed = |error| StoreError::failed(&self.dir, error);
        let mut records = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(key) = name.to_str().and_then(key) else { continue };
            records.insert(key, read_file(&self.dir.join(name))?);
        }
        Ok(records)
    }

    /// Writes a record in place of the one that was there.
    pub fn put(&self, key: &str, record: &[u8]) -> Result<(), StoreError> {
        let path = self.path(key);
        files::replace(&path, &self.dir.join(DRAFT), record).map_err(|error| StoreError::failed(&path, error))
    }

    /// The file of this key.
    pub fn path(&self, key: &str) -> PathBuf {
        self.dir.join(name(key))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    match files::open_closed(path) {
        Ok(file) => {
            if let Err(error) = file.take(MOST).read_to_end(&mut bytes) {
                warn!(file = %path.display(), %error, "this file of the vault cannot be read");
                bytes.clear();
            }
        }
        Err(StoreError::Failed(_, error)) if error.kind() != io::ErrorKind::PermissionDenied => {
            warn!(file = %path.display(), %error, "this file of the vault cannot be opened");
        }
        Err(error) => return Err(error),
    }
    Ok(bytes)
}

/// An address as a file's name: itself, but for what a name cannot hold or begin with.
fn name(key: &str) -> String {
    let mut name = String::new();
    for c in key.chars() {
        match c {
            '/' | '%' => name += &format!("%{:02x}", c as u32),
            '.' if name.is_empty() => name += "%2e",
            c if c.is_ascii_control() => name += &format!("%{:02x}", c as u32),
            c => name.push(c),
        }
    }
    name
}

/// The address that has this file name, if one has.
fn key(file_name: &str) -> Option<String> {
    let mut parts = file_name.split('%');
    let mut key = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        key.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        key += rest;
    }
    (name(&key) == file_name).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_a_name_of_its_own() {
        for address in ["ann@example.test", "a/b%2f@example.test", ".a@example.test", "é@example.test", "..", "%draft"]
        {
            let name = name(address);
            assert_eq!(key(&name).as_deref(), Some(address), "{name}");
            assert!(!name.contains('/') && !name.starts_with('.') && name != DRAFT);
        }
        for other in [DRAFT, "%41", ".hidden", "a%", "a%zz", "a%é"] {
            assert_eq!(key(other), None, "{other}");
        }
    }
}
