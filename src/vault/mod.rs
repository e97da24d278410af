//! The vault: accounts and their sealed token sets.
//!
//! Each account has a key pair. Token sets are sealed to the public key, so storing one needs no password; the private key
//! is wrapped once per app password (a slot), so only an app password opens the token set. What is not secret is beside it
//! in plain text, for `status` to show.
//!
//! `account.rs` has the content of a record, `slot.rs` the part of it that belongs to an app password, `seal.rs` and
//! `stretch.rs` the cryptography, and `record.rs` the form on the disk. `records.rs` keeps the records twice: in files
//! (`copies.rs`) and in sled (`store.rs`).

mod account;
pub mod backup;
mod copies;
mod counters;
mod error;
pub mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod listener_password;
mod memory_record;
mod offers;
pub mod password;
mod record;
mod records;
mod seal;
mod slot;
mod store;
mod stretch;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Moment;
use crate::mutex::lock;
use crate::name::Name;
use crate::protocol::{Mechanism, Protocol};
use crate::token::TokenSet;
use account::Entry;
pub use account::{Authorization, Ended, Secrets, StoredAccount, Unlocked};
pub use error::{StoreError, VaultError};
use offers::Offers;
use password::Password;
pub use records::Degradation;
use records::{Purpose, Records};
use seal::AccountKey;
pub use slot::{Limits, Slot, check_slot_name};
use slot::{Prepared, Search};
use view::VaultView;

/// How long to wait while another process has the vault open.
const TURN: Duration = Duration::from_secs(3);

