//! Records tests that were skipped, so that they do not count as passed.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Records that the running test cannot run here, and why. `tests/run` names a file in `POSTKEY_SKIPPED`, shows its
/// content at the end, and fails if there is any.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    eprint!("skipped: {line}");
    if let Some(path) = std::env::var_os("POSTKEY_SKIPPED") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file in POSTKEY_SKIPPED");
        file.write_all(line.as_bytes()).expect("a line in it");
    }
}
