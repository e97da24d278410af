//! The records of the vault, in memory and in two copies on the disk.
//!
//! While postkey runs, the state in memory counts: a change takes effect at once, and is on the disk as soon as that works.
//! Each record is written to its file first and then to sled, even if the first write fails. One of them is enough to
//! survive a crash: when the vault is opened, the newest valid record of both wins, and the other copy is repaired. The file
//! comes first because sled cannot be read on a full disk, but files can. So a start on a full disk finds the newest
//! record, unless its file could not be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{error, info, warn};

use super::account::{Entry, StoredAccount};
use super::copies::{self, Copies};
use super::counters::Counters;
use super::error::{StoreError, VaultError};
use super::files;
use super::memory_record::{Found, FoundRecord, MemoryRecord, SharedOffers};
use super::record::{FORMAT, Record};
use super::storage::{Degradation, Purpose};
use super::store::{self, Aside, Store};
use crate::clock::Clock;

/// All records, in memory and on the disk.
pub struct Records {
    dir: PathBuf,
    copies: Copies,
    /// None after it has failed, until it is opened again.
    store: Option<Store>,
    newest: BTreeMap<String, MemoryRecord>,
    offers: SharedOffers,
    /// The addresses whose copies are both unreadable.
    lost: Vec<String>,
    /// The addresses whose file is damaged, and may have been newer than sled's record.
    doubtful: Vec<String>,
    /// The addresses whose copies are both older than the last write.
    rolled_back: Vec<String>,
    counters: Counters,
    trouble: Option<Degradation>,
    /// A lock on the folder, because sled has no lock while it is closed.
    _lock: File,
}

