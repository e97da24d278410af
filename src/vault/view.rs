//! The content of the vault's records, for readers. What all accounts together need is updated with each change, so that no
//! change and no reader has to look at all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::account::{Entry, StoredAccount};
use super::memory_record::MemoryRecord;
use super::offers::Offers;
use super::record::FORMAT;
use super::slot::FORMS;
use super::storage::Degradation;
use crate::name::{Name, find};

/// How many derivations a wrong password of each form takes.
type Derivations = [usize; FORMS];

#[derive(Default)]
pub struct VaultView {
    accounts: BTreeMap<String, Arc<StoredAccount>>,
    /// The addresses whose records cannot be read, and whether a newer version of postkey has written them.
    pub damaged: BTreeMap<String, bool>,
    /// The address of each name's record, also of a damaged one.
    spellings: BTreeMap<Name, String>,
    /// How many accounts take these derivations. There are few different ones.
    derivations: BTreeMap<Derivations, usize>,
    pub offers: Offers,
    pub trouble: Option<Degradation>,
}

impl VaultView {
    /// The view of these records. Those of the `lost` addresses are damaged.
    pub fn of(newest: &BTreeMap<String, MemoryRecord>, lost: &[String], trouble: Option<Degradation>) -> Self {
        let mut view = Self { trouble, ..Self::default() };
        for address in lost {
            view.insert_damaged(address, false);
        }
        for (address, record) in newest {
            view.put(address, record);
        }
        view
    }

    fn put(&mut self, address: &str, record: &MemoryRecord) {
        match record.entry(address) {
            Some(Entry::Account(account)) => self.insert(account),
            Some(Entry::Forgotten { .. }) => {}
            None => self.insert_damaged(address, record.format > FORMAT),
        }
    }

    /// Shows a record instead of the one before; None if it is damaged.
    pub fn show(&mut self, address: &str, record: Option<&MemoryRecord>) {
        if !matches!(record.and_then(|record| record.entry(address)), Some(Entry::Account(_))) {
            self.remove(address);
        }
        match record {
            Some(record) => self.put(address, record),
            None => self.insert_damaged(address, false),
        }
    }

    /// Puts another view in the place of this one.
    pub fn replace(&mut self, other: Self) {
        let before = std::mem::replace(self, other);
        self.offers.follow(&before.offers);
    }

    pub fn accounts(&self) -> &BTreeMap<String, Arc<StoredAccount>> {
        &self.accounts
    }

    /// Adds an account, or replaces the one with its address, or its damaged record.
    pub fn insert(&mut self, account: Arc<StoredAccount>) {
        let address = account.address.clone();
        // Before the old ones are removed, because what both have in common has not changed.
        self.offers.add(&account.provider, &account.known);
        *self.derivations.entry(account.derivations()).or_default() += 1;
        if let Some(before) = self.accounts.insert(address.clone(), account) {
            self.discount(&before);
        }
        self.damaged.remove(&address);
        self.spellings.entry(Name::typed(&address)).or_insert(address);
    }

    fn insert_damaged(&mut self, address: &str, is_newer: bool) {
        self.damaged.insert(address.to_owned(), is_newer);
        self.spellings.insert(Name::typed(address), address.to_owned());
    }

    /// Removes an account, or its damaged record.
    pub fn remove(&mut self, address: &str) {
        if let Some(before) = self.accounts.remove(address) {
            self.discount(&before);
        }
        self.damaged.remove(address);
        let name = Name::typed(address);
        // Another record may have the same name.
        if self.spellings.get(&name).is_some_and(|known| known == address) {
            self.spellings.remove(&name);
        }
    }

    /// The address under which there is a record of this name: the same spelling, or another one.
    pub fn spelling_of(&self, address: &str) -> Option<String> {
        if self.accounts.contains_key(address) || self.damaged.contains_key(address) {
            return Some(address.to_owned());
        }
        find(&self.spellings, &Name::typed(address)).map(|(_, address)| address.clone())
    }

    /// How many derivations a wrong password of this form takes, in the account where it takes most. An unknown account
    /// takes as many.
    pub fn most_derivations(&self, form: usize) -> usize {
        self.derivations.keys().filter_map(|each| each.get(form)).copied().fold(1, usize::max)
    }

    fn discount(&mut self, account: &StoredAccount) {
        self.offers.remove(&account.provider, &account.known);
        let derivations = account.derivations();
        if let Some(count) = self.derivations.get_mut(&derivations) {
            *count -= 1;
            if *count == 0 {
                self.derivations.remove(&derivations);
            }
        }
    }
}
