//! The interface of the fuzz targets (`tests/fuzz`). Other builds do not contain it.

use super::account::Entry;
use super::password::Password;
use super::record::Record;
use super::slot::Search;

/// A record of this format and content, with a correct first line.
pub fn vouch(format: u32, address: &str, content: &[u8]) -> Vec<u8> {
    Record { format, serial: 1, content: content.to_vec() }.to_bytes(address)
}

/// Reads a record and returns its content, written again. If it is an account, also opens it with this app password.
pub fn read(address: &str, bytes: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let entry = Entry::read(address, &Record::read(address, bytes)?)?;
    if let Entry::Account(account) = &entry {
        let unlocked = account.unlock(&mut Search::new(&Password::read(password)));
        let _opened = unlocked.and_then(|(key, slot)| account.take_tokens(&key, slot));
    }
    entry.to_content(address).ok()
}
