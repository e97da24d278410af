//! The vault: accounts and their sealed token sets.
//!
//! Each account has a key pair. Token sets are sealed to the public key, so anyone who may authorize the account can put
//! one in; the private key is wrapped once per app password (a slot), so only an app password takes one out. What is not
//! secret lies beside it in plain text, for `status` to show.
//!
//! `account.rs` is what a record says, `slot.rs` what of it belongs to an app password, `seal.rs` and `stretch.rs` its
//! cryptography, `record.rs` how it lies on the disk, and `records.rs` where: once in a file (`copies.rs`) and once in sled
//! (`store.rs`).

mod account;
pub mod backup;
mod copies;
mod counters;
mod error;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod limits;
pub mod machine;
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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Moment;
use crate::name::{Name, find};
use crate::protocol::{Mechanism, Protocol};
use crate::token::TokenSet;
use account::Entry;
pub use account::{Authorization, Ended, Secrets, StoredAccount, Unlocked};
pub use error::{StoreError, VaultError};
pub use limits::Limits;
use password::Password;
pub use records::Degradation;
use records::{Purpose, Records};
use seal::AccountKey;
pub use slot::Slot;
use slot::{Prepared, Search};
use stretch::NoMemory;
use view::{VaultView, derivations};

/// How long to wait for another process that has the vault open.
const TURN: Duration = Duration::from_secs(3);

/// All accounts. What changes one blocks on the disk, and what checks or adds a password that a person chose takes 100 ms of
/// CPU time and 64 MiB, one at a time; nothing else waits.
pub struct Vault {
    /// Locked for as long as the disk takes.
    records: Mutex<Records>,
    /// What they say. Locked for a moment.
    view: Mutex<VaultView>,
    /// Grows with each change of what servers are known to offer to which accounts.
    offers: AtomicU64,
    troubled: Notify,
    /// Stands in for an account that does not exist, so that its login takes as long as another's. Nobody knows its password.
    decoy: Arc<StoredAccount>,
}

/// What came of restoring an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Restored {
    /// It is as it was in the backup.
    Done,
    /// It was so already.
    Same,
    /// What is here is newer, and has been left as it is.
    Newer,
}

impl Vault {
    /// Makes the folder for a vault, and those above it that are missing, closed to all others.
    pub fn make_folder(dir: &Path) -> Result<(), VaultError> {
        Ok(files::make_folder(dir)?)
    }

    /// Opens the vault in this folder, or begins one.
    pub fn open(dir: &Path) -> Result<Self, VaultError> {
        let records = Records::open(dir)?;
        let vault = Self {
            view: Mutex::new(VaultView::of(&records)),
            records: Mutex::new(records),
            offers: AtomicU64::new(0),
            troubled: Notify::new(),
            decoy: Arc::new(StoredAccount::decoy()?),
        };
        vault.note_doubts()?;
        vault.look_after();
        Ok(vault)
    }

    /// Notes it in the accounts of which only an older record is left, or may be.
    fn note_doubts(&self) -> Result<(), VaultError> {
        let (doubtful, rolled_back) = {
            let records = lock(&self.records);
            (records.doubtful().to_vec(), records.rolled_back().to_vec())
        };
        // Of a forgotten account, or one of another format, there is nothing to note.
        let is_here = |address: &&String| self.account(address).is_some();
        for address in rolled_back.iter().filter(is_here) {
            self.set(address, |account| account.rolled_back = true)?;
        }
        for address in doubtful.iter().filter(is_here) {
            self.set(address, |account| account.doubtful = true)?;
        }
        Ok(())
    }

    /// Opens the vault, waiting for whoever has it open to be done: a command has it for a moment only.
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

    /// All accounts, by address.
    pub fn accounts(&self) -> Vec<Arc<StoredAccount>> {
        lock(&self.view).accounts.values().cloned().collect()
    }

    /// The addresses whose records are damaged.
    pub fn damaged(&self) -> Vec<String> {
        lock(&self.view).damaged.clone()
    }

    /// Those of them that only a newer version of postkey can read.
    pub fn newer(&self) -> Vec<String> {
        lock(&self.view).newer.clone()
    }

