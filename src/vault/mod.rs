//! The vault: accounts and their sealed token sets.
//!
//! Each account has a key pair. Token sets are sealed to the public key, so storing one needs no password; the private key
//! is wrapped once per app password (a slot), so only an app password opens the token set. What is not secret is beside it
//! in plain text, for `status` to show.
//!
//! `account.rs` has the content of a record, `slot.rs` the part of it that belongs to an app password, `seal.rs` and
//! `stretch.rs` the cryptography, and `record.rs` the form on the disk. `storage.rs` says what a place for the records has
//! to do: `embedded.rs` and `records.rs` keep them twice on this machine, in files (`copies.rs`) and in sled (`store.rs`);
//! `postgresql.rs` keeps them in a database that several replicas share (`replica.rs`), which can also leave something there
//! for each other (`deposits.rs`).

mod account;
pub mod backup;
mod copies;
mod counters;
mod deposits;
mod embedded;
mod error;
pub mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod listener_password;
mod memory_record;
mod offers;
pub mod password;
pub mod postgresql;
mod record;
mod records;
mod replica;
mod seal;
mod shared_view;
mod slot;
mod state_folder;
mod storage;
mod store;
mod stretch;
mod view;

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::clock::Moment;
use crate::mutex::lock;
use crate::name::Name;
use crate::protocol::{Mechanism, Protocol};
use crate::token::TokenSet;
use account::Entry;
pub use account::{Authorization, Ended, Opener, Secrets, StoredAccount, Unlocked};
pub use deposits::DepositKey;
use embedded::Embedded;
pub use error::{StoreError, VaultError};
use offers::Offers;
use password::Password;
use postgresql::Postgresql;
pub use postgresql::{RefreshLock, RefreshTurn};
use seal::AccountKey;
use shared_view::SharedView;
pub use slot::{Limits, Slot, check_slot_name};
use slot::{Prepared, Search};
pub use state_folder::StateFolder;
use state_folder::{POLL, TURN};
pub use storage::Degradation;
use storage::{Purpose, RecordStorage, RecordWrite, WriteOutcome};

/// How often a change starts again because another one came first. Each time, somebody else has made a change.
const MOST_TRIES: u32 = 100;

/// All accounts. Changes block on the disk or the database. To check or add a chosen password takes 100 ms of CPU time and
/// 64 MiB, one password at a time. Nothing else blocks.
pub struct Vault {
    storage: Arc<dyn RecordStorage>,
    /// The content of the records.
    view: Arc<SharedView>,
    /// The same as `storage`, if other replicas use it, too.
    shared: Option<Arc<Postgresql>>,
    /// Locked while an account is created, because two spellings of a name must not become two accounts.
    creation: Mutex<()>,
    /// Keeps the state folder locked, if the storage does not.
    _folder: Option<StateFolder>,
    /// Replaces an account that does not exist, so that its login takes as long as any other. Nobody knows its password.
    decoy: Arc<StoredAccount>,
}

/// The result of restoring an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Restored {
    /// It is as it was in the backup.
    Done,
    /// It was already the same.
    Same,
    /// The account in the vault is newer, and has not been changed.
    Newer,
}

impl Vault {
    /// Creates the folder for a vault and its missing parents, inaccessible to others.
    pub fn make_folder(dir: &Path) -> Result<(), VaultError> {
        Ok(files::make_folder(dir)?)
    }

    /// Opens the vault in this folder, or creates one.
    pub fn open(dir: &Path) -> Result<Self, VaultError> {
        let embedded = Arc::new(Embedded::open(dir)?);
        let vault = Self::new(Arc::clone(&embedded) as _, embedded.view(), None)?;
        vault.mark_older(&embedded.doubtful, &embedded.rolled_back)?;
        vault.view.notify_of_trouble();
        Ok(vault)
    }

    fn new(
        storage: Arc<dyn RecordStorage>,
        view: Arc<SharedView>,
        shared: Option<Arc<Postgresql>>,
    ) -> Result<Self, VaultError> {
        let (creation, decoy) = (Mutex::default(), Arc::new(StoredAccount::decoy()?));
        Ok(Self { storage, view, shared, creation, _folder: None, decoy })
    }

