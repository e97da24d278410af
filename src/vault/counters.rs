//! The number of the newest write of each record, in a third place beside both copies.
//!
//! It shows when somebody has replaced both copies by older files. It is written after the record is on stable storage, and
//! without an fsync: so a crash leaves it behind the record and never ahead, and it costs next to nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::files;
use super::record::checksum;

/// The beginning of the first line; a checksum follows.
const MAGIC: &str = "postkey-counters 1";

/// The numbers of the newest writes.
pub struct Counters {
    file: PathBuf,
    newest: BTreeMap<String, Counter>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Counter {
    serial: u64,
    /// Whether the newest write has forgotten the account.
    is_forgotten: bool,
}

impl Counters {
    /// Opens the counters of this vault. If the file is missing or damaged, they start empty.
    pub fn open(vault: &Path) -> Self {
        let file = vault.join("counters");
        let newest = match files::open_private(&file).map(std::io::read_to_string) {
            Ok(Ok(text)) => read(&text).unwrap_or_else(|| {
                let file = file.display();
                warn!(%file, "{file} is damaged and starts empty; if older records have been restored before, that is not detected");
                BTreeMap::new()
            }),
            _ => BTreeMap::new(),
        };
        Self { file, newest }
    }

    /// The number of the newest known write of this record.
    pub fn newest(&self, key: &str) -> Option<u64> {
        self.newest.get(key).map(|counter| counter.serial)
    }

    /// The addresses that are known to have an account.
    pub fn accounts(&self) -> impl Iterator<Item = &String> {
        self.newest.iter().filter(|(_, counter)| !counter.is_forgotten).map(|(key, _)| key)
    }

    /// Notes a write, if it is newer than the known one. Returns whether it is.
    pub fn note(&mut self, key: &str, serial: u64, is_forgotten: bool) -> bool {
        let is_newer = self.newest(key).is_none_or(|known| known < serial);
        if is_newer {
            self.newest.insert(key.to_owned(), Counter { serial, is_forgotten });
        }
        is_newer
    }

    /// Writes the file. A failure is only logged, because the next write repeats it and the records are on stable storage.
    pub fn write(&self) {
        let draft = self.file.with_extension("new");
        if let Err(error) = files::replace_unsynced(&self.file, &draft, self.to_text().as_bytes()) {
            warn!(file = %self.file.display(), %error, "cannot write {}: {error}", self.file.display());
        }
    }

    fn to_text(&self) -> String {
        let line = |(key, counter): (&String, &Counter)| {
            format!("{} {} {key}\n", counter.serial, if counter.is_forgotten { "forgotten" } else { "account" })
        };
        let lines: String = self.newest.iter().map(line).collect();
        format!("{MAGIC} {}\n{lines}", checksum(&[lines.as_bytes()]))
    }
}

fn read(text: &str) -> Option<BTreeMap<String, Counter>> {
    let (first, lines) = text.split_once('\n')?;
    let is_whole = first == format!("{MAGIC} {}", checksum(&[lines.as_bytes()]));
    let counter = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (serial, kind) = (words.next()?.parse().ok()?, words.next()?);
        Some((words.next()?.to_owned(), Counter { serial, is_forgotten: kind == "forgotten" }))
    };
    is_whole.then(|| lines.lines().map(counter).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_again_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut counters = Counters::open(dir.path());
        assert!(counters.note("ann@example.test", 7, false) && counters.note("ben@example.test", 8, true));
        assert!(!counters.note("ann@example.test", 6, true), "it does not go back");
        counters.write();
        let again = Counters::open(dir.path());
        assert!(again.newest == counters.newest);
        assert_eq!(again.accounts().collect::<Vec<_>>(), ["ann@example.test"]);
        let text = counters.to_text();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(std::str::from_utf8(&damaged).ok().and_then(read).is_none(), "bit {bit}");
        }
        std::fs::write(dir.path().join("counters"), "nonsense").unwrap();
        assert_eq!(Counters::open(dir.path()).newest("ann@example.test"), None);
    }
}
