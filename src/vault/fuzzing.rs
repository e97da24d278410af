//! What the fuzzers do with records (`tests/fuzz`); no other build has it.

use super::account::{Entry, StoredAccount};
use super::password::Password;
use super::record::Record;
use super::slot::Search;

/// A record of this format with this content, as intact as a first line can make it.
pub fn vouch(format: u32, address: &str, content: &[u8]) -> Vec<u8> {
    Record { format, serial: 1, content: content.to_vec() }.to_bytes(address)
}

/// Reads a record and writes its content again. Where it is an account, all that is in it is opened, as far as this
/// generated app password does.
pub fn read(address: &str, bytes: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let entry = Entry::read(address, &Record::read(address, bytes)?)?;
    if let Entry::Account(account) = &entry {
        let _opened = open(account, &Password::read(password));
    }
    entry.to_content(address).ok()
}

fn open(account: &StoredAccount, password: &Password) -> Option<()> {
    let (key, slot) = account.unlock(&mut Search::new(password)).ok()?;
    account.take_tokens(&key, slot).ok().map(drop)
}
