//! The records of the database as this replica knows them, so that a login asks the database nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tracing::{error, info, warn};

use super::table::RecordRow;
use crate::clock::{Clock, Moment};
use crate::mutex::lock;
use crate::vault::account::Entry;
use crate::vault::memory_record::{FoundRecord, MemoryRecord, SharedOffers};
use crate::vault::record::Record;
use crate::vault::shared_view::SharedView;
use crate::vault::storage::Degradation;
use crate::vault::view::VaultView;

/// The records of the database as this replica knows them.
pub struct KnownRecords {
    state: Mutex<KnownState>,
    pub view: Arc<SharedView>,
}

#[derive(Default)]
struct KnownState {
    records: BTreeMap<String, KnownRecord>,
    offers: SharedOffers,
    /// Records with tokens that are not in the database yet, by address, each with the serial that it replaces.
    unsaved: BTreeMap<String, u64>,
}

/// A record, or None if it is damaged, and its serial in the database.
#[derive(Clone)]
struct KnownRecord {
    serial: u64,
    record: Option<MemoryRecord>,
}

/// A record that waits to be written.
pub struct Unsaved {
    pub row: RecordRow,
    pub expected: u64,
}

impl KnownRecords {
    pub fn new(rows: Vec<RecordRow>) -> Self {
        let (mut state, mut newest, mut lost) = (KnownState::default(), BTreeMap::new(), Vec::new());
        for row in rows {
            let known = state.read(&row);
            match &known.record {
                Some(record) => drop(newest.insert(row.address.clone(), record.clone())),
                None => lost.push(row.address.clone()),
            }
            state.records.insert(row.address, known);
        }
        Self { state: Mutex::new(state), view: SharedView::new(VaultView::of(&newest, &lost, None)) }
    }

    pub fn serial(&self, address: &str) -> Option<u64> {
        lock(&self.state).records.get(address).map(|known| known.serial)
    }

    pub fn entry(&self, address: &str) -> Option<Entry> {
        lock(&self.state).records.get(address)?.record.as_ref()?.entry(address)
    }

    pub fn record(&self, address: &str) -> Option<Record> {
        Some(lock(&self.state).records.get(address)?.record.as_ref()?.to_record(address))
    }

    pub fn addresses(&self) -> Vec<String> {
        lock(&self.state).records.keys().cloned().collect()
    }

    /// The generation of an address's token set.
    pub fn generation(&self, address: &str) -> Option<u64> {
        self.entry(address).map(|entry| entry.generation())
    }

    /// A record with this entry, and the next serial after the one that it replaces.
    pub fn make(&self, entry: Entry, expected: Option<u64>, seen: u64) -> MemoryRecord {
        // The first one has the time in seconds, so that it is above that of an embedded vault.
        let next = expected.map_or_else(|| Clock::System.now().0, |serial| serial.saturating_add(1));
        MemoryRecord::new(next.max(seen.saturating_add(1)), entry, &mut lock(&self.state).offers)
    }

    /// This replica has written a record.
    pub fn written(&self, address: &str, record: MemoryRecord) {
        let mut state = lock(&self.state);
        state.unsaved.remove(address);
        state.show(address, record, &self.view);
    }

    /// Takes a record with new tokens into use that the database has not stored.
    pub fn hold(&self, address: &str, record: MemoryRecord, expected: u64) {
        let mut state = lock(&self.state);
        let known = state.records.get(address).cloned();
        state.unsaved.insert(address.to_owned(), expected);
        match known.and_then(|known| Some((known.to_row(address)?, known))) {
            Some((row, known)) if known.serial != expected => {
                // Another replica's record has come meanwhile.
                state.records.insert(address.to_owned(), KnownRecord { serial: record.serial, record: Some(record) });
                let settled = state.settle(address, known, &row);
                self.view.change(|view| view.show(address, settled.record.as_ref()));
                state.records.insert(address.to_owned(), settled);
            }
            _ => state.show(address, record, &self.view),
        }
    }

