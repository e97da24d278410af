//! The records in sled. No other file uses sled.
//!
//! Sled guarantees less than a rotated refresh token needs. Its `flush` ends in `sync_file_range`, which guarantees nothing
//! after a power cut, so each write is followed by an `fsync` of sled's log through a second handle. Sled treats damage as
//! the end of its log and silently returns older records, which `records.rs` detects. After that, sled writes where it will
//! not find the records again, so a damaged store is replaced, not repaired. A handle that has failed once keeps failing,
//! so it has to be dropped.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::error::StoreError;
use super::files;
use super::memory_record::{Found, FoundRecord};

/// How long to wait for the lock of a dropped handle. It takes some milliseconds.
const LINGERING: Duration = Duration::from_secs(2);

/// The fate of the old store after it has been replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// Keep it beside the new one.
    Keep,
    /// Remove it, and the one that was kept before.
    Remove,
}

/// Records by key, each write on stable storage when it returns.
pub struct Store {
    folder: PathBuf,
    db: Option<sled::Db>,
    /// A second handle on sled's log, to sync it.
    log: File,
}

impl Store {
    /// Opens the store in this vault and reads all records. `read` turns the bytes of a key into what is found. None if there is
    /// no store that sled can read.
    pub fn open(
        vault: &Path,
        read: impl FnMut(&str, Vec<u8>) -> FoundRecord,
    ) -> Result<Option<(Self, Found)>, StoreError> {
        let folder = vault.join("sled");
        files::check_own(&folder)?;
        for name in ["db", "conf", "blobs"] {
            files::check_own(&folder.join(name))?;
        }
        if !folder.exists() {
            return Ok(None);
        }
        let opened = Self::open_in(&folder).and_then(|store| store.records(read).map(|records| (store, records)));
        match opened {
            Err(error) if is_damage(&error) => {
                let file = folder.display();
                error!(%file, %error, "sled cannot read {file}: {error}; it is created again from the files beside it");
                Ok(None)
            }
            opened => opened.map(Some).map_err(StoreError::at(&folder)),
        }
    }

    /// Creates a new store with these records in place of the old one, which must be closed. It is renamed from another
    /// folder, so that it is there as a whole or not at all.
    pub fn create<K: AsRef<[u8]>>(
        vault: &Path,
        records: impl Iterator<Item = (K, Vec<u8>)>,
        aside: Aside,
    ) -> Result<Self, StoreError> {
        let [folder, new, old] = ["sled", "sled.new", "sled.old"].map(|name| vault.join(name));
        let create = || {
            remove_folder(&new)?;
            let store = Self::open_in(&new)?;
            for (key, record) in records {
                guarded(|| store.db()?.insert(&key, record))?;
            }
            drop(store);
            for entry in std::fs::read_dir(&new)? {
                File::open(entry?.path())?.sync_all()?;
            }
            files::sync_folder(&new)?;
            if folder.exists() {
                remove_folder(&old)?;
                std::fs::rename(&folder, &old)?;
            }
            std::fs::rename(&new, &folder)?;
            files::sync_folder(vault)?;
            if aside == Aside::Remove {
                remove_folder(&old)?;
            }
            Ok(Self::open_in(&folder)?)
        };
        create().map_err(StoreError::at::<io::Error>(&folder))
    }

    fn open_in(folder: &Path) -> sled::Result<Self> {
        remove_unfinished(folder)?;
        let db = Some(open_sled(folder)?);
        let log = File::open(folder.join("db"))?;
        let store = Self { folder: folder.to_owned(), db, log };
        store.sync()?;
        Ok(store)
    }

    fn records(&self, mut read: impl FnMut(&str, Vec<u8>) -> FoundRecord) -> sled::Result<Found> {
        guarded(|| {
            let mut found = |(key, record): (sled::IVec, sled::IVec)| {
                let key = String::from_utf8_lossy(&key).into_owned();
                let found = read(&key, record.to_vec());
                (key, found)
            };
            self.db()?.iter().map(|entry| entry.map(&mut found)).collect()
        })
    }

    /// The bytes of a record.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let read = guarded(|| self.db()?.get(key));
        read.map(|record| record.map(|record| record.to_vec())).map_err(StoreError::at(&self.folder))
    }

    /// Replaces a record.
    pub fn put(&self, key: &str, record: &[u8]) -> Result<(), StoreError> {
        let written = guarded(|| self.db()?.insert(key, record)).and_then(|_| self.sync());
        written.map_err(StoreError::at(&self.folder))
    }

    fn sync(&self) -> sled::Result<()> {
        guarded(|| self.db()?.flush())?;
        Ok(self.log.sync_all()?)
    }

    /// The handle, which is there until the store is dropped.
    fn db(&self) -> sled::Result<&sled::Db> {
        self.db.as_ref().ok_or_else(|| sled::Error::ReportableBug("the store is closed".to_owned()))
    }
}

/// After a failed write, sled panics when it is closed.
impl Drop for Store {
    fn drop(&mut self) {
        let db = self.db.take();
        let close = || {
            drop(db);
            Ok(())
        };
        if let Err(error) = guarded(close) {
            warn!(file = %self.folder.display(), %error, "cannot close sled in {}: {error}", self.folder.display());
        }
    }
}

/// The file with the records.
pub fn path(vault: &Path) -> PathBuf {
    vault.join("sled/db")
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes the snapshots that sled was writing when it was killed, because it does not open beside one.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Opens sled. The vault's folder is locked, so if sled's own lock is taken, it is by a handle that has just been dropped:
/// sled's threads hold it for some more milliseconds.
fn open_sled(folder: &Path) -> sled::Result<sled::Db> {
    // There are few records of a few KiB each, so sled's smallest cache is enough.
    let config = sled::Config::new().path(folder).cache_capacity(1024 * 1024).flush_every_ms(None);
    let deadline = Instant::now() + LINGERING;
    loop {
        match guarded(|| config.open()) {
            Err(sled::Error::Io(error)) if is_lock(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// Sled reports its lock only as text.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// Sled panics on some kinds of damage.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> sled::Result<T> {
    let defect = |_| Err(sled::Error::ReportableBug("sled panicked".to_owned()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(defect)
}

/// Whether sled rejects the bytes that it read. The system's own errors may be temporary.
fn is_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) if is_lock(error) || error.raw_os_error().is_some() => false,
        // When sled clones one of the system's errors, only the kind remains.
        sled::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other)
        }
        _ => true,
    }
}