    /// Whether nobody is reading or writing its files at this moment, which takes milliseconds unless the disk hangs.
    pub fn is_free(&self) -> bool {
        !matches!(self.records.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Since when and why the newest records are not on stable storage, if so.
    pub fn trouble(&self) -> Option<Degradation> {
        lock(&self.view).trouble.clone()
    }

    /// Waits until there is trouble, or a change that meets with it.
    pub async fn troubled(&self) {
        self.troubled.notified().await;
    }

    /// Tries to end the trouble. The accounts of which something newer has come to light on the disk.
    pub fn heal(&self) -> Vec<String> {
        let mut records = lock(&self.records);
        let before: BTreeMap<String, u64> = serials(&records).collect();
        records.heal();
        *lock(&self.view) = VaultView::of(&records);
        self.offers.fetch_add(1, Ordering::Release);
        serials(&records).filter(|(address, serial)| before.get(address) != Some(serial)).map(|(key, _)| key).collect()
    }

    /// Another number than before, if another account is there, or servers offer something else.
    pub fn offers(&self) -> u64 {
        self.offers.load(Ordering::Acquire)
    }

    /// The account of this address.
    pub fn account(&self, address: &str) -> Option<Arc<StoredAccount>> {
        lock(&self.view).accounts.get(address).cloned()
    }

    /// Puts in what an authorization has brought; the generation of its token set. An account that is there already keeps
    /// its slots, a new one begins with `first`, and so does one that takes the place of a damaged record.
    pub fn authorize(
        &self,
        authorization: &Authorization,
        first: Option<(&str, &Password)>,
        now: Moment,
    ) -> Result<u64, VaultError> {
        let first = first.map(|(name, password)| prepare(password).map(|prepared| (name, prepared))).transpose()?;
        self.put_authorization(&mut lock(&self.records), authorization, first, now)
    }

    /// Puts in what the authorization of a new account has brought; the generation of its token set. An account that is
    /// there, or whose record is damaged, is not touched.
    pub fn begin(
        &self,
        authorization: &Authorization,
        (name, password): (&str, &Password),
        now: Moment,
    ) -> Result<u64, VaultError> {
        let first = (name, prepare(password)?);
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
            Some(Entry::Account(mut account)) => {
                account.authorize(authorization, now)?;
                account
            }
            Some(Entry::Forgotten { generation }) => {
                Box::new(StoredAccount::begin(authorization, first, generation, now)?)
            }
            // Without a password nobody could open what takes the damaged record's place.
            None if self.is_damaged(address) && first.is_none() => return Err(self.damage(address)),
            None if self.is_newer(address) => return Err(self.damage(address)),
            None => Box::new(StoredAccount::begin(authorization, first, 0, now)?),
        };
        let generation = account.generation();
        self.put(Purpose::Replace, records, address, Entry::Account(account), 0)?;
        Ok(generation)
    }

    /// Whether there is an account of this name, be its record damaged.
    pub fn knows(&self, address: &str) -> bool {
        self.spelling_of(address).is_some()
    }

    /// The address under which there is a record of this name: this very one, or another spelling of it. Records keep the
    /// spelling that they began with, because it is bound into what is sealed.
    pub fn spelling_of(&self, address: &str) -> Option<String> {
        if self.account(address).is_some() || self.is_damaged(address) {
            return Some(address.to_owned());
        }
        find(&lock(&self.view).spellings, &Name::typed(address)).map(|(_, address)| address.clone())
    }

    /// Opens an account with one of its app passwords. Unknown accounts and wrong passwords are one error and take the same
    /// time, and so does a damaged record, which is another error; nothing is ever written.
    pub fn unlock(&self, address: &str, password: &Password) -> Result<Unlocked, VaultError> {
        let account = self.account_or_decoy(address);
        let (key, slot) = self.open_slot(&account, address, password)?;
        account.take_tokens(&key, slot)
    }

    /// Wraps an account's key again under a password that was right, if its slot is not as new ones are.
    pub fn renew(&self, address: &str, password: &Password) -> Result<(), VaultError> {
        let account = self.account_or_decoy(address);
        let (key, slot) = self.open_slot(&account, address, password)?;
        let prepared = prepare(password)?;
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
            let most = lock(&self.view).derivations.get(search.form()).copied();
            self.decoy.search_on(&mut search, most.unwrap_or(1))?;
            if self.is_damaged(address) {
                return Err(self.damage(address));
            }
        }
        opened
    }

    fn is_damaged(&self, address: &str) -> bool {
        lock(&self.view).damaged.iter().any(|damaged| damaged == address)
    }

    fn is_newer(&self, address: &str) -> bool {
        lock(&self.view).newer.iter().any(|newer| newer == address)
    }

    /// What is the matter with a record that cannot be read.
    fn damage(&self, address: &str) -> VaultError {
        let error = if self.is_newer(address) { VaultError::Newer } else { VaultError::Damaged };
        error(address.to_owned())
    }

    /// Keeps the token set that a refresh of generation `before` has brought; its generation. On stable storage when this
    /// returns, unless there is [`Vault::trouble`]. What a new authorization has brought meanwhile stays.
    pub fn keep(&self, address: &str, before: u64, tokens: &TokenSet) -> Result<u64, VaultError> {
        self.change(Purpose::Replace, address, |account| {
            account.check_current(before)?;
            account.put_tokens(tokens)?;
            // A refresh that a person has insisted on shows that the authorization stands after all.
            account.ended = None;
            Ok(account.generation())
        })
    }

    /// Notes what a server of the account's provider offers before login.
    pub fn learn(&self, address: &str, protocol: Protocol, capabilities: Vec<String>) -> Result<(), VaultError> {
        self.set(address, |account| drop(account.known.insert(protocol.name().to_owned(), capabilities)))
    }

    /// Writes an account's record as it is.
    pub fn rewrite(&self, address: &str) -> Result<(), VaultError> {
        self.set(address, |_| ())
    }

