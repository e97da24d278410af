//! The content of the vault's records, for readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::account::{Entry, StoredAccount};
use super::record::FORMAT;
use super::records::{Degradation, Records};
use super::slot::FORMS;
use crate::name::Name;

pub struct VaultView {
    pub accounts: BTreeMap<String, Arc<StoredAccount>>,
    /// The addresses whose records cannot be read, and whether a newer version of postkey has written them.
    pub damaged: BTreeMap<String, bool>,
    /// The address of each name's record, also of a damaged one.
    pub spellings: BTreeMap<Name, String>,
    /// How many derivations a wrong password of each form takes, in the account where it takes most.
    pub derivations: [usize; FORMS],
    pub trouble: Option<Degradation>,
}

impl VaultView {
    pub fn of(records: &Records) -> Self {
        let mut accounts = BTreeMap::new();
        let mut damaged: BTreeMap<_, _> = records.lost().iter().map(|address| (address.clone(), false)).collect();
        for (address, record) in records.newest() {
            match Entry::read(address, record) {
                Some(Entry::Account(account)) => drop(accounts.insert(address.clone(), Arc::from(account))),
                Some(Entry::Forgotten { .. }) => {}
                None => drop(damaged.insert(address.clone(), record.format > FORMAT)),
            }
        }
        let known = accounts.keys().chain(damaged.keys());
        let spellings = known.map(|address| (Name::typed(address), address.clone())).collect();
        let (derivations, trouble) = (derivations(&accounts), records.trouble().cloned());
        Self { accounts, damaged, spellings, derivations, trouble }
    }
}

/// How many derivations a wrong password of each form takes, in the account where it takes most. An unknown account takes
/// as many.
pub fn derivations(accounts: &BTreeMap<String, Arc<StoredAccount>>) -> [usize; FORMS] {
    let mut most = [1; FORMS];
    for account in accounts.values() {
        most.iter_mut().zip(account.derivations()).for_each(|(most, one)| *most = one.max(*most));
    }
    most
}
