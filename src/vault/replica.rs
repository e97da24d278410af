//! A vault that several replicas share, and what only such a vault can do.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::account::{Entry, Opener, Unlocked};
use super::error::{StoreError, VaultError};
use super::postgresql::{Database, Postgresql, RefreshLock, RefreshTurn};
use super::shared_view::ForeignChanges;
use super::storage::Purpose;
use super::{Restored, TURN, Vault, files};
use crate::random;

/// The state folder of this replica, which no other process uses while this exists.
pub struct StateFolder {
    /// The replica's name: the same after a restart, so that it recognizes what it has left in the database.
    name: String,
    /// None if something else has locked the folder for this process.
    _lock: Option<File>,
}

impl StateFolder {
    /// Locks the folder, and creates it if there is none. Waits if another process has it, because a command only has it for
    /// a moment.
    pub async fn lock(dir: &Path) -> Result<Self, VaultError> {
        let deadline = Instant::now() + TURN;
        loop {
            match Self::try_lock(dir) {
                Err(StoreError::InUse(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(super::POLL).await;
                }
                result => return Ok(result?),
            }
        }
    }

    fn try_lock(dir: &Path) -> Result<Self, StoreError> {
        files::make_folder(dir)?;
        files::check_folder(dir)?;
        let lock = files::lock_folder(dir)?;
        Ok(Self { name: name(dir)?, _lock: Some(lock) })
    }

    /// For a process that already has the folder of an embedded vault.
    pub fn none() -> Self {
        Self { name: random::name(), _lock: None }
    }
}

/// The name in the folder's file, or a new one.
fn name(dir: &Path) -> Result<String, StoreError> {
    let path = dir.join("replica");
    let mut name = String::new();
    // No name is longer.
    let read = files::open_private(&path).map(|file| file.take(64).read_to_string(&mut name).is_ok());
    let is_name = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if matches!(read, Ok(true)) && is_name(name.trim_end()) {
        return Ok(name.trim_end().to_owned());
    }
    let name = random::name();
    files::replace(&path, &path.with_extension("new"), name.as_bytes()).map_err(StoreError::at(&path))?;
    Ok(name)
}

impl Vault {
    /// Opens the vault in a database. Blocks until all records have been read.
    ///
    /// # Errors
    ///
    /// [`VaultError::Unavailable`] if the database cannot be reached, [`VaultError::Unusable`] if somebody has to act first.
    pub fn open_shared(database: Database, folder: StateFolder) -> Result<Self, VaultError> {
        let shared = Arc::new(Postgresql::open(database, folder.name.clone())?);
        let vault = Self::new(Arc::clone(&shared) as _, shared.view(), Some(shared))?;
        Ok(Self { _folder: Some(folder), ..vault })
    }

    /// Whether there is a vault in this folder, even without accounts.
    pub fn is_in(dir: &Path) -> bool {
        ["copies", "sled"].iter().any(|name| dir.join(name).exists())
    }

    /// Whether other processes can change it.
    pub const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Waits for changes by other replicas. Never returns if there are none.
    pub async fn foreign_changes(&self) -> ForeignChanges {
        self.view.foreign_changes().await
    }

    /// Finds out whether this process may refresh an account's token set of this generation. An embedded vault always lets
    /// it.
    ///
    /// # Errors
    ///
    /// The database cannot be used.
    pub async fn begin_refresh(&self, address: &str, generation: u64) -> Result<RefreshTurn, VaultError> {
        match &self.shared {
            Some(shared) => shared.begin_refresh(address, generation).await,
            None => Ok(RefreshTurn::Granted(RefreshLock::alone())),
        }
    }

    /// Opens an account's newest token set with what an app password has opened before.
    ///
    /// # Errors
    ///
    /// There is no such account any more, or another one.
    pub fn open_again(&self, address: &str, opener: &Arc<Opener>) -> Result<Unlocked, VaultError> {
        let account = self.account(address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
        account.open_again(opener)
    }

    /// How many replicas use the vault now, at least 1.
    pub fn replicas(&self) -> u32 {
        self.shared.as_ref().map_or(1, |shared| shared.replicas())
    }

    /// Ends the membership of this replica, because its process ends.
    ///
    /// # Errors
    ///
    /// The database cannot be used. The others notice that this replica is gone after some seconds.
    pub fn leave(&self) -> Result<(), VaultError> {
        self.shared.as_ref().map_or(Ok(()), |shared| shared.leave())
    }

    /// The addresses of all records, also of those that are damaged or of forgotten accounts.
    pub fn addresses(&self) -> Vec<String> {
        self.storage.addresses()
    }

    /// Copies a record from another vault, and reads it back. `force` also replaces something newer.
    ///
    /// # Errors
    ///
    /// The record cannot be read, or is not stored as it was written.
    pub fn copy_from(&self, other: &Self, address: &str, force: bool) -> Result<Restored, VaultError> {
        let unreadable = || other.damage(address).unwrap_or_else(|| VaultError::Damaged(address.to_owned()));
        let (record, entry) = (other.storage.record(address), other.storage.entry(address));
        let (record, entry) = record.zip(entry).ok_or_else(unreadable)?;
        let content = entry.to_content(address)?;
        if let (Some(here), Some(entry)) = (self.storage.record(address), self.storage.entry(address)) {
            if entry.to_content(address)? == content {
                return Ok(Restored::Same);
            }
            if here.serial > record.serial && !force {
                return Ok(Restored::Newer);
            }
        }
        self.replace(Purpose::Replace, address, record.serial, || Ok(((), Entry::clone(&entry))))?;
        match self.stored(address)? {
            Some(stored) if stored == content => Ok(Restored::Done),
            _ => Err(VaultError::Damaged(address.to_owned())),
        }
    }

    /// The content of a record where it is kept, read again from there if that is a database.
    fn stored(&self, address: &str) -> Result<Option<Vec<u8>>, VaultError> {
        let Some(shared) = &self.shared else { return Ok(self.storage.record(address).map(|record| record.content)) };
        let bytes = shared.read_again(address)?;
        Ok(bytes.and_then(|bytes| super::record::Record::read(address, &bytes)).map(|record| record.content))
    }
}