    /// Notes by which mechanism a server of the account's provider lets it in.
    pub fn prefer(&self, address: &str, protocol: Protocol, mechanism: Mechanism) -> Result<(), VaultError> {
        let (protocol, mechanism) = (protocol.name().to_owned(), mechanism.name().to_owned());
        self.set(address, |account| drop(account.mechanisms.insert(protocol, mechanism)))
    }

    /// Notes that a person has to authorize the account anew, for generation `before` cannot be refreshed.
    pub fn end(&self, address: &str, before: u64, ended: Ended) -> Result<(), VaultError> {
        self.change(Purpose::Replace, address, |account| {
            account.check_current(before)?;
            account.ended = Some(ended);
            Ok(())
        })
    }

    /// Makes a slot for `new`, opened by one of the app passwords that the account has, which has to be good for everything:
    /// a limited one could else make itself one that is not.
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
        let prepared = prepare(new)?;
        self.change(Purpose::Replace, address, |account| account.add_slot(&key, name, prepared, limits, now))
    }

    /// Removes a slot, from the disk, too: its password opens nothing any more.
    pub fn remove_slot(&self, address: &str, name: &str) -> Result<(), VaultError> {
        self.change(Purpose::Erase, address, |account| account.remove_slot(name))
    }

    /// Removes an account and all that was kept of it, but for its address.
    pub fn forget(&self, address: &str) -> Result<(), VaultError> {
        let mut records = lock(&self.records);
        let generation = match self.account(address) {
            Some(account) => account.generation(),
            None if self.is_damaged(address) => 0,
            None => return Err(VaultError::NoAccount(address.to_owned())),
        };
        self.put(Purpose::Forget, &mut records, address, Entry::Forgotten { generation }, 0)
    }

    /// An account's record as it lies on the disk, its secrets sealed.
    pub fn export(&self, address: &str) -> Result<Vec<u8>, VaultError> {
        let records = lock(&self.records);
        let account = self.account(address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
        let record = records.newest().get(&account.address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
        Ok(record.to_bytes(address))
    }

    /// Puts back what [`Vault::export`] gave. `force` puts it in place of something newer, too.
    pub fn restore(&self, address: &str, exported: &[u8], force: bool) -> Result<Restored, VaultError> {
        let (record, account) = account::exported(address, exported)?;
        Name::address(address).map_err(|_| VaultError::NotAnAccount(address.to_owned()))?;
        let generation = account.generation();
        let entry = Entry::Account(account);
        let mut records = lock(&self.records);
        if let (Some(current), Some(here)) = (self.account(address), records.newest().get(address)) {
            // The same in another format is the same.
            if here.content == record.content || entry.to_content(address)? == here.content {
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
        // One path for both, to the nanosecond.
        Arc::clone(lock(&self.view).accounts.get(address).unwrap_or(&self.decoy))
    }

    /// Changes an account.
    fn set(&self, address: &str, set: impl FnOnce(&mut StoredAccount)) -> Result<(), VaultError> {
        self.change(Purpose::Replace, address, |account| {
            set(account);
            Ok(())
        })
    }

    /// Changes an account, or leaves it as it was if `change` fails.
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
        self.put(purpose, &mut records, address, Entry::Account(Box::new(changed)), 0)?;
        Ok(result)
    }

    /// Writes first and shows then, so that nobody uses what a crash could take back.
    fn put(
        &self,
        purpose: Purpose,
        records: &mut Records,
        address: &str,
        entry: Entry,
        seen: u64,
    ) -> Result<(), VaultError> {
        records.put(address, entry.to_content(address)?, seen, purpose);
        let mut view = lock(&self.view);
        match entry {
            Entry::Account(account) => {
                let account = Arc::<StoredAccount>::from(account);
                let before = view.accounts.insert(address.to_owned(), Arc::clone(&account));
                let is_same = |one: Arc<StoredAccount>| one.known == account.known && one.provider == account.provider;
                if !before.is_some_and(is_same) {
                    self.offers.fetch_add(1, Ordering::Release);
                }
                view.spellings.entry(Name::typed(address)).or_insert_with(|| address.to_owned());
            }
            Entry::Forgotten { .. } => {
                view.accounts.remove(address);
                self.offers.fetch_add(1, Ordering::Release);
                view.spellings.retain(|_, spelling| spelling != address);
            }
        }
        view.damaged.retain(|damaged| damaged != address);
        view.newer.retain(|newer| newer != address);
        view.derivations = derivations(&view.accounts);
        view.trouble = records.trouble().cloned();
        drop(view);
        self.look_after();
        Ok(())
    }

    fn look_after(&self) {
        if self.trouble().is_some() {
            self.troubled.notify_one();
        }
    }
}

fn prepare(password: &Password) -> Result<Prepared, VaultError> {
    Prepared::new(password).map_err(|NoMemory| VaultError::NoMemory)
}

/// What is kept under this address, if this version can read it.
fn entry(records: &Records, address: &str) -> Option<Entry> {
    Entry::read(address, records.newest().get(address)?)
}

fn serials(records: &Records) -> impl Iterator<Item = (String, u64)> {
    records.newest().iter().map(|(address, record)| (address.clone(), record.serial))
}

/// What is behind these locks is whole at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
