//! The records of the vault, in memory and in two copies on the disk.
//!
//! Memory is what counts while we run: a change is in force at once, and on the disk as soon as the disk lets it. Each record
//! is written to its own file first and to sled second, and both are tried whatever comes of the first. One of them is
//! enough to survive a crash: when the vault is opened, the newest valid record of both wins, and the other copy is
//! written anew. The file goes first because it is the one that can be read when sled cannot, which on a full disk it can
//! not: so what a start on a full disk finds is the newest there is, unless the file itself could not be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use tracing::{error, info, warn};

use super::StoreError;
use super::copies::Copies;
use super::files;
use super::record::{FORMAT, Record};
use super::store::{self, Store};
use crate::clock::{Clock, Moment};

/// Since when, and why, the newest records are not in both copies.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Trouble {
    /// Since when.
    pub since: Moment,
    /// What failed.
    pub why: String,
}

/// All records by address, and where they are kept.
pub struct Records {
    dir: PathBuf,
    copies: Copies,
    /// None after it has failed, until it is opened anew.
    store: Option<Store>,
    newest: BTreeMap<String, Record>,
    /// Addresses that have nothing readable in either copy.
    lost: Vec<String>,
    /// Addresses whose file is damaged, and may have been newer than what sled has.
    doubtful: Vec<String>,
    trouble: Option<Trouble>,
    /// Sled's lock is gone while sled is closed; this one, on the folder, is held to the end.
    _lock: File,
}

/// What lies in one of the copies, by address.
pub type Found = BTreeMap<String, Vec<u8>>;