    /// Takes a record of the database, if it is newer than the known one, or if the known one still has the serial
    /// `instead_of`, which the database no longer has.
    pub fn take(&self, row: &RecordRow, instead_of: Option<u64>) {
        let mut state = lock(&self.state);
        let known = state.records.get(&row.address);
        let saved = state.unsaved.get(&row.address).copied().or(known.map(|known| known.serial));
        let is_news = saved.is_none_or(|saved| row.serial > saved) || saved == instead_of && saved != Some(row.serial);
        if !is_news {
            return;
        }
        if saved.is_some_and(|saved| row.serial < saved) {
            error!(account = row.address, "the database has an older record of {} than before", row.address);
        }
        let taken = state.read(row);
        let taken = state.settle(&row.address, taken, row);
        self.view.show_foreign(&row.address, taken.record.as_ref());
        state.records.insert(row.address.clone(), taken);
    }

    /// Somebody has removed a record from the database.
    pub fn gone(&self, address: &str) {
        let mut state = lock(&self.state);
        state.unsaved.remove(address);
        if state.records.remove(address).is_some() {
            error!(account = address, "somebody has removed the record of {address} from the database");
            self.view.hide_foreign(address);
        }
    }

    /// The records that wait to be written.
    pub fn unsaved(&self) -> Vec<Unsaved> {
        let state = lock(&self.state);
        state.unsaved.keys().filter_map(|address| state.waiting(address)).collect()
    }

    /// The record of this address, if it waits to be written.
    pub fn unsaved_of(&self, address: &str) -> Option<Unsaved> {
        lock(&self.state).waiting(address)
    }

    /// A record that waited is in the database now.
    pub fn saved(&self, address: &str, serial: u64) {
        let mut state = lock(&self.state);
        if state.records.get(address).is_some_and(|known| known.serial == serial) {
            state.unsaved.remove(address);
        }
    }

    pub fn has_unsaved(&self) -> bool {
        !lock(&self.state).unsaved.is_empty()
    }

    /// Starts the trouble, and logs it once.
    pub fn begin_trouble(&self, why: &str) {
        let is_new = self.view.change(|view| {
            let is_new = view.trouble.is_none();
            view.trouble.get_or_insert_with(|| Degradation { since: Clock::System.now(), why: why.to_owned() });
            is_new
        });
        if is_new {
            error!(
                why,
                "{why}; open accounts with valid tokens are served, and everything else waits for the database"
            );
        }
        self.view.notify_of_trouble();
    }

    /// Ends the trouble, and logs that.
    pub fn end_trouble(&self) {
        let since: Option<Moment> = self.view.change(|view| view.trouble.take()).map(|trouble| trouble.since);
        if let Some(since) = since {
            info!(%since, "the vault's database is available again; since {since} it was not");
        }
    }
}

impl KnownState {
    fn read(&mut self, row: &RecordRow) -> KnownRecord {
        let found = FoundRecord::read(&row.address, row.bytes.clone(), None, &mut self.offers);
        let record = found.whole().cloned();
        if record.is_none() {
            error!(account = row.address, "the database's record of {} is damaged", row.address);
        }
        KnownRecord { serial: row.serial, record }
    }

    /// Shows a record that this replica has made, unless there is a newer one.
    fn show(&mut self, address: &str, record: MemoryRecord, view: &SharedView) {
        if self.records.get(address).is_some_and(|known| known.serial >= record.serial) {
            return;
        }
        view.change(|view| view.show(address, Some(&record)));
        self.records.insert(address.to_owned(), KnownRecord { serial: record.serial, record: Some(record) });
    }

    /// What becomes of the unsaved tokens of this address when the database has another record: they go on top of it,
    /// unless it has newer ones.
    fn settle(&mut self, address: &str, taken: KnownRecord, row: &RecordRow) -> KnownRecord {
        if self.unsaved.remove(address).is_none() {
            return taken;
        }
        let Some(KnownRecord { record: Some(unsaved), .. }) = self.records.get(address).cloned() else { return taken };
        if unsaved.to_bytes(address) == row.bytes {
            // The write had taken effect, and only its confirmation was lost.
            return taken;
        }
        let account = |record: &MemoryRecord| match record.entry(address) {
            Some(Entry::Account(account)) => Some(account),
            _ => None,
        };
        let both = taken.record.as_ref().and_then(account).zip(account(&unsaved));
        match both.and_then(|(taken, unsaved)| taken.with_tokens_of(&unsaved)) {
            Some(merged) => {
                self.unsaved.insert(address.to_owned(), row.serial);
                let serial = row.serial.saturating_add(1);
                let record = MemoryRecord::new(serial, Entry::Account(Arc::new(merged)), &mut self.offers);
                KnownRecord { serial, record: Some(record) }
            }
            None => {
                warn!(account = address, "new tokens of {address} are dropped, because another replica has newer ones");
                taken
            }
        }
    }

