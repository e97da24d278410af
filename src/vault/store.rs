//! Records on stable storage: the only file that knows sled.
//!
//! What sled promises is less than what a rotated refresh token needs: its `flush` ends in `sync_file_range`, which after a
//! power cut guarantees nothing. So each write is followed by an `fsync` of sled's log through a handle of our own.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// A record in the store could not be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has the store open: the daemon, or a command at work.
    InUse(PathBuf),
    /// The folder can be read by others, or is somebody else's.
    Exposed(PathBuf),
    /// The file system or sled failed.
    Failed(PathBuf, io::Error),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse(dir) => {
                write!(f, "the vault in {} is in use by another postkey; stop it, or wait for it", dir.display())
            }
            Self::Exposed(dir) => write!(
                f,
                "the vault's folder {} must belong to the user that runs postkey and be closed to all others; \
                 run `chmod 700` on it",
                dir.display()
            ),
            Self::Failed(dir, error) => write!(f, "the vault in {} cannot be read or written: {error}", dir.display()),
        }
    }
}

impl std::error::Error for StoreError {}

/// Records by key, each write on stable storage when it returns.
pub struct Store {
    dir: PathBuf,
    db: sled::Db,
    /// Sled's log, opened a second time to be synced.
    log: File,
}

impl Store {
    /// Opens the store in this folder, which is made if it is missing.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Failed(dir.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        check_closed(dir)?;
        // A record has a few KiB and there are few of them: sled's least cache is plenty.
        let db = sled::Config::new().path(dir.join("sled")).cache_capacity(1024 * 1024).flush_every_ms(None).open();
        let db = db.map_err(|error| match io::Error::from(error) {
            error if error.kind() == io::ErrorKind::WouldBlock => StoreError::InUse(dir.to_owned()),
            // Sled reports its lock as text only.
            error if error.to_string().contains("could not acquire lock") => StoreError::InUse(dir.to_owned()),
            error => failed(error),
        })?;
        let log = File::open(dir.join("sled/db")).map_err(failed)?;
        let store = Self { dir: dir.to_owned(), db, log };
        store.sync()?;
        File::open(dir.join("sled")).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(store)
    }

    /// All records, by key.
    pub fn records(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.db
            .iter()
            .map(|entry| {
                let (key, record) = entry.map_err(|error| self.failed(error.into()))?;
                Ok((String::from_utf8_lossy(&key).into_owned(), record.to_vec()))
            })
            .collect()
    }

    /// Writes a record in place of the one that was there.
    pub fn put(&self, key: &str, record: &[u8]) -> Result<(), StoreError> {
        self.db.insert(key, record).map_err(|error| self.failed(error.into()))?;
        self.sync()
    }

    /// Removes a record.
    pub fn remove(&self, key: &str) -> Result<(), StoreError> {
        self.db.remove(key).map_err(|error| self.failed(error.into()))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|error| self.failed(error.into()))?;
        self.log.sync_all().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> StoreError {
        StoreError::Failed(self.dir.clone(), error)
    }
}

/// The folder has to be ours, and nobody else's to look into.
fn check_closed(dir: &Path) -> Result<(), StoreError> {
    let about = std::fs::symlink_metadata(dir).map_err(|error| StoreError::Failed(dir.to_owned(), error))?;
    let ours = about.uid() == rustix::process::geteuid().as_raw();
    if about.is_dir() && ours && about.mode() & 0o077 == 0 { Ok(()) } else { Err(StoreError::Exposed(dir.to_owned())) }
}
