//! The accounts in numbers: for metrics, the service manager and `postkey status --exit-code`. Its size does not depend on
//! how many accounts there are.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::status::AccountState;
use crate::clock::Moment;
use crate::vault::StoredAccount;

/// How many addresses are named. A service manager's status is one line, and sd_notify(3) sends it in one datagram.
const NAMED: usize = 10;

/// The accounts in numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Census {
    pub(super) accounts: usize,
    /// The accounts that need a person.
    pub needing: Addresses,
    /// The accounts whose record may be older than before.
    pub older: Addresses,
    /// The records that cannot be read.
    pub damaged: Addresses,
    /// Whether the newest records are only in memory.
    pub is_degraded: bool,
    #[serde(skip)]
    pub(super) providers: BTreeMap<String, OfProvider>,
}

/// The accounts of one provider.
#[derive(Debug, Default)]
pub(super) struct OfProvider {
    pub(super) states: BTreeMap<AccountState, usize>,
    /// When the first of their refresh tokens expires if it is not used. Those that need a person do not count.
    pub(super) first_end: Option<Moment>,
}

/// Some addresses, the first of them by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Addresses {
    pub count: usize,
    first: Vec<String>,
}

impl Addresses {
    pub(super) fn add(&mut self, address: &str) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(address.to_owned());
        }
    }
}

/// As in `ann@example.com, ben@example.com and 7 more`.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl Census {
    pub(super) fn count(&mut self, record: &StoredAccount, state: AccountState, end: Option<Moment>) {
        self.accounts += 1;
        if state != AccountState::Ready {
            self.needing.add(&record.address);
        }
        if record.doubtful || record.rolled_back {
            self.older.add(&record.address);
        }
        if !self.providers.contains_key(&record.provider) {
            self.providers.insert(record.provider.clone(), OfProvider::default());
        }
        let Some(provider) = self.providers.get_mut(&record.provider) else { return };
        *provider.states.entry(state).or_default() += 1;
        let end = end.filter(|_| state == AccountState::Ready);
        provider.first_end = provider.first_end.into_iter().chain(end).min();
    }

    /// How many accounts there are, and which of them need a person, in one line.
    pub fn summary(&self) -> String {
        let count = match self.accounts {
            0 => "No account yet.".to_owned(),
            1 => "1 account.".to_owned(),
            count => format!("{count} accounts."),
        };
        let named = |words: &str, addresses: &Addresses| match addresses.count {
            0 => String::new(),
            _ => format!(" {words}: {addresses}."),
        };
        let needing = named("A person is needed for", &self.needing);
        let damaged = named("The record is damaged of", &self.damaged);
        let older = named("The record may be older than the last one for", &self.older);
        let degraded = if self.is_degraded { " The vault cannot be written to stable storage." } else { "" };
        format!("{count}{needing}{damaged}{older}{degraded}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_stays_short_however_many_accounts_need_a_person() {
        let mut census = Census::default();
        assert_eq!(census.summary(), "No account yet.");
        for number in 0..10_000 {
            let address = format!("u{number:04}@example.test");
            let mut record = StoredAccount::default();
            (record.address, record.provider) = (address, "own".to_owned());
            let state = if number % 2 == 0 { AccountState::Ended } else { AccountState::Ready };
            census.count(&record, state, Some(Moment(number)));
        }
        let summary = census.summary();
        assert!(summary.starts_with("10000 accounts. A person is needed for: u0000@example.test, u0002@"), "{summary}");
        assert!(summary.ends_with("u0018@example.test and 4990 more.") && summary.len() < 300, "{summary}");
        let own = &census.providers["own"];
        assert_eq!((own.states[&AccountState::Ready], own.first_end), (5000, Some(Moment(1))));
    }
}
