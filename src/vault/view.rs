//! What the vault's records say, for all who only look.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::account::{Entry, StoredAccount};
use super::record::FORMAT;
use super::records::{Degradation, Records};
use super::slot::FORMS;
use crate::name::Name;

/// What the records say.
pub struct VaultView {
    pub accounts: BTreeMap<String, Arc<StoredAccount>>,
    /// Addresses whose records cannot be read.
    pub damaged: Vec<String>,
    /// Under which address the record of a name is, of those that can be read or are damaged.
    pub spellings: BTreeMap<Name, String>,
    /// Those of them that a newer version of postkey has written.
    pub newer: Vec<String>,
    /// What a wrong password of each form costs in the account where it costs most.
    pub derivations: [usize; FORMS],
    pub trouble: Option<Degradation>,
}

impl VaultView {
    /// Reads all records.
    pub fn of(records: &Records) -> Self {
        let (mut accounts, mut damaged, mut newer) = (BTreeMap::new(), records.lost().to_vec(), Vec::new());
        for (address, record) in records.newest() {
            match Entry::read(address, record) {
                Some(Entry::Account(account)) => drop(accounts.insert(address.clone(), Arc::from(account))),
                Some(Entry::Forgotten { .. }) => {}
                None => damaged.push(address.clone()),
            }
            if record.format > FORMAT {
                newer.push(address.clone());
            }
        }
        let known = accounts.keys().chain(&damaged);
        let spellings = known.map(|address| (Name::typed(address), address.clone())).collect();
        let (derivations, trouble) = (derivations(&accounts), records.trouble().cloned());
        Self { accounts, damaged, newer, spellings, derivations, trouble }
    }
}

/// What a wrong password of each form costs in the account where it costs most, and in one that there is not.
pub fn derivations(accounts: &BTreeMap<String, Arc<StoredAccount>>) -> [usize; FORMS] {
    let mut most = [1; FORMS];
    for account in accounts.values() {
        most.iter_mut().zip(account.derivations()).for_each(|(most, one)| *most = one.max(*most));
    }
    most
}