/// All accounts. Changes block on the disk. To check or add a chosen password takes 100 ms of CPU time and 64 MiB, one
/// password at a time. Nothing else blocks.
pub struct Vault {
    /// Locked for as long as the disk takes.
    records: Mutex<Records>,
    /// The content of the records. Only locked for a moment.
    view: Mutex<VaultView>,
    troubled: Notify,
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
        let records = Records::open(dir)?;
        let vault = Self {
            view: Mutex::new(VaultView::of(&records)),
            records: Mutex::new(records),
            troubled: Notify::new(),
            decoy: Arc::new(StoredAccount::decoy()?),
        };
        vault.mark_older()?;
        vault.notify_of_trouble();
        Ok(vault)
    }

    /// Marks the accounts whose record is older than the last write, or may be.
    fn mark_older(&self) -> Result<(), VaultError> {
        let (doubtful, rolled_back) = {
            let records = lock(&self.records);
            (records.doubtful().to_vec(), records.rolled_back().to_vec())
        };
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
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    }

    /// All accounts, sorted by address.
    pub fn accounts(&self) -> Vec<Arc<StoredAccount>> {
        lock(&self.view).accounts().values().cloned().collect()
    }

    /// The addresses whose records cannot be read.
    pub fn damaged(&self) -> Vec<String> {
        lock(&self.view).damaged.keys().cloned().collect()
    }

    /// The damaged addresses whose records only a newer version of postkey can read.
    pub fn newer(&self) -> Vec<String> {
        let view = lock(&self.view);
        view.damaged.iter().filter(|(_, is_newer)| **is_newer).map(|(address, _)| address.clone()).collect()
    }

    /// Whether nobody is reading or writing its files now, which takes milliseconds unless the disk hangs.
    pub fn is_free(&self) -> bool {
        !matches!(self.records.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Since when and why the newest records are not on stable storage, if that is so.
    pub fn trouble(&self) -> Option<Degradation> {
        lock(&self.view).trouble.clone()
    }

    /// Waits for the beginning of trouble, or for a change during it.
    pub async fn troubled(&self) {
        self.troubled.notified().await;
    }

    /// Tries to end the trouble. Returns the accounts whose records have changed because a newer one was on the disk.
    pub fn heal(&self) -> Vec<String> {
        let mut records = lock(&self.records);
        let before: BTreeMap<String, u64> = serials(&records).collect();
        records.heal();
        lock(&self.view).replace(VaultView::of(&records));
        serials(&records).filter(|(address, serial)| before.get(address) != Some(serial)).map(|(key, _)| key).collect()
    }

    /// Reads what the servers of all accounts offer. Nothing else of the vault can be used meanwhile.
    pub fn offers<T>(&self, read: impl FnOnce(&Offers) -> T) -> T {
        read(&lock(&self.view).offers)
    }

    pub fn account(&self, address: &str) -> Option<Arc<StoredAccount>> {
        lock(&self.view).accounts().get(address).cloned()
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
        self.put_authorization(&mut lock(&self.records), authorization, first, now)
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
        let mut records = lock(&self.records);
        if self.knows(&authorization.address) {
            return Err(VaultError::Exists(authorization.address.clone()));
        }
        self.put_authorization(&mut records, authorization, Some(first), now)
    }

    fn put_authorization(
        &self,
        records: &mut Records,
        authorization: &Authorization,
        first: Option<(&str, Prepared)>,
        now: Moment,
    ) -> Result<u64, VaultError> {
        let address = &authorization.address;
        let account = match entry(records, address) {
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
        let generation = account.generation();
        self.put(Purpose::Replace, records, address, Entry::Account(Arc::new(account)), 0)?;
        Ok(generation)
    }

    /// Whether there is an account with this name, even if its record is damaged.
    pub fn knows(&self, address: &str) -> bool {
        self.spelling_of(address).is_some()
    }

    /// The address under which there is a record of this name: the same spelling, or another one. A record keeps the
    /// spelling with which it was created, because that is bound into its sealed part.
    pub fn spelling_of(&self, address: &str) -> Option<String> {
        lock(&self.view).spelling_of(address)
    }

    /// Opens an account with one of its app passwords. Unknown accounts and wrong passwords are one error and take the same
    /// time. So does a damaged record, which is another error. This writes nothing.
    pub fn unlock(&self, address: &str, password: &Password) -> Result<Unlocked, VaultError> {
        let account = self.account_or_decoy(address);
        let (key, slot) = self.open_slot(&account, address, password)?;
        account.take_tokens(&key, slot)
    }

    /// Wraps an account's key again under a correct password whose slot is of an older kind.
    pub fn renew(&self, address: &str, password: &Password) -> Result<(), VaultError> {
        let account = self.account_or_decoy(address);
        let (key, slot) = self.open_slot(&account, address, password)?;
        let prepared = Prepared::new(password)?;
        self.change(Purpose::Replace, address, |account| account.renew_slot(&key, slot, prepared))
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
            let most = lock(&self.view).most_derivations(search.form());
            self.decoy.search_on(&mut search, most)?;
            if let Some(damage) = self.damage(address) {
                return Err(damage);
            }
        }
        opened
    }

    /// The error of a record that cannot be read.
    fn damage(&self, address: &str) -> Option<VaultError> {
        let is_newer = *lock(&self.view).damaged.get(address)?;
        let error = if is_newer { VaultError::Newer } else { VaultError::Damaged };
        Some(error(address.to_owned()))
    }

    /// Stores the token set from a refresh of generation `before`, and returns its generation. It is on stable storage when
    /// this returns, unless there is [`Vault::trouble`]. Fails if a new authorization has been stored in the meantime.
    pub fn keep(&self, address: &str, before: u64, tokens: &TokenSet) -> Result<u64, VaultError> {
        self.change(Purpose::Replace, address, |account| {
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
            Arc::make_mut(&mut account.known).insert(protocol.name().to_owned(), capabilities);
        })
    }

    /// Writes an account's record again as it is.
    pub fn rewrite(&self, address: &str) -> Result<(), VaultError> {
        self.set(address, |_| ())
    }

    /// Stores the mechanism with which a server of the account's provider accepts it.
    pub fn prefer(&self, address: &str, protocol: Protocol, mechanism: Mechanism) -> Result<(), VaultError> {
        let (protocol, mechanism) = (protocol.name().to_owned(), mechanism.name().to_owned());
        self.set(address, |account| drop(account.mechanisms.insert(protocol, mechanism)))
    }

    /// Stores that a person has to authorize the account again, because generation `before` cannot be refreshed.
    pub fn end(&self, address: &str, before: u64, ended: Ended) -> Result<(), VaultError> {
        self.change(Purpose::Replace, address, |account| {
            account.check_current(before)?;
            account.ended = Some(ended);
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
        self.change(Purpose::Replace, address, |account| account.add_slot(&key, name, prepared, limits, now))
    }

    /// Removes a slot, also from the disk.
    pub fn remove_slot(&self, address: &str, name: &str) -> Result<(), VaultError> {
        self.change(Purpose::Erase, address, |account| account.remove_slot(name))
    }

    /// Removes everything of an account except its address.
    pub fn forget(&self, address: &str) -> Result<(), VaultError> {
        let mut records = lock(&self.records);
        let generation = match self.account(address) {
            Some(account) => account.generation(),
            None if self.damage(address).is_some() => 0,
            None => return Err(VaultError::NoAccount(address.to_owned())),
        };
        self.put(Purpose::Forget, &mut records, address, Entry::Forgotten { generation }, 0)
    }

    /// An account's record as it is on the disk, with its secrets sealed.
    pub fn export(&self, address: &str) -> Result<Vec<u8>, VaultError> {
        let records = lock(&self.records);
        let account = self.account(address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
        let record = records.newest().get(&account.address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
        Ok(record.to_bytes(address))
    }

    /// Restores what [`Vault::export`] returned. `force` also replaces something newer.
    pub fn restore(&self, address: &str, exported: &[u8], force: bool) -> Result<Restored, VaultError> {
        let (record, account) = account::exported(address, exported)?;
        Name::address(address).map_err(|_| VaultError::NotAnAccount(address.to_owned()))?;
        let generation = account.generation();
        let entry = Entry::Account(account);
        let mut records = lock(&self.records);
        if let (Some(current), Some(here)) = (self.account(address), records.newest().get(address)) {
            // The same in another format is the same.
            let content = here.to_record(address).content;
            if content == record.content || entry.to_content(address)? == content {
                return Ok(Restored::Same);
            }
            let is_newer = here.serial > record.serial || current.generation() > generation;
            if is_newer && !force {
                return Ok(Restored::Newer);
            }
        }
        self.put(Purpose::Replace, &mut records, address, entry, record.serial)?;
        Ok(Restored::Done)
    }

    fn account_or_decoy(&self, address: &str) -> Arc<StoredAccount> {
        // The same code for both, because this is timed to the nanosecond.
        Arc::clone(lock(&self.view).accounts().get(address).unwrap_or(&self.decoy))
    }

    fn set(&self, address: &str, set: impl FnOnce(&mut StoredAccount)) -> Result<(), VaultError> {
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
        change: impl FnOnce(&mut StoredAccount) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut records = lock(&self.records);
        let account = self.account(address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
        let mut changed = StoredAccount::clone(&account);
        let result = change(&mut changed)?;
        self.put(purpose, &mut records, address, Entry::Account(Arc::new(changed)), 0)?;
        Ok(result)
    }

    /// Writes before it updates the view, so that nobody uses what is lost in a crash.
    fn put(
        &self,
        purpose: Purpose,
        records: &mut Records,
        address: &str,
        entry: Entry,
        seen: u64,
    ) -> Result<(), VaultError> {
        let account = records.put(address, entry, seen, purpose)?;
        let mut view = lock(&self.view);
        match account {
            Some(account) => view.insert(account),
            None => view.remove(address),
        }
        view.trouble = records.trouble().cloned();
        drop(view);
        self.notify_of_trouble();
        Ok(())
    }

    fn notify_of_trouble(&self) {
        if self.trouble().is_some() {
            self.troubled.notify_one();
        }
    }
}

/// The entry of this address, if this version can read it.
fn entry(records: &Records, address: &str) -> Option<Entry> {
    records.newest().get(address)?.entry(address)
}

fn serials(records: &Records) -> impl Iterator<Item = (String, u64)> {
    records.newest().iter().map(|(address, record)| (address.clone(), record.serial))
}

#[cfg(test)]
mod tests;