impl Records {
    /// Opens the records in this folder, or creates them. If there are records to read, a failed write is not an error.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        files::make_folder(dir)?;
        files::check_folder(dir)?;
        let mut records = Self {
            dir: dir.to_owned(),
            copies: Copies::new(dir),
            store: None,
            newest: BTreeMap::new(),
            offers: SharedOffers::default(),
            lost: Vec::new(),
            doubtful: Vec::new(),
            rolled_back: Vec::new(),
            counters: Counters::open(dir),
            trouble: None,
            _lock: files::lock_folder(dir)?,
        };
        match records.reconcile() {
            Err(error @ StoreError::Failed(..)) if !records.newest.is_empty() => records.degrade(error),
            opened => opened?,
        }
        Ok(records)
    }

    pub fn newest(&self) -> &BTreeMap<String, MemoryRecord> {
        &self.newest
    }

    pub fn lost(&self) -> &[String] {
        &self.lost
    }

    /// The addresses that may have lost a newer record: only sled's copy is left, and sled treats damage as the end of its
    /// log.
    pub fn doubtful(&self) -> &[String] {
        &self.doubtful
    }

    pub fn rolled_back(&self) -> &[String] {
        &self.rolled_back
    }

    /// The disk's fault, if there is one.
    pub fn trouble(&self) -> Option<&Degradation> {
        self.trouble.as_ref()
    }

    /// Replaces a record, with a serial above the old one's and above `seen`. It is in effect when this returns, and on
    /// stable storage unless there is [`Records::trouble`]. Returns the account, if there is one now.
    pub fn put(
        &mut self,
        key: &str,
        entry: Entry,
        seen: u64,
        purpose: Purpose,
    ) -> Result<Option<Arc<StoredAccount>>, VaultError> {
        let serial = self.next_serial(key).max(seen.saturating_add(1));
        let bytes = Record { format: FORMAT, serial, content: entry.to_content(key)? }.to_bytes(key);
        let record = MemoryRecord::new(serial, entry, &mut self.offers);
        let account = record.account();
        self.newest.insert(key.to_owned(), record);
        self.lost.retain(|lost| lost != key);
        let copied = self.copies.put(key, &bytes);
        let stored = match purpose {
            Purpose::Replace | Purpose::Tokens => self.store.as_ref().map_or(Ok(()), |store| store.put(key, &bytes)),
            Purpose::Erase | Purpose::Forget => self.rebuild_store(),
        };
        if stored.is_err() {
            self.store = None;
        }
        if copied.is_ok() || stored.is_ok() {
            self.counters.count(key, serial, purpose == Purpose::Forget);
        }
        if let Err(error) = copied.and(stored) {
            self.degrade(error);
        }
        Ok(account)
    }

    /// Sled's log still contains the old record, so sled is created again without it.
    fn rebuild_store(&mut self) -> Result<(), StoreError> {
        let Some(store) = self.store.take() else { return Ok(()) };
        let mut lost = Vec::new();
        for key in &self.lost {
            lost.extend(store.get(key)?.map(|bytes| (key, bytes)));
        }
        drop(store);
        self.store = Some(self.create_store(lost, Aside::Remove)?);
        Ok(())
    }

    /// Creates sled with the newest records. Lost ones stay in it, so that the next start reports them, too.
    fn create_store(&self, lost: Vec<(&String, Vec<u8>)>, aside: Aside) -> Result<Store, StoreError> {
        let newest = self.newest.iter().map(|(key, record)| (key, record.to_bytes(key)));
        Store::create(&self.dir, newest.chain(lost), aside)
    }

    /// Tries to end the trouble: reads both copies again, and writes what differs from the newest records.
    pub fn heal(&mut self) {
        match (self.reconcile(), self.trouble.take()) {
            (Ok(()), Some(trouble)) => {
                info!(since = %trouble.since, "the vault is on stable storage again; since {} it was not", trouble.since)
            }
            (Ok(()), None) => {}
            (Err(error), trouble) => {
                self.trouble = trouble;
                self.degrade(error);
            }
        }
    }

    /// A record without a known history starts with the time in seconds. Accounts are written less than once a second, so
    /// this is above every older serial, and an older copy that appears later does not win.
    fn next_serial(&self, key: &str) -> u64 {
        let known = [self.newest.get(key).map(|record| record.serial), self.counters.newest(key)];
        known.into_iter().max().flatten().map_or_else(|| Clock::System.now().0, |serial| serial.saturating_add(1))
    }

    /// Starts the trouble, and logs it once. It lasts until [`Records::heal`] ends it.
    fn degrade(&mut self, error: StoreError) {
        if self.trouble.is_none() {
            error!(%error, "cannot write the vault: {error}; postkey works from memory until it can, so do not restart it");
            self.trouble = Some(Degradation { since: Clock::System.now(), why: error.to_string() });
        }
    }

    /// Reads both copies, and writes the newest record to the copy that lacks it. Does all it can, and returns the first
    /// error.
    fn reconcile(&mut self) -> Result<(), StoreError> {
        // Closed first, because a handle that has failed does not recover, and sled's lock prevents a second one.
        self.store = None;
        let (newest, offers) = (&self.newest, &mut self.offers);
        let copied = self.copies.read(|key, bytes| FoundRecord::read(key, bytes, newest.get(key), offers));
        let like =
            |key: &str| copied.as_ref().ok().and_then(|copied| copied.get(key)?.whole()).or_else(|| newest.get(key));
        let stored = Store::open(&self.dir, |key, bytes| FoundRecord::read(key, bytes, like(key), offers));
        let stored = stored.map(|opened| match opened {
            Some((store, stored)) => {
                self.store = Some(store);
                stored
            }
            None => Found::new(),
        });
        self.choose_newest(copied.as_ref().ok(), stored.as_ref().ok());
        self.compare_counters(copied.is_ok() && stored.is_ok());
        let copied = copied.and_then(|copied| self.write_copies(&copied));
        let stored = stored.and_then(|stored| self.write_store(&stored));
        copied.and(stored)
    }

    /// Finds records that are gone, or older than the last known write. `is_all` is whether both copies could be read.
    fn compare_counters(&mut self, is_all: bool) {
        for key in self.counters.accounts().filter(|_| is_all) {
            if !self.newest.contains_key(key) && !self.lost.contains(key) {
                error!(account = key, "both copies of the vault's record of {key} are gone");
                self.lost.push(key.clone());
            }
        }
        let is_older = |key: &String, record: &MemoryRecord| {
            self.counters.newest(key).is_some_and(|newest| newest > record.serial) && !self.doubtful.contains(key)
        };
        let older = self.newest.iter().filter(|(key, record)| is_older(key, record)).map(|(key, _)| key.clone());
        self.rolled_back = older.collect();
        for key in &self.rolled_back {
            error!(account = key, "both copies of the vault's record of {key} are older than the last write");
        }
        let mut is_changed = false;
        for (key, record) in &self.newest {
            // A record from before there were counters.
            is_changed |= self.counters.newest(key).is_none()
                && self.counters.note(key, record.serial, matches!(record.entry(key), Some(Entry::Forgotten { .. })));
        }
        if is_changed {
            self.counters.write();
        }
    }

    /// Takes the newest valid record of each address.
    fn choose_newest(&mut self, copied: Option<&Found>, stored: Option<&Found>) {
        let found = copied.into_iter().chain(stored).flat_map(BTreeMap::keys);
        let keys: BTreeSet<String> = self.newest.keys().chain(found).cloned().collect();
        self.lost.clear();
        self.doubtful.clear();
        for key in keys {
            let read = |found: Option<&Found>| found?.get(&key)?.whole().cloned();
            let candidates = [read(stored), read(copied), self.newest.remove(&key)];
            if let ([Some(record), None, None], Some(copied)) = (&candidates, copied)
                && !copied
                    .get(&key)
                    .is_some_and(|damaged| record.to_record(&key).is_left_in(&key, &damaged.to_bytes(&key)))
                && !(record.format == 1 && copies::had_no_file(&key))
            {
                error!(
                    account = key,
                    "the file of the vault's record of {key} is damaged or gone; sled's copy is used, which may be older"
                );
                self.doubtful.push(key.clone());
            }
            // Of several with the same serial the last one wins, so memory comes before the file, and the file before sled.
            match candidates.into_iter().flatten().max_by_key(|record| record.serial) {
                Some(newest) => drop(self.newest.insert(key, newest)),
                None => {
                    error!(account = key, "both copies of the vault's record of {key} are damaged");
                    self.lost.push(key);
                }
            }
        }
    }

    /// Writes the files that differ from the newest records.
    fn write_copies(&self, copied: &Found) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for (key, newest) in self.behind(copied) {
            let written = self.copies.put(key, &newest.to_bytes(key));
            if written.is_ok() {
                report(key, &self.copies.path(key), copied.get(key), newest);
            }
            outcome = outcome.and(written);
        }
        outcome
    }

    /// Creates sled again if it differs from the newest records, because of damage or a crash between both writes.
    fn write_store(&mut self, stored: &Found) -> Result<(), StoreError> {
        if self.store.is_some() && self.behind(stored).next().is_none() {
            return Ok(());
        }
        // A damaged one is kept, because somebody may recover more from it. One that is only behind may contain what was
        // removed.
        let is_whole = self.store.is_some() && stored.values().all(|found| found.whole().is_some());
        self.store = None;
        let lost = stored.iter().filter(|(key, _)| !self.newest.contains_key(*key));
        let lost = lost.map(|(key, found)| (key, found.to_bytes(key))).collect();
        self.store = Some(self.create_store(lost, if is_whole { Aside::Remove } else { Aside::Keep })?);
        for (key, newest) in self.behind(stored) {
            report(key, &store::path(&self.dir), stored.get(key), newest);
        }
        Ok(())
    }

    /// The newest records that a copy lacks.
    fn behind<'a>(&'a self, found: &'a Found) -> impl Iterator<Item = (&'a String, &'a MemoryRecord)> {
        self.newest.iter().filter(|(key, newest)| {
            !found.get(*key).and_then(FoundRecord::whole).is_some_and(|found| newest.same_as(key, found))
        })
    }
}

/// Logs what was wrong with a copy that has been repaired.
fn report(key: &str, file: &Path, found: Option<&FoundRecord>, newest: &MemoryRecord) {
    let found = match found.map(FoundRecord::whole) {
        None => "nothing".to_owned(),
        Some(None) => "a damaged record".to_owned(),
        Some(Some(record)) => format!("write {}", record.serial),
    };
    let (file, newest) = (file.display(), newest.serial);
    warn!(account = key, %file, found, newest, "copy of {key} in {file} repaired: it had {found} instead of write {newest}");
}
