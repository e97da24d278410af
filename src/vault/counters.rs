//! The number of the newest write of each record, in a third place beside both copies.
//!
//! It shows when somebody has replaced both copies by older files. It is written after the record is on stable storage, and
//! without an fsync: so a crash leaves it behind the record and never ahead, and it costs next to nothing.
//!
//! A write appends a line to a log, so that it costs the same however many records there are. The log is folded into the
//! file of all numbers when it is as long as that.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::files;
use super::record::checksum;

/// The beginning of the first line; a checksum follows.
const MAGIC: &str = "postkey-counters 1";

/// How many lines the log has at least before it is folded.
const SHORTEST_LOG: usize = 64;

/// The numbers of the newest writes.
pub struct Counters {
    file: PathBuf,
    newest: BTreeMap<String, Counter>,
    /// None if it cannot be written, so that the whole file is written instead.
    log: Option<File>,
    logged: usize,
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
        let newest = match files::open_private(&file).map(io::read_to_string) {
            Ok(Ok(text)) => read(&text).unwrap_or_else(|| {
                let file = file.display();
                warn!(%file, "{file} is damaged and starts empty; if older records have been restored before, that is not detected");
                BTreeMap::new()
            }),
            _ => BTreeMap::new(),
        };
        let mut counters = Self { file, newest, log: None, logged: 0 };
        counters.read_log();
        counters
    }

    /// The number of the newest known write of this record.
    pub fn newest(&self, key: &str) -> Option<u64> {
        self.newest.get(key).map(|counter| counter.serial)
    }

    /// The addresses that are known to have an account.
    pub fn accounts(&self) -> impl Iterator<Item = &String> {
        self.newest.iter().filter(|(_, counter)| !counter.is_forgotten).map(|(key, _)| key)
    }

    /// Notes a write, if it is newer than the known one, without storing that. Returns whether it is.
    pub fn note(&mut self, key: &str, serial: u64, is_forgotten: bool) -> bool {
        let is_newer = self.newest(key).is_none_or(|known| known < serial);
        if is_newer {
            self.newest.insert(key.to_owned(), Counter { serial, is_forgotten });
        }
        is_newer
    }

    /// Notes a write, and stores that.
    pub fn count(&mut self, key: &str, serial: u64, is_forgotten: bool) {
        if !self.note(key, serial, is_forgotten) {
            return;
        }
        let line = line(key, Counter { serial, is_forgotten });
        let line = format!("{} {line}", checksum(&[line.as_bytes()]));
        self.logged += 1;
        // One call, so that a crash leaves a whole line or a part that no checksum fits.
        let is_logged = self.log.as_mut().is_some_and(|log| log.write_all(line.as_bytes()).is_ok());
        if !is_logged || self.logged > self.newest.len().max(SHORTEST_LOG) {
            self.write();
        }
    }

    /// Writes the file of all numbers, and empties the log. A failure is only logged, because the next write repeats it and
    /// the records are on stable storage.
    pub fn write(&mut self) {
        let draft = self.file.with_extension("new");
        let written = files::replace_unsynced(&self.file, &draft, self.to_text().as_bytes());
        match written.and_then(|()| self.empty_log()) {
            Ok(log) => (self.log, self.logged) = (Some(log), 0),
            Err(error) => {
                self.log = None;
                warn!(file = %self.file.display(), %error, "cannot write {}: {error}", self.file.display());
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        self.file.with_extension("log")
    }

    /// Reads the log up to a line that a crash has left unfinished. If there is none, new lines are appended to the log.
    fn read_log(&mut self) {
        let Ok(Ok(text)) = files::open_private(&self.log_path()).map(io::read_to_string) else { return };
        for line in text.split_inclusive('\n') {
            let Some((key, Counter { serial, is_forgotten })) = logged(line) else { break };
            self.note(&key, serial, is_forgotten);
            self.logged += 1;
        }
        let is_whole = text.split_inclusive('\n').count() == self.logged;
        let append = || OpenOptions::new().append(true).open(self.log_path()).ok();
        self.log = if is_whole { append() } else { None };
    }

    /// A new log in the place of the old one.
    fn empty_log(&self) -> io::Result<File> {
        let path = self.log_path();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
    }

    fn to_text(&self) -> String {
        let lines: String = self.newest.iter().map(|(key, counter)| line(key, *counter)).collect();
        format!("{MAGIC} {}\n{lines}", checksum(&[lines.as_bytes()]))
    }
}

fn line(key: &str, Counter { serial, is_forgotten }: Counter) -> String {
    format!("{serial} {} {key}\n", if is_forgotten { "forgotten" } else { "account" })
}

fn read(text: &str) -> Option<BTreeMap<String, Counter>> {
    let (first, lines) = text.split_once('\n')?;
    let is_whole = first == format!("{MAGIC} {}", checksum(&[lines.as_bytes()]));
    is_whole.then(|| lines.lines().map(counter).collect())?
}

fn counter(line: &str) -> Option<(String, Counter)> {
    let mut words = line.splitn(3, ' ');
    let (serial, kind) = (words.next()?.parse().ok()?, words.next()?);
    Some((words.next()?.to_owned(), Counter { serial, is_forgotten: kind == "forgotten" }))
}

/// Reads a line of the log with its line end. None if it is not as it was written.
fn logged(line: &str) -> Option<(String, Counter)> {
    let (sum, rest) = line.split_once(' ')?;
    (sum == checksum(&[rest.as_bytes()])).then(|| counter(rest.strip_suffix('\n')?))?
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

    #[test]
    fn one_write_among_many_records_writes_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut counters = Counters::open(dir.path());
        for number in 0..1000 {
            counters.note(&format!("{number:03}@example.test"), 1, false);
        }
        counters.write();
        let length = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        let whole = length("counters");
        for serial in 2..=1001 {
            counters.count("007@example.test", serial, false);
        }
        assert_eq!(Counters::open(dir.path()).newest("007@example.test"), Some(1001));
        assert_eq!((whole, length("counters.log") > 1000 * 60), (length("counters"), true), "only the log has grown");
        counters.count("007@example.test", 1002, true);
        assert_eq!(length("counters.log"), 0, "it is folded when it is as long as the list");
        assert!(Counters::open(dir.path()).newest == counters.newest);
    }

    #[test]
    fn a_log_that_a_crash_has_cut_off_counts_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut counters = Counters::open(dir.path());
        (1..=4).for_each(|serial| counters.count("ann@example.test", serial, false));
        let (file, log) = (dir.path().join("counters"), dir.path().join("counters.log"));
        let (known, whole) = (std::fs::read(&file).unwrap(), std::fs::read(&log).unwrap());
        for length in 0..=whole.len() {
            std::fs::write(&file, &known).unwrap();
            std::fs::write(&log, &whole[..length]).unwrap();
            let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
            let mut again = Counters::open(dir.path());
            // The first number is in the file, because there was no log yet.
            assert_eq!(again.newest("ann@example.test"), Some(1 + lines), "{length} bytes");
            again.count("ben@example.test", 9, false);
            let again = Counters::open(dir.path());
            let both = ["ann@example.test", "ben@example.test"].map(|key| again.newest(key));
            assert_eq!(both, [Some(1 + lines), Some(9)], "{length} bytes");
        }
    }
}
