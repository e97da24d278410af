//! What the vault needs of the place where its sealed records are kept: files of this machine (`embedded.rs`), or a
//! database that several replicas share (`postgresql.rs`).

use super::account::Entry;
use super::error::VaultError;
use super::record::Record;
use crate::clock::Moment;

/// Since when, and why, changes cannot be stored, or not all of them.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Degradation {
    pub since: Moment,
    pub why: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Replaces the old record.
    Replace,
    /// The same, with tokens that exist nowhere else. They are kept in memory until they can be stored.
    Tokens,
    /// Replaces the old record, and leaves nothing of it on the disk.
    Erase,
    /// The same as `Erase`, after which the account no longer exists.
    Forget,
}

/// A record to write.
pub struct RecordWrite<'a> {
    pub address: &'a str,
    pub entry: Entry,
    /// The serial of the record from which the entry was made. None if there was none.
    pub expected: Option<u64>,
    /// The new serial is above this one.
    pub seen: u64,
    pub purpose: Purpose,
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is in effect. It is on stable storage, unless there is trouble.
    Written,
    /// Another change came first, and nothing was written. The record in memory is the newer one.
    Conflict,
}

/// Keeps the sealed records, and shows in a [`SharedView`](super::shared_view::SharedView) what it has.
pub trait RecordStorage: Send + Sync {
    /// The serial of the newest known record of an address.
    fn serial(&self, address: &str) -> Option<u64>;

    /// The entry of an address, if this version can read it.
    fn entry(&self, address: &str) -> Option<Entry>;

    /// The newest known record of an address.
    fn record(&self, address: &str) -> Option<Record>;

    /// The addresses of all records, also of forgotten accounts.
    fn addresses(&self) -> Vec<String>;

    /// Replaces a record if nothing has replaced it before, and updates the view.
    fn put(&self, write: RecordWrite<'_>) -> Result<WriteOutcome, VaultError>;

    /// Tries to end the trouble. Returns the addresses whose accounts have to be opened again.
    fn heal(&self) -> Vec<String>;

    /// Whether something is only in memory.
    fn has_unsaved(&self) -> bool;

    /// Whether a write would not have to wait for another one.
    fn is_free(&self) -> bool;
}
