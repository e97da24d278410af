//! Records in sled: the only file that knows it.
//!
//! What sled promises is less than what a rotated refresh token needs. Its `flush` ends in `sync_file_range`, which after a
//! power cut guarantees nothing, so each write is followed by an `fsync` of sled's log through a handle of our own. It takes
//! damage for the end of its log, and answers with older records as if nothing had happened: `records.rs` notices. It then
//! goes on writing where it will not find it again, so a damaged store is made anew rather than put right. A handle that
//! failed once fails for ever, so whoever sees it fail drops it.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::error::StoreError;
use super::files;
use super::record::Found;

/// How long to wait for a dropped handle's lock to go; it takes some milliseconds.
const LINGERING: Duration = Duration::from_secs(2);

/// What becomes of the store in whose place another one is put.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It stays beside the new one.
    Keep,
    /// It goes, and so does one that was kept before.
    Remove,
}

/// Records by key, each write on stable storage when it returns.
pub struct Store {
    folder: PathBuf,
    db: Option<sled::Db>,
    /// Sled's log, opened a second time to be synced.
    log: File,
}

impl Store {
    /// Opens the store in this vault, and all records in it. None if there is none that sled can read.
    pub fn open(vault: &Path) -> Result<Option<(Self, Found)>, StoreError> {
        let folder = vault.join("sled");
        files::check_own(&folder)?;
        for name in ["db", "conf", "blobs"] {
            files::check_own(&folder.join(name))?;
        }
        if !folder.exists() {
            return Ok(None);
        }
        let opened = Self::open_in(&folder).and_then(|store| store.records().map(|records| (store, records)));
        match opened {
            Err(error) if is_damage(&error) => {
                let file = folder.display();
                error!(%file, %error, "sled cannot read {file}: {error}; it is made again from the files beside it");
                Ok(None)
            }
            opened => opened.map(Some).map_err(|error| StoreError::failed(&folder, error.into())),
        }
    }

    /// Makes a new store of these records in place of the one that is there, which has to be closed. It is made elsewhere
    /// and then moved, so that it is there whole or not at all.
    pub fn make(vault: &Path, records: &Found, aside: Aside) -> Result<Self, StoreError> {
        let [folder, new, old] = ["sled", "sled.new", "sled.old"].map(|name| vault.join(name));
        let make = || {
            remove_folder(&new)?;
            let store = Self::open_in(&new)?;
            for (key, record) in records {
                guarded(|| store.db()?.insert(key.as_str(), record.as_slice()))?;
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
        make().map_err(|error| StoreError::failed(&folder, error))
    }

    fn open_in(folder: &Path) -> sled::Result<Self> {
        remove_half_made(folder)?;
        let db = Some(open_sled(folder)?);
        let log = File::open(folder.join("db"))?;
        let store = Self { folder: folder.to_owned(), db, log };
        store.sync()?;
        Ok(store)
    }

    /// All records in it.
    pub fn all(&self) -> Result<Found, StoreError> {
        self.records().map_err(|error| StoreError::failed(&self.folder, error.into()))
    }

    fn records(&self) -> sled::Result<Found> {
        guarded(|| {
            let text = |key: sled::IVec| String::from_utf8_lossy(&key).into_owned();
            self.db()?.iter().map(|entry| entry.map(|(key, record)| (text(key), record.to_vec()))).collect()
        })
    }

    /// Writes a record in place of the one that was there.
    pub fn put(&self, key: &str, record: &[u8]) -> Result<(), StoreError> {
        let written = guarded(|| self.db()?.insert(key, record)).and_then(|_| self.sync());
        written.map_err(|error| StoreError::failed(&self.folder, error.into()))
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

/// After a write that failed, sled panics while it is closed.
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

/// The file that holds the records.
pub fn path(vault: &Path) -> PathBuf {
    vault.join("sled/db")
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes the snapshots that sled was writing when it was killed: it would not open beside one.
fn remove_half_made(folder: &Path) -> io::Result<()> {
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

/// Opens sled. The vault's folder is locked, so sled's own lock can only be that of a handle that was dropped just now:
/// threads of sled's hold it for some milliseconds more.
fn open_sled(folder: &Path) -> sled::Result<sled::Db> {
    // A record has a few KiB and there are few of them: sled's least cache is plenty.
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

/// Sled reports its lock as text only.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// Sled panics at some kinds of damage.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> sled::Result<T> {
    let defect = |_| Err(sled::Error::ReportableBug("sled panicked".to_owned()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(defect)
}

/// Whether sled does not like the bytes that it read; the system's own errors may pass.
fn is_damage(error: &sled::Error) -> bool {
    match error {
        sled::Error::Io(error) if is_lock(error) || error.raw_os_error().is_some() => false,
        // Its clones of the system's errors keep nothing but their kinds.
        sled::Error::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other)
        }
        _ => true,
    }
}