impl Records {
    /// Opens the records in this folder, or begins them. What cannot be written is no reason not to open, if there is
    /// anything to be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        files::make_folder(dir)?;
        files::check_folder(dir)?;
        let mut records = Self {
            dir: dir.to_owned(),
            copies: Copies::new(dir),
            store: None,
            newest: BTreeMap::new(),
            lost: Vec::new(),
            doubtful: Vec::new(),
            trouble: None,
            _lock: lock(dir)?,
        };
        match records.agree() {
            Err(error @ StoreError::Failed(..)) if !records.newest.is_empty() => records.note(error),
            opened => opened?,
        }
        Ok(records)
    }

    /// The newest record of each address.
    pub fn newest(&self) -> &BTreeMap<String, Record> {
        &self.newest
    }

    /// The addresses of which both copies are damaged.
    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    /// The addresses of which a newer record may have been lost: what is left is sled's alone, and sled takes damage for the
    /// end of its log.
    pub fn doubtful(&self) -> &[String] {
        &self.doubtful
    }

    /// What is wrong with the disk, if anything.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Takes a record in place of the one that was there, with a number above it and above `seen`. It is in force when this
    /// returns, and on stable storage unless there is [`Records::trouble`].
    pub fn put(&mut self, key: &str, content: Vec<u8>, seen: u64) {
        let record = Record { format: FORMAT, serial: self.next_serial(key).max(seen.saturating_add(1)), content };
        let bytes = record.to_bytes(key);
        self.newest.insert(key.to_owned(), record);
        self.lost.retain(|lost| lost != key);
        let copied = self.copies.put(key, &bytes);
        let stored = self.store.as_ref().map_or(Ok(()), |store| store.put(key, &bytes));
        if stored.is_err() {
            self.store = None;
        }
        if let Err(error) = copied.and(stored) {
            self.note(error);
        }
    }

    /// Tries to end the trouble: both copies are read anew, and written where they differ from what counts.
    pub fn heal(&mut self) {
        match (self.agree(), self.trouble.take()) {
            (Ok(()), Some(trouble)) => info!(since = %trouble.since, "the vault is on stable storage again"),
            (Ok(()), None) => {}
            (Err(error), trouble) => {
                self.trouble = trouble;
                self.note(error);
            }
        }
    }

    /// A record without a history that we know begins with the time in seconds: accounts are written less than once a
    /// second, so that is above whatever was there before, and what may come to light of it later does not win.
    fn next_serial(&self, key: &str) -> u64 {
        self.newest.get(key).map_or_else(|| Clock::System.now().0, |record| record.serial.saturating_add(1))
    }

    /// Said once; it lasts until [`Records::heal`] ends it.
    fn note(&mut self, error: StoreError) {
        if self.trouble.is_none() {
            error!(%error, "the vault works from memory until it can be written again; do not restart postkey before");
            self.trouble = Some(Trouble { since: Clock::System.now(), why: error.to_string() });
        }
    }

    /// Reads both copies, and writes the newest record wherever it is not. The first failure is returned; the rest is done
    /// all the same.
    fn agree(&mut self) -> Result<(), StoreError> {
        // Closed first: a handle that has failed does not recover, and sled's lock lets no second one be opened.
        self.store = None;
        let copied = self.copies.read();
        let stored = Store::open(&self.dir).map(|opened| match opened {
            Some((store, stored)) => {
                self.store = Some(store);
                stored
            }
            None => Found::new(),
        });
        self.choose(copied.as_ref().ok(), stored.as_ref().ok());
        let copied = copied.and_then(|copied| self.write_copies(&copied));
        let stored = stored.and_then(|stored| self.write_store(stored));
        copied.and(stored)
    }

    /// Takes the newest valid record of each address.
    fn choose(&mut self, copied: Option<&Found>, stored: Option<&Found>) {
        let found = copied.into_iter().chain(stored).flat_map(BTreeMap::keys);
        let keys: BTreeSet<String> = self.newest.keys().chain(found).cloned().collect();
        self.lost.clear();
        self.doubtful.clear();
        for key in keys {
            let read = |found: Option<&Found>| Record::read(&key, found?.get(&key)?);
            let candidates = [read(stored), read(copied), self.newest.remove(&key)];
            if let ([Some(record), None, None], Some(copied)) = (&candidates, copied)
                && !copied.get(&key).is_some_and(|damaged| record.is_left_in(&key, damaged))
            {
                error!(account = key, "the file of this record is damaged or gone; what sled has instead may be older");
                self.doubtful.push(key.clone());
            }
            // Of equals the last is taken: what is in memory, then the file.
            match candidates.into_iter().flatten().max_by_key(|record| record.serial) {
                Some(newest) => drop(self.newest.insert(key, newest)),
                None => {
                    error!(account = key, "both copies of the vault's record are damaged");
                    self.lost.push(key);
                }
            }
        }
    }

    /// Writes the files that differ from what counts.
    fn write_copies(&self, copied: &Found) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for (key, newest) in &self.newest {
            let bytes = newest.to_bytes(key);
            if copied.get(key) != Some(&bytes) {
                let written = self.copies.put(key, &bytes);
                if written.is_ok() {
                    report(key, &self.copies.path(key), copied.get(key), newest);
                }
                outcome = outcome.and(written);
            }
        }
        outcome
    }

    /// Makes sled anew if it differs from what counts: it has been damaged, or a crash came between file and sled.
    fn write_store(&mut self, stored: Found) -> Result<(), StoreError> {
        // What is lost stays in it, and stays named.
        let mut whole = stored.clone();
        whole.extend(self.newest.iter().map(|(key, newest)| (key.clone(), newest.to_bytes(key))));
        if self.store.is_some() && whole == stored {
            return Ok(());
        }
        self.store = None;
        self.store = Some(Store::make(&self.dir, &whole)?);
        for (key, newest) in self.newest.iter().filter(|(key, _)| whole.get(*key) != stored.get(*key)) {
            report(key, &store::path(&self.dir), stored.get(key), newest);
        }
        Ok(())
    }
}

/// Says what was wrong with a copy that has been put right.
fn report(key: &str, file: &Path, found: Option<&Vec<u8>>, newest: &Record) {
    let found = match found.map(|bytes| Record::read(key, bytes)) {
        None => "nothing".to_owned(),
        Some(None) => "a damaged record".to_owned(),
        Some(Some(record)) => format!("write {}", record.serial),
    };
    warn!(account = key, file = %file.display(), found, newest = newest.serial, "this copy was behind the other; healed");
}

/// Locks the vault's folder against other processes.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let folder = File::open(dir).map_err(|error| StoreError::failed(dir, error))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(StoreError::failed(dir, error)),
    }
}