    /// Marks the accounts whose record is older than the last write, or may be.
    fn mark_older(&self, doubtful: &[String], rolled_back: &[String]) -> Result<(), VaultError> {
        // A forgotten account, or one of another format, cannot be marked.
        let is_here = |address: &&String| self.account(address).is_some();
        for address in rolled_back.iter().filter(is_here) {
            self.set(address, |account| account.rolled_back = true)?;
        }
        for address in doubtful.iter().filter(is_here) {
            self.set(address, |account| account.doubtful = true)?;
        }
        Ok(())
    }

    /// Opens the vault, and waits if another process has it open, because a command only has it for a moment.
    pub async fn open_in_turn(dir: &Path) -> Result<Self, VaultError> {
        let deadline = Instant::now() + TURN;
        loop {
            match Self::open(dir) {
                Err(VaultError::Store(StoreError::InUse(_))) if Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                result => return result,
            }
        }
    }

    /// All accounts, sorted by address.
    pub fn accounts(&self) -> Vec<Arc<StoredAccount>> {
        self.view.read(|view| view.accounts().values().cloned().collect())
    }

    /// The addresses whose records cannot be read.
    pub fn damaged(&self) -> Vec<String> {
        self.view.read(|view| view.damaged.keys().cloned().collect())
    }

    /// The damaged addresses whose records only a newer version of postkey can read.
    pub fn newer(&self) -> Vec<String> {
        let newer = |(address, is_newer): (&String, &bool)| is_newer.then(|| address.clone());
        self.view.read(|view| view.damaged.iter().filter_map(newer).collect())
    }

    /// Whether nobody is reading or writing its files now, which takes milliseconds unless the disk hangs.
    pub fn is_free(&self) -> bool {
        self.storage.is_free()
    }

    /// Since when and why the newest records are not on stable storage, or cannot be changed, if that is so.
    pub fn trouble(&self) -> Option<Degradation> {
        self.view.trouble()
    }

    /// Whether the newest records are only in memory, or some of them.
    pub fn has_unsaved(&self) -> bool {
        self.storage.has_unsaved()
    }

    /// Waits for the beginning of trouble, or for a change during it.
    pub async fn troubled(&self) {
        self.view.troubled().await;
    }

    /// Tries to end the trouble. Returns the accounts whose records have changed because a newer one was on the disk.
    pub fn heal(&self) -> Vec<String> {
        self.storage.heal()
    }

    /// Reads what the servers of all accounts offer. Nothing else of the vault can be used meanwhile.
    pub fn offers<T>(&self, read: impl FnOnce(&Offers) -> T) -> T {
        self.view.read(|view| read(&view.offers))
    }

    pub fn account(&self, address: &str) -> Option<Arc<StoredAccount>> {
        self.view.account(address)
    }

    /// Stores an authorization, and returns the generation of its token set. An existing account keeps its slots. A new one
    /// starts with the slot `first`, and so does one that replaces a damaged record.
    pub fn authorize(
        &self,
        authorization: &Authorization,
        first: Option<(&str, &Password)>,
        now: Moment,
    ) -> Result<u64, VaultError> {
        let first = first.map(|(name, password)| Ok::<_, VaultError>((name, Prepared::new(password)?))).transpose()?;
        let _creation = lock(&self.creation);
        self.put_authorization(authorization, first, now)
    }

    /// Stores the authorization of a new account, and returns the generation of its token set. Fails if there is an account,
    /// even if its record is damaged.
    pub fn begin(
        &self,
        authorization: &Authorization,
        (name, password): (&str, &Password),
        now: Moment,
    ) -> Result<u64, VaultError> {
        let first = (name, Prepared::new(password)?);
        let _creation = lock(&self.creation);
        if self.knows(&authorization.address) {
            return Err(VaultError::Exists(authorization.address.clone()));
        }
        self.put_authorization(authorization, Some(first), now)
    }

    fn put_authorization(
        &self,
        authorization: &Authorization,
        first: Option<(&str, Prepared)>,
        now: Moment,
    ) -> Result<u64, VaultError> {
        let address = &authorization.address;
        let first = first.as_ref().map(|(name, prepared)| (*name, prepared));
        self.replace(Purpose::Replace, address, 0, || {
            let account = match self.storage.entry(address) {
                Some(Entry::Account(account)) => {
                    let mut account = Arc::unwrap_or_clone(account);
                    account.authorize(authorization, now)?;
                    account
                }
                Some(Entry::Forgotten { generation }) => StoredAccount::begin(authorization, first, generation, now)?,
                None => match self.damage(address) {
                    // Without a password nobody could open the new account.
                    Some(damage) if first.is_none() || matches!(damage, VaultError::Newer(_)) => return Err(damage),
                    _ => StoredAccount::begin(authorization, first, 0, now)?,
                },
            };
            Ok((account.generation(), Entry::Account(Arc::new(account))))
        })
    }

