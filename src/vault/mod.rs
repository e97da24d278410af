//! The vault: accounts and their sealed token sets.
//!
//! Each account has a key pair. Token sets are sealed to the public key, so anyone who may authorize the account can put
//! one in; the private key is wrapped once per app password (a slot), so only an app password takes one out. What is not
//! secret lies beside it in plain text, for `status` to show.
//!
//! `account.rs` is what a record says, `seal.rs` its cryptography, `record.rs` how it lies on the disk, and `records.rs` where:
//! once in a file (`copies.rs`) and once in sled (`store.rs`).

mod account;
pub mod backup;
mod copies;
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
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Moment;
use crate::config::flow::Flow;
use crate::config::provider::Discovered;
use crate::protocol::Protocol;
use crate::secret::Secret;
use crate::token::TokenSet;
use account::Entry;
pub use account::{Account, Ended, Slot, Unlocked};
pub use error::{StoreError, VaultError};
pub use limits::Limits;
use password::Password;
use record::Record;
use records::Records;
pub use records::Trouble;
pub use seal::random;

/// How long to wait for another process that has the vault open.
const TURN: Duration = Duration::from_secs(3);

/// What an authorization has brought.
pub struct Authorization {
    /// For which address.
    pub address: String,
    /// At which provider.
    pub provider: String,
    /// By which grant.
    pub flow: Flow,
    /// With a client registration of the account's own.
    pub client_id: Option<String>,
    /// What is to be kept beside the tokens.
    pub secrets: Secrets,
    /// What was found out about the authorization server, where the configuration does not say all.
    pub discovered: Option<Discovered>,
    /// The tokens.
    pub tokens: TokenSet,
}

/// The secrets that are kept with an account beside its tokens.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Of the client registration of the account's own.
    pub client_secret: Option<Secret>,
    /// The mailbox's own password at the provider, where the grant sends it.
    pub password: Option<Secret>,
}

/// All accounts. What changes one blocks on the disk, and [`Vault::unlock`] may take 20 ms of CPU time; nothing else waits.
pub struct Vault {
    /// Locked for as long as the disk takes.
    records: Mutex<Records>,
    /// What they say. Locked for a moment.
    view: Mutex<View>,
    troubled: Notify,
    /// Stands in for an account that does not exist, so that its login takes as long as another's. Nobody knows its password.
    decoy: Arc<Account>,
}

