//! A vault that several replicas share, and what only such a vault can do.

use std::path::Path;
use std::sync::Arc;

use super::account::{Entry, Opener, Unlocked};
use super::error::VaultError;
use super::postgresql::{Database, Postgresql, RefreshLock, RefreshTurn};
use super::record::Record;
use super::shared_view::ForeignChanges;
use super::storage::Purpose;
use super::{Restored, StateFolder, Vault};

impl Vault {
    /// Opens the vault in a database. Blocks until all records have been read.
    ///
    /// # Errors
    ///
    /// [`VaultError::Unavailable`] if the database cannot be reached, [`VaultError::Unusable`] if somebody has to act first.
    pub fn open_shared(database: Database, folder: StateFolder) -> Result<Self, VaultError> {
        let shared = Arc::new(Postgresql::open(database, folder.name().to_owned())?);
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
        Ok(bytes.and_then(|bytes| Record::read(address, &bytes)).map(|record| record.content))
    }
}
