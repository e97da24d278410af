//! Records in memory. There can be ten thousand, so each has one form only, and what many of them have in common is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::account::{Entry, StoredAccount};
use super::offers::OfferByProtocol;
use super::record::{FORMAT, Record};

/// The records found in a copy of the vault, by address.
pub type Found = BTreeMap<String, FoundRecord>;

/// A record found in a copy of the vault.
pub enum FoundRecord {
    Whole(MemoryRecord),
    Damaged(Vec<u8>),
}

/// A record in memory. Clones share its account.
#[derive(Clone)]
pub struct MemoryRecord {
    pub format: u32,
    pub serial: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    /// An entry that this version would write with the same bytes, so the bytes need not be kept.
    Entry(Entry),
    /// The content of a record from another version.
    Bytes(Vec<u8>),
}

/// The capabilities that mail servers offer. Each different list is here once.
#[derive(Default)]
pub struct SharedOffers(BTreeSet<Arc<OfferByProtocol>>);

impl FoundRecord {
    /// Reads the bytes of this key. If they are those of `like`, which is in memory already, the account is not read again.
    pub fn read(key: &str, bytes: Vec<u8>, like: Option<&MemoryRecord>, offers: &mut SharedOffers) -> Self {
        match (Record::read(key, &bytes), like) {
            (None, _) => Self::Damaged(bytes),
            (Some(record), Some(like)) if like.is(key, &record) => Self::Whole(like.clone()),
            (Some(record), _) => Self::Whole(MemoryRecord::read(key, record, offers)),
        }
    }

    /// The record, unless it is damaged.
    pub fn whole(&self) -> Option<&MemoryRecord> {
        match self {
            Self::Whole(record) => Some(record),
            Self::Damaged(_) => None,
        }
    }

    pub fn to_bytes(&self, key: &str) -> Vec<u8> {
        match self {
            Self::Whole(record) => record.to_bytes(key),
            Self::Damaged(bytes) => bytes.clone(),
        }
    }
}

impl MemoryRecord {
    fn read(key: &str, record: Record, offers: &mut SharedOffers) -> Self {
        let Record { format, serial, ref content } = record;
        match Entry::read(key, &record) {
            Some(entry) if format == FORMAT && entry.to_content(key).is_ok_and(|again| again == *content) => {
                Self::new(serial, entry, offers)
            }
            _ => Self { format, serial, content: Content::Bytes(record.content) },
        }
    }

    /// A record that this version writes.
    pub fn new(serial: u64, mut entry: Entry, offers: &mut SharedOffers) -> Self {
        if let Entry::Account(account) = &mut entry {
            offers.share(&mut Arc::make_mut(account).known);
        }
        Self { format: FORMAT, serial, content: Content::Entry(entry) }
    }

    /// The account, if this version has written it.
    pub fn account(&self) -> Option<Arc<StoredAccount>> {
        match &self.content {
            Content::Entry(Entry::Account(account)) => Some(Arc::clone(account)),
            _ => None,
        }
    }

    /// Its entry, if this version can read it.
    pub fn entry(&self, key: &str) -> Option<Entry> {
        match &self.content {
            Content::Entry(entry) => Some(entry.clone()),
            Content::Bytes(_) => Entry::read(key, &self.to_record(key)),
        }
    }

    /// The record as it is on the disk.
    pub fn to_record(&self, key: &str) -> Record {
        let content = match &self.content {
            // The entry was written before, so it can be written again.
            Content::Entry(entry) => entry.to_content(key).unwrap_or_default(),
            Content::Bytes(bytes) => bytes.clone(),
        };
        Record { format: self.format, serial: self.serial, content }
    }

    pub fn to_bytes(&self, key: &str) -> Vec<u8> {
        self.to_record(key).to_bytes(key)
    }

    /// Whether both are the same on the disk.
    pub fn same_as(&self, key: &str, other: &Self) -> bool {
        let is_shared = self.account().zip(other.account()).is_some_and(|(one, other)| Arc::ptr_eq(&one, &other));
        is_shared && self.serial == other.serial || self.is(key, &other.to_record(key))
    }

    /// Whether this is the same record as the one on the disk.
    fn is(&self, key: &str, record: &Record) -> bool {
        (self.format, self.serial) == (record.format, record.serial) && self.to_record(key).content == record.content
    }
}

impl SharedOffers {
    fn share(&mut self, known: &mut Arc<OfferByProtocol>) {
        if let Some(shared) = self.0.get(known.as_ref()) {
            *known = Arc::clone(shared);
            return;
        }
        // Removes the lists that no account uses any more.
        self.0.retain(|offer| Arc::strong_count(offer) > 1);
        self.0.insert(Arc::clone(known));
    }
}
