//! The view of the vault's records, for its readers and for those who wait for a change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::account::StoredAccount;
use super::memory_record::MemoryRecord;
use super::storage::Degradation;
use super::view::VaultView;
use crate::mutex::lock;

/// Accounts that another replica has changed, each as it was before; None if there was none.
pub type ForeignChanges = BTreeMap<String, Option<Arc<StoredAccount>>>;

/// A view that several threads share. Only locked for a moment.
#[derive(Default)]
pub struct SharedView {
    view: Mutex<VaultView>,
    troubled: Notify,
    foreign: Mutex<ForeignChanges>,
    changed: Notify,
}

impl SharedView {
    pub fn new(view: VaultView) -> Arc<Self> {
        Arc::new(Self { view: Mutex::new(view), ..Self::default() })
    }

    pub fn read<T>(&self, read: impl FnOnce(&VaultView) -> T) -> T {
        read(&lock(&self.view))
    }

    pub fn account(&self, address: &str) -> Option<Arc<StoredAccount>> {
        lock(&self.view).accounts().get(address).cloned()
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut VaultView) -> T) -> T {
        change(&mut lock(&self.view))
    }

    /// Shows a record that another replica has written; None if it is damaged.
    pub fn show_foreign(&self, address: &str, record: Option<&MemoryRecord>) {
        self.change_foreign(address, |view| view.show(address, record));
    }

    /// Hides a record that somebody else has removed.
    pub fn hide_foreign(&self, address: &str) {
        self.change_foreign(address, |view| view.remove(address));
    }

    fn change_foreign(&self, address: &str, change: impl FnOnce(&mut VaultView)) {
        let before = {
            let mut view = lock(&self.view);
            let before = view.accounts().get(address).cloned();
            change(&mut view);
            before
        };
        lock(&self.foreign).entry(address.to_owned()).or_insert(before);
        self.changed.notify_one();
    }

    /// Waits for changes by other replicas.
    pub async fn foreign_changes(&self) -> ForeignChanges {
        loop {
            let changes = std::mem::take(&mut *lock(&self.foreign));
            if !changes.is_empty() {
                return changes;
            }
            self.changed.notified().await;
        }
    }

    pub fn trouble(&self) -> Option<Degradation> {
        lock(&self.view).trouble.clone()
    }

    /// Wakes whoever waits for trouble, if there is some.
    pub fn notify_of_trouble(&self) {
        if self.trouble().is_some() {
            self.troubled.notify_one();
        }
    }

    /// Waits for the beginning of trouble, or for a change during it.
    pub async fn troubled(&self) {
        self.troubled.notified().await;
    }
}