/// What the records say.
struct View {
    accounts: BTreeMap<String, Arc<Account>>,
    /// Addresses whose records cannot be read.
    damaged: Vec<String>,
    trouble: Option<Trouble>,
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
            view: Mutex::new(View::of(&records)),
            records: Mutex::new(records),
            troubled: Notify::new(),
            decoy: Arc::new(Account::decoy()?),
        };
        vault.note_doubts()?;
        vault.look_after();
        Ok(vault)
    }

    /// Notes it in the accounts of which only an older record may be left. It stands there until a new token set comes.
    fn note_doubts(&self) -> Result<(), VaultError> {
        let doubtful = lock(&self.records).doubtful().to_vec();
        // Of a forgotten account, or one of another format, there is nothing to note.
        for address in doubtful.iter().filter(|address| self.account(address).is_some()) {
            self.change(address, |account| {
                account.doubtful = true;
                Ok(())
            })?;
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
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        lock(&self.view).accounts.values().cloned().collect()
    }

    /// The addresses whose records are damaged.
    pub fn damaged(&self) -> Vec<String> {
        lock(&self.view).damaged.clone()
    }

    /// Whether nobody is reading or writing its files at this moment, which takes milliseconds unless the disk hangs.
    pub fn is_free(&self) -> bool {
        !matches!(self.records.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Since when and why the newest records are not on stable storage, if so.
    pub fn trouble(&self) -> Option<Trouble> {
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
        *lock(&self.view) = View::of(&records);
        serials(&records).filter(|(address, serial)| before.get(address) != Some(serial)).map(|(key, _)| key).collect()
    }

    /// The account of this address.
    pub fn account(&self, address: &str) -> Option<Arc<Account>> {
        lock(&self.view).accounts.get(address).cloned()
    }

    /// Puts in what an authorization has brought; the generation of its token set. An account that is there already keeps
    /// its slots, a new one begins with `first`.
    pub fn authorize(
        &self,
        authorization: &Authorization,
        first: Option<(&str, &Password)>,
        now: Moment,
    ) -> Result<u64, VaultError> {
        let mut records = lock(&self.records);
        let address = &authorization.address;
        if lock(&self.view).damaged.contains(address) {
            return Err(VaultError::Damaged(address.clone()));
        }
        let account = match entry(&records, address) {
            Some(Entry::Account(mut account)) => {
                account.authorize(authorization, now)?;
                account
            }
            Some(Entry::Forgotten { generation }) => Box::new(Account::begin(authorization, first, generation, now)?),
            None => Box::new(Account::begin(authorization, first, 0, now)?),
        };
        let generation = account.generation();
        self.put(&mut records, address, Entry::Account(account), 0)?;
        Ok(generation)
    }

    /// Puts in what the authorization of a new account has brought; the generation of its token set. An account that is
    /// there, or whose record is damaged, is not touched.
    pub fn begin(
        &self,
        authorization: &Authorization,
        first: (&str, &Password),
        now: Moment,
    ) -> Result<u64, VaultError> {
        let mut records = lock(&self.records);
        let address = &authorization.address;
        if self.knows(address) {
            return Err(VaultError::Exists(address.clone()));
        }
        let before = match entry(&records, address) {
            Some(Entry::Forgotten { generation }) => generation,
            _ => 0,
        };
        let account = Account::begin(authorization, Some(first), before, now)?;
        let generation = account.generation();
        self.put(&mut records, address, Entry::Account(Box::new(account)), 0)?;
        Ok(generation)
    }

    /// Whether there is an account of this address, be its record damaged.
    pub fn knows(&self, address: &str) -> bool {
        let view = lock(&self.view);
        view.accounts.contains_key(address) || view.damaged.iter().any(|damaged| damaged == address)
    }

    /// Opens an account with one of its app passwords. Unknown accounts and wrong passwords are one error and take the same
    /// time; nothing is ever written.
    pub fn unlock(&self, address: &str, password: &Password) -> Result<Unlocked, VaultError> {
        let account = self.account_or_decoy(address);
        let (key, slot) = account.unlock(password)?;
        account.take_tokens(&key, slot)
    }

    /// Keeps the token set that a refresh of generation `before` has brought; its generation. On stable storage when this
    /// returns, unless there is [`Vault::trouble`]. What a new authorization has brought meanwhile stays.
    pub fn keep(&self, address: &str, before: u64, tokens: &TokenSet) -> Result<u64, VaultError> {
        self.change(address, |account| {
            account.check_current(before)?;
            account.put_tokens(tokens)?;
            // A refresh that a person has insisted on shows that the authorization stands after all.
            account.ended = None;
            Ok(account.generation())
        })
    }

    /// Whether this token set is the current one, and the one before it is still kept.
    pub fn is_unsettled(&self, address: &str, generation: u64) -> bool {
        let account = self.account(address);
        account.is_some_and(|account| account.is_unsettled() && account.generation() == generation)
    }

    /// Drops the token set before this one: this one has worked.
    pub fn settle(&self, address: &str, generation: u64) -> Result<(), VaultError> {
        if !self.is_unsettled(address, generation) {
            return Ok(());
        }
        self.change(address, |account| {
            account.settle();
            Ok(())
        })
    }

    /// Notes what a server of the account's provider offers before login.
    pub fn learn(&self, address: &str, protocol: Protocol, capabilities: Vec<String>) -> Result<(), VaultError> {
        self.change(address, |account| {
            account.known.insert(protocol.name().to_owned(), capabilities);
            Ok(())
        })
    }

    /// Notes that a person has to authorize the account anew, for generation `before` cannot be refreshed.
    pub fn end(&self, address: &str, before: u64, ended: Ended) -> Result<(), VaultError> {
        self.change(address, |account| {
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
        let (key, slot) = account.unlock(password)?;
        if !slot.limits.is_none() {
            return Err(VaultError::LimitedSlot(slot.name.clone()));
        }
        self.change(address, |account| account.add_slot(&key, name, new, limits, now))
    }

    /// Removes a slot: its password opens nothing any more.
    pub fn remove_slot(&self, address: &str, name: &str) -> Result<(), VaultError> {
        self.change(address, |account| account.remove_slot(name))
    }

    /// Removes an account and all that was kept of it, but for its address.
    pub fn forget(&self, address: &str) -> Result<(), VaultError> {
        let mut records = lock(&self.records);
        let generation = match (self.account(address), self.damaged().iter().any(|damaged| damaged == address)) {
            (Some(account), _) => account.generation(),
            (None, true) => 0,
            (None, false) => return Err(VaultError::NoAccount(address.to_owned())),
        };
        self.put(&mut records, address, Entry::Forgotten { generation }, 0)
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
        let (record, account) = exported_account(address, exported)?;
        let mut records = lock(&self.records);
        if let (Some(current), Some(here)) = (self.account(address), records.newest().get(address)) {
            if here.content == record.content {
                return Ok(Restored::Same);
            }
            let is_newer = here.serial > record.serial || current.generation() > account.generation();
            if is_newer && !force {
                return Ok(Restored::Newer);
            }
        }
        self.put(&mut records, address, Entry::Account(account), record.serial)?;
        Ok(Restored::Done)
    }

    fn account_or_decoy(&self, address: &str) -> Arc<Account> {
        self.account(address).unwrap_or_else(|| Arc::clone(&self.decoy))
    }

    /// Changes an account, or leaves it as it was if `change` fails.
    fn change<T>(
        &self,
        address: &str,
        change: impl FnOnce(&mut Account) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut records = lock(&self.records);
        let account = self.account(address).ok_or_else(|| VaultError::NoAccount(address.to_owned()))?;
        let mut changed = Account::clone(&account);
        let result = change(&mut changed)?;
        self.put(&mut records, address, Entry::Account(Box::new(changed)), 0)?;
        Ok(result)
    }

    /// Writes first and shows then, so that nobody uses what a crash could take back.
    fn put(&self, records: &mut Records, address: &str, entry: Entry, seen: u64) -> Result<(), VaultError> {
        records.put(address, entry.to_content(address)?, seen);
        let mut view = lock(&self.view);
        match entry {
            Entry::Account(account) => drop(view.accounts.insert(address.to_owned(), Arc::from(account))),
            Entry::Forgotten { .. } => drop(view.accounts.remove(address)),
        }
        view.damaged.retain(|damaged| damaged != address);
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

impl View {
    fn of(records: &Records) -> Self {
        let (mut accounts, mut damaged) = (BTreeMap::new(), records.lost().to_vec());
        for address in records.newest().keys() {
            match entry(records, address) {
                Some(Entry::Account(account)) => drop(accounts.insert(address.clone(), Arc::from(account))),
                Some(Entry::Forgotten { .. }) => {}
                None => damaged.push(address.clone()),
            }
        }
        Self { accounts, damaged, trouble: records.trouble().cloned() }
    }
}

/// What is kept under this address, if this version can read it.
fn entry(records: &Records, address: &str) -> Option<Entry> {
    Entry::read(address, records.newest().get(address)?)
}

fn serials(records: &Records) -> impl Iterator<Item = (String, u64)> {
    records.newest().iter().map(|(address, record)| (address.clone(), record.serial))
}

/// The account that an exported record holds.
fn exported_account(address: &str, exported: &[u8]) -> Result<(Record, Box<Account>), VaultError> {
    let record = Record::read(address, exported);
    match record.and_then(|record| Some((Entry::read(address, &record)?, record))) {
        Some((Entry::Account(account), record)) => Ok((record, account)),
        _ => Err(VaultError::NotAnAccount(address.to_owned())),
    }
}

/// What is behind these locks is whole at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes as base64 in a record.
mod text {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD_NO_PAD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD_NO_PAD.decode(text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