    /// Whether there is an account with this name, even if its record is damaged.
    pub fn knows(&self, address: &str) -> bool {
        self.spelling_of(address).is_some()
    }

    /// The address under which there is a record of this name: the same spelling, or another one. A record keeps the
    /// spelling with which it was created, because that is bound into its sealed part.
    pub fn spelling_of(&self, address: &str) -> Option<String> {
        self.view.read(|view| view.spelling_of(address))
    }

    /// Opens an account with one of its app passwords. Unknown accounts and wrong passwords are one error and take the same
    /// time. So does a damaged record, which is another error. This writes nothing.
    pub fn unlock(&self, address: &str, password: &Password) -> Result<Unlocked, VaultError> {
        let account = self.account_or_decoy(address);
        let (key, slot) = self.open_slot(&account, address, password)?;
        let unlocked = account.take_tokens(&key, slot)?;
        let opener = self.shared.is_some().then(|| Opener::new(key, slot.clone()));
        Ok(Unlocked { opener, ..unlocked })
    }

    /// Wraps an account's key again under a correct password whose slot is of an older kind.
    pub fn renew(&self, address: &str, password: &Password) -> Result<(), VaultError> {
        let account = self.account_or_decoy(address);
        let (key, slot) = self.open_slot(&account, address, password)?;
        let prepared = Prepared::new(password)?;
        self.change(Purpose::Replace, address, |account| account.renew_slot(&key, slot, &prepared))
    }

