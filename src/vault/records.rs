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

use super::copies::{self, Copies};
use super::counters::Counters;
use super::error::StoreError;
use super::files;
use super::record::{FORMAT, Found, Record};
use super::store::{self, Aside, Store};
use crate::clock::{Clock, Moment};

/// Since when, and why, the newest records are not in both copies.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Degradation {
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
    /// Addresses of which both copies are older than the last write.
    rolled_back: Vec<String>,
    counters: Counters,
    trouble: Option<Degradation>,
    /// Sled's lock is gone while sled is closed; this one, on the folder, is held to the end.
    _lock: File,
}

/// What a write does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Takes the place of what was there.
    Replace,
    /// The same, and nothing of what was there is to be found on the disk.
    Erase,
    /// The same, and there is no account any more.
    Forget,
}

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
            rolled_back: Vec::new(),
            counters: Counters::open(dir),
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

    /// The addresses whose record is older than the last one that was written, in both copies.
    pub fn rolled_back(&self) -> &[String] {
        &self.rolled_back
    }

    /// What is wrong with the disk, if anything.
    pub fn trouble(&self) -> Option<&Degradation> {
        self.trouble.as_ref()
    }

    /// Takes a record in place of the one that was there, with a number above it and above `seen`. It is in force when this
    /// returns, and on stable storage unless there is [`Records::trouble`].
    pub fn put(&mut self, key: &str, content: Vec<u8>, seen: u64, purpose: Purpose) {
        let record = Record { format: FORMAT, serial: self.next_serial(key).max(seen.saturating_add(1)), content };
        let (bytes, serial) = (record.to_bytes(key), record.serial);
        self.newest.insert(key.to_owned(), record);
        self.lost.retain(|lost| lost != key);
        let copied = self.copies.put(key, &bytes);
        let stored = match purpose {
            Purpose::Replace => self.store.as_ref().map_or(Ok(()), |store| store.put(key, &bytes)),
            Purpose::Erase | Purpose::Forget => self.make_store_again(key, bytes),
        };
        if stored.is_err() {
            self.store = None;
        }
        if (copied.is_ok() || stored.is_ok()) && self.counters.note(key, serial, purpose == Purpose::Forget) {
            self.counters.write();
        }
        if let Err(error) = copied.and(stored) {
            self.note(error);
        }
    }

    /// Sled keeps in its log what was there before, so it is made again without it.
    fn make_store_again(&mut self, key: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let Some(store) = self.store.take() else { return Ok(()) };
        let mut whole = store.all()?;
        drop(store);
        whole.insert(key.to_owned(), bytes);
        self.store = Some(Store::make(&self.dir, &whole, Aside::Remove)?);
        Ok(())
    }

    /// Tries to end the trouble: both copies are read anew, and written where they differ from what counts.
    pub fn heal(&mut self) {
        match (self.agree(), self.trouble.take()) {
            (Ok(()), Some(trouble)) => {
                info!(since = %trouble.since, "the vault is on stable storage again; since {} it was not", trouble.since)
            }
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
        let known = [self.newest.get(key).map(|record| record.serial), self.counters.newest(key)];
        known.into_iter().max().flatten().map_or_else(|| Clock::System.now().0, |serial| serial.saturating_add(1))
    }

    /// Said once; it lasts until [`Records::heal`] ends it.
    fn note(&mut self, error: StoreError) {
        if self.trouble.is_none() {
            error!(%error, "cannot write the vault: {error}; postkey works from memory until it can, do not restart it before");
            self.trouble = Some(Degradation { since: Clock::System.now(), why: error.to_string() });
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
        self.compare_counters(copied.is_ok() && stored.is_ok());
        let copied = copied.and_then(|copied| self.write_copies(&copied));
        let stored = stored.and_then(|stored| self.write_store(stored));
        copied.and(stored)
    }

    /// Finds what is older than the last write that is known, or gone. `is_all` is whether both copies could be read.
    fn compare_counters(&mut self, is_all: bool) {
        let gone: Vec<String> =
            self.counters.accounts().filter(|key| is_all && !self.newest.contains_key(*key)).cloned().collect();
        for key in gone.into_iter().filter(|key| !self.lost.contains(key)).collect::<Vec<_>>() {
            error!(account = key, "both copies of the vault's record of {key} are gone");
            self.lost.push(key);
        }
        let is_older = |key: &String, record: &Record| {
            self.counters.newest(key).is_some_and(|newest| newest > record.serial) && !self.doubtful.contains(key)
        };
        let older = self.newest.iter().filter(|(key, record)| is_older(key, record)).map(|(key, _)| key.clone());
        self.rolled_back = older.collect();
        for key in &self.rolled_back {
            error!(
                account = key,
                "both copies of the vault's record of {key} are older than the last one that was written"
            );
        }
        let mut is_changed = false;
        for (key, record) in &self.newest {
            // Records from before there were counters. Whether the account is forgotten shows at its next write.
            is_changed |=
                self.counters.newest(key).is_none() && self.counters.note(key, record.serial, is_forgotten(record));
        }
        if is_changed {
            self.counters.write();
        }
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
                && !(record.format == 1 && copies::had_no_file(&key))
            {
                error!(
                    account = key,
                    "the file of the vault's record of {key} is damaged or gone; sled's copy is used, which may be older"
                );
                self.doubtful.push(key.clone());
            }
            // Of equals the last is taken: what is in memory, then the file.
            match candidates.into_iter().flatten().max_by_key(|record| record.serial) {
                Some(newest) => drop(self.newest.insert(key, newest)),
                None => {
                    error!(account = key, "both copies of the vault's record of {key} are damaged");
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
        // Damage is kept, for whoever wants to look for more in it. What is only behind may hold what was removed.
        let is_whole = self.store.is_some() && stored.iter().all(|(key, bytes)| Record::read(key, bytes).is_some());
        self.store = None;
        self.store = Some(Store::make(&self.dir, &whole, if is_whole { Aside::Remove } else { Aside::Keep })?);
        for (key, newest) in self.newest.iter().filter(|(key, _)| whole.get(*key) != stored.get(*key)) {
            report(key, &store::path(&self.dir), stored.get(key), newest);
        }
        Ok(())
    }
}

/// Whether a record says that its account is forgotten.
fn is_forgotten(record: &Record) -> bool {
    record.content.starts_with(br#"{"forgotten""#)
}

/// Says what was wrong with a copy that has been put right.
fn report(key: &str, file: &Path, found: Option<&Vec<u8>>, newest: &Record) {
    let found = match found.map(|bytes| Record::read(key, bytes)) {
        None => "nothing".to_owned(),
        Some(None) => "a damaged record".to_owned(),
        Some(Some(record)) => format!("write {}", record.serial),
    };
    let (file, newest) = (file.display(), newest.serial);
    warn!(account = key, %file, found, newest, "copy of {key} in {file} repaired: it had {found} in place of write {newest}");
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