    fn waiting(&self, address: &str) -> Option<Unsaved> {
        let expected = *self.unsaved.get(address)?;
        Some(Unsaved { row: self.records.get(address)?.to_row(address)?, expected })
    }
}

impl KnownRecord {
    fn to_row(&self, address: &str) -> Option<RecordRow> {
        let bytes = self.record.as_ref()?.to_bytes(address);
        Some(RecordRow { address: address.to_owned(), serial: self.serial, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flow::Flow;
    use crate::secret::Token;
    use crate::token::{Life, TokenSet};
    use crate::vault::account::{Authorization, Secrets, StoredAccount};

    const ANN: &str = "ann@example.test";

    fn tokens() -> TokenSet {
        let access = Token::parse("access").unwrap();
        TokenSet { access, refresh: None, life: Life::default(), scope: String::new() }
    }

    fn account() -> StoredAccount {
        let authorization = Authorization {
            address: ANN.into(),
            provider: "own".into(),
            flow: Flow::AuthorizationCode,
            client_id: None,
            secrets: Secrets::default(),
            discovered: None,
            tokens: tokens(),
        };
        StoredAccount::begin(&authorization, None, 0, Moment(1)).unwrap()
    }

    fn changed(account: &StoredAccount, change: impl FnOnce(&mut StoredAccount)) -> StoredAccount {
        let mut account = account.clone();
        change(&mut account);
        account
    }

    fn record(serial: u64, account: &StoredAccount) -> MemoryRecord {
        MemoryRecord::new(serial, Entry::Account(Arc::new(account.clone())), &mut SharedOffers::default())
    }

    fn row(serial: u64, account: &StoredAccount) -> RecordRow {
        RecordRow { address: ANN.into(), serial, bytes: record(serial, account).to_bytes(ANN) }
    }

    /// The records after another replica has stored this one while new tokens were not stored yet.
    fn settled(first: &StoredAccount, new: &StoredAccount, other: &RecordRow, is_early: bool) -> KnownRecords {
        let known = KnownRecords::new(vec![row(10, first)]);
        if is_early {
            known.take(other, None);
        }
        known.hold(ANN, record(11, new), 10);
        if !is_early {
            known.take(other, None);
        }
        known
    }

    #[test]
    fn unsaved_tokens_go_on_top_of_what_another_replica_has_changed() {
        let first = account();
        let new = changed(&first, |account| account.put_tokens(&tokens()).unwrap());
        let other = changed(&first, |account| drop(account.mechanisms.insert("imap".into(), "XOAUTH2".into())));
        for is_early in [false, true] {
            let known = settled(&first, &new, &row(11, &other), is_early);
            let account = known.view.account(ANN).unwrap();
            assert_eq!((account.generation(), account.mechanisms.len()), (2, 1));
            let unsaved = known.unsaved_of(ANN).unwrap();
            assert_eq!((unsaved.expected, unsaved.row.serial), (11, 12));
        }
    }

    #[test]
    fn unsaved_tokens_that_were_stored_after_all_are_not_stored_again() {
        let first = account();
        let new = changed(&first, |account| account.put_tokens(&tokens()).unwrap());
        let known = settled(&first, &new, &row(11, &new), false);
        assert!(!known.has_unsaved() && known.generation(ANN) == Some(2));
    }

    #[test]
    fn unsaved_tokens_give_way_to_newer_ones() {
        let first = account();
        let new = changed(&first, |account| account.put_tokens(&tokens()).unwrap());
        let newer = changed(&new, |account| account.put_tokens(&tokens()).unwrap());
        for is_early in [false, true] {
            let known = settled(&first, &new, &row(12, &newer), is_early);
            assert!(!known.has_unsaved() && known.generation(ANN) == Some(3), "{is_early}");
        }
    }

    #[test]
    fn an_older_record_counts_only_if_the_database_no_longer_has_the_newer_one() {
        let first = account();
        let known = KnownRecords::new(vec![row(10, &first)]);
        known.take(&row(9, &first), None);
        known.take(&row(9, &first), Some(8));
        assert_eq!(known.serial(ANN), Some(10));
        known.take(&row(9, &first), Some(10));
        assert_eq!(known.serial(ANN), Some(9));
        known.gone(ANN);
        assert!(known.view.account(ANN).is_none() && known.addresses().is_empty());
    }
}