    fn open_slot<'a>(
        &self,
        account: &'a StoredAccount,
        address: &str,
        password: &Password,
    ) -> Result<(AccountKey, &'a Slot), VaultError> {
        let mut search = Search::new(password);
        let opened = account.unlock(&mut search);
        if matches!(opened, Err(VaultError::WrongCredentials)) {
            let most = self.view.read(|view| view.most_derivations(search.form()));
            self.decoy.search_on(&mut search, most)?;
            if let Some(damage) = self.damage(address) {
                return Err(damage);
            }
        }
        opened
    }

    /// The error of a record that cannot be read.
    fn damage(&self, address: &str) -> Option<VaultError> {
        let is_newer = self.view.read(|view| view.damaged.get(address).copied())?;
        let error = if is_newer { VaultError::Newer } else { VaultError::Damaged };
        Some(error(address.to_owned()))
    }

    /// Stores the token set from a refresh of generation `before`, and returns its generation. It is on stable storage when
    /// this returns, unless there is [`Vault::trouble`]. Fails if a new authorization has been stored in the meantime.
    pub fn keep(&self, address: &str, before: u64, tokens: &TokenSet) -> Result<u64, VaultError> {
        self.change(Purpose::Tokens, address, |account| {
            account.check_current(before)?;
            account.put_tokens(tokens)?;
            // A person can ask for a refresh in spite of this. If it succeeds, the authorization is still valid.
            account.ended = None;
            Ok(account.generation())
        })
    }

    /// Stores what a server of the account's provider offers before the login.
    pub fn learn(&self, address: &str, protocol: Protocol, capabilities: Vec<String>) -> Result<(), VaultError> {
        self.set(address, |account| {
            Arc::make_mut(&mut account.known).insert(protocol.name().to_owned(), capabilities.clone());
        })
    }

    /// Writes an account's record again as it is.
    pub fn rewrite(&self, address: &str) -> Result<(), VaultError> {
        self.set(address, |_| ())
    }

    /// Stores the mechanism with which a server of the account's provider accepts it.
    pub fn prefer(&self, address: &str, protocol: Protocol, mechanism: Mechanism) -> Result<(), VaultError> {
        let (protocol, mechanism) = (protocol.name().to_owned(), mechanism.name().to_owned());
        self.set(address, |account| drop(account.mechanisms.insert(protocol.clone(), mechanism.clone())))
    }

    /// Stores that a person has to authorize the account again, because generation `before` cannot be refreshed.
    pub fn end(&self, address: &str, before: u64, ended: Ended) -> Result<(), VaultError> {
        self.change(Purpose::Replace, address, |account| {
            account.check_current(before)?;
            account.ended = Some(ended.clone());
            Ok(())
        })
    }

    /// Adds a slot for `new`. It takes an app password of the account without limits, because a limited one could
    /// otherwise add one without.
    pub fn add_slot(
        &self,
        address: &str,
        password: &Password,
        name: &str,
        new: &Password,
        limits: Limits,
        now: Moment,
    ) -> Result<(), VaultError> {
        let account = self.account_or_decoy(address);
        let (key, slot) = self.open_slot(&account, address, password)?;
        if !slot.limits.is_none() {
            return Err(VaultError::LimitedSlot(slot.name.clone()));
        }
        let prepared = Prepared::new(new)?;
        self.change(Purpose::Replace, address, |account| account.add_slot(&key, name, &prepared, limits.clone(), now))
    }

    /// Removes a slot, also from the disk.
    pub fn remove_slot(&self, address: &str, name: &str) -> Result<(), VaultError> {
        self.change(Purpose::Erase, address, |account| account.remove_slot(name))
    }

    /// Removes everything of an account except its address.
    pub fn forget(&self, address: &str) -> Result<(), VaultError> {
        self.replace(Purpose::Forget, address, 0, || {
            let generation = match self.account(address) {
                Some(account) => account.generation(),
                None if self.damage(address).is_some() => 0,
                None => return Err(VaultError::NoAccount(address.to_owned())),
            };
            Ok(((), Entry::Forgotten { generation }))
        })
    }

    /// An account's record as it is on the disk, with its secrets sealed.
    pub fn export(&self, address: &str) -> Result<Vec<u8>, VaultError> {
        let account = self.account(address).and_then(|_| self.storage.record(address));
        Ok(account.ok_or_else(|| VaultError::NoAccount(address.to_owned()))?.to_bytes(address))
    }

    /// Restores what [`Vault::export`] returned. `force` also replaces something newer.
    pub fn restore(&self, address: &str, exported: &[u8], force: bool) -> Result<Restored, VaultError> {
        let (record, account) = account::exported(address, exported)?;
        Name::address(address).map_err(|_| VaultError::NotAnAccount(address.to_owned()))?;
        let _creation = lock(&self.creation);
        if let (Some(current), Some(here)) = (self.account(address), self.storage.record(address)) {
            // The same in another format is the same.
            let is_same = here.content == record.content
                || Entry::Account(Arc::clone(&account)).to_content(address)? == here.content;
            if is_same {
                return Ok(Restored::Same);
            }
            let is_newer = here.serial > record.serial || current.generation() > account.generation();
            if is_newer && !force {
                return Ok(Restored::Newer);
            }
        }
        self.replace(Purpose::Replace, address, record.serial, || Ok(((), Entry::Account(Arc::clone(&account)))))?;
        Ok(Restored::Done)
    }

    fn account_or_decoy(&self, address: &str) -> Arc<StoredAccount> {
        // The same code for both, because this is timed to the nanosecond.
        self.view.read(|view| Arc::clone(view.accounts().get(address).unwrap_or(&self.decoy)))
    }

    fn set(&self, address: &str, set: impl Fn(&mut StoredAccount)) -> Result<(), VaultError> {
        self.change(Purpose::Replace, address, |account| {
            set(account);
            Ok(())
        })
    }

    /// Changes an account, unless `change` fails.
    fn change<T>(
        &self,
        purpose: Purpose,
        address: &str,
        change: impl Fn(&mut StoredAccount) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        self.replace(purpose, address, 0, || {
            let account = self.account(address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
            let mut changed = StoredAccount::clone(&account);
            let result = change(&mut changed)?;
            Ok((result, Entry::Account(Arc::new(changed))))
        })
    }

    /// Replaces the entry of an address by the one that `make` makes of it. Starts again if another change comes first, so
    /// that nothing is written over something newer.
    fn replace<T>(
        &self,
        purpose: Purpose,
        address: &str,
        seen: u64,
        make: impl Fn() -> Result<(T, Entry), VaultError>,
    ) -> Result<T, VaultError> {
        for _ in 0..MOST_TRIES {
            // Before the entry is read, so that a change in between is noticed.
            let expected = self.storage.serial(address);
            let (result, entry) = make()?;
            let write = RecordWrite { address, entry, expected, seen, purpose };
            if self.storage.put(write)? == WriteOutcome::Written {
                return Ok(result);
            }
        }
        Err(VaultError::Unavailable(format!("others keep changing the record of {address}; try again")))
    }
}

#[cfg(test)]
mod tests;
