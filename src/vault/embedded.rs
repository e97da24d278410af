//! Keeps the records in files of this machine. One process has them open at a time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, TryLockError};

use super::account::Entry;
use super::error::{StoreError, VaultError};
use super::record::Record;
use super::records::Records;
use super::shared_view::SharedView;
use super::storage::{RecordStorage, RecordWrite, WriteOutcome};
use super::view::VaultView;
use crate::mutex::lock;

pub struct Embedded {
    /// Locked for as long as the disk takes.
    records: Mutex<Records>,
    view: Arc<SharedView>,
    /// The addresses that may have lost a newer record.
    pub doubtful: Vec<String>,
    /// The addresses whose copies are both older than the last write.
    pub rolled_back: Vec<String>,
}

impl Embedded {
    /// Opens the records in this folder, or creates them.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let records = Records::open(dir)?;
        Ok(Self {
            view: SharedView::new(view(&records)),
            doubtful: records.doubtful().to_vec(),
            rolled_back: records.rolled_back().to_vec(),
            records: Mutex::new(records),
        })
    }

    pub fn view(&self) -> Arc<SharedView> {
        Arc::clone(&self.view)
    }
}

impl RecordStorage for Embedded {
    fn serial(&self, address: &str) -> Option<u64> {
        lock(&self.records).newest().get(address).map(|record| record.serial)
    }

    fn entry(&self, address: &str) -> Option<Entry> {
        lock(&self.records).newest().get(address)?.entry(address)
    }

    fn record(&self, address: &str) -> Option<Record> {
        Some(lock(&self.records).newest().get(address)?.to_record(address))
    }

    fn addresses(&self) -> Vec<String> {
        lock(&self.records).newest().keys().cloned().collect()
    }

    /// Writes before it updates the view, so that nobody uses what is lost in a crash.
    fn put(&self, write: RecordWrite<'_>) -> Result<WriteOutcome, VaultError> {
        let RecordWrite { address, entry, expected, seen, purpose } = write;
        let mut records = lock(&self.records);
        if records.newest().get(address).map(|record| record.serial) != expected {
            return Ok(WriteOutcome::Conflict);
        }
        let account = records.put(address, entry, seen, purpose)?;
        self.view.change(|view| {
            match account {
                Some(account) => view.insert(account),
                None => view.remove(address),
            }
            view.trouble = records.trouble().cloned();
        });
        drop(records);
        self.view.notify_of_trouble();
        Ok(WriteOutcome::Written)
    }

    /// Returns the addresses whose records have changed because a newer one was on the disk.
    fn heal(&self) -> Vec<String> {
        let mut records = lock(&self.records);
        let before: BTreeMap<String, u64> = serials(&records).collect();
        records.heal();
        self.view.change(|current| current.replace(view(&records)));
        serials(&records).filter(|(address, serial)| before.get(address) != Some(serial)).map(|(key, _)| key).collect()
    }

    fn has_unsaved(&self) -> bool {
        self.view.trouble().is_some()
    }

    /// Reading or writing its files takes milliseconds, unless the disk hangs.
    fn is_free(&self) -> bool {
        !matches!(self.records.try_lock(), Err(TryLockError::WouldBlock))
    }
}

fn view(records: &Records) -> VaultView {
    VaultView::of(records.newest(), records.lost(), records.trouble().cloned())
}

fn serials(records: &Records) -> impl Iterator<Item = (String, u64)> {
    records.newest().iter().map(|(address, record)| (address.clone(), record.serial))
}
