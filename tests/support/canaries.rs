//! Everything that postkey logs while a test runs, at its most detailed level, is searched for what it must never
//! contain.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::{Mutex, Once};

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use postkey::config::log_filter;
use tracing::span::Id;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::lock;

/// Only in tests of behaviour. Other tests measure time and memory, and a log takes both.
pub const LISTENS: bool = match option_env!("CARGO_CRATE_NAME") {
    Some(name) => matches!(name.as_bytes(), b"end_to_end"),
    None => false,
};

/// How much of a secret is searched for, in bytes: its beginning is as bad as all of it, and 128 bits are no accident.
const PART: usize = 24;

/// The log of this process, and what our other processes have written.
static HEARD: Mutex<Vec<u8>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether the next session that is polled on this thread panics. A test has all its sessions on one thread.
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

/// Begins to listen. Returns the place from which [`assert_none`] has to search.
pub fn listen() -> usize {
    static ONCE: Once = Once::new();
    // The log of the whole process, and not of a thread: tracing remembers for all threads whether anybody wants a
    // span, and asks the log of the thread that happens to need it first, which may belong to another test.
    ONCE.call_once(|| {
        let log = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Ear);
        let filter = log_filter::of_level(LevelFilter::TRACE);
        let log = Registry::default().with(Defect.and_then(log).with_filter(filter));
        tracing::subscriber::set_global_default(log).expect("the only log here");
        // Some may have been asked before it was in its place.
        tracing::callsite::rebuild_interest_cache();
    });
    lock(&HEARD).len()
}

/// Records what a process has written.
pub fn hear(bytes: &[u8]) {
    if LISTENS {
        lock(&HEARD).extend(bytes);
    }
}

/// Panics if one of the secrets was logged since then, in any form.
pub fn assert_none(since: usize, secrets: &[String]) {
    let forms: Vec<_> = secrets.iter().flat_map(|secret| forms(&secret[..secret.len().min(PART)])).collect();
    let heard = lock(&HEARD)[since..].to_vec();
    let search = AhoCorasick::new(&forms).expect("not too many of them");
    if let Some(found) = search.find(&heard) {
        let line =
            heard.split(|byte| *byte == b'\n').find(|line| search.is_match(line)).unwrap_or(&heard[found.range()]);
        panic!("a secret was shown: {}", String::from_utf8_lossy(line));
    }
}

/// The forms in which a secret may appear; base64 also from within a longer text, with each of its three alignments.
pub fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let percent: String = url::form_urlencoded::byte_serialize(bytes).collect();
    let mut forms =
        vec![secret.to_owned(), hex.to_uppercase(), hex, numbers.join(", "), percent.replace('+', "%20"), percent];
    for before in 0..3 {
        let padded = [vec![0; before], bytes.to_vec()].concat();
        // Characters that contain bits of the neighbours on either side do not belong to the secret.
        let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for encoded in [BASE64_STANDARD_NO_PAD.encode(&padded), BASE64_URL_SAFE_NO_PAD.encode(&padded)] {
            forms.push(encoded[first..end].to_owned());
        }
    }
    // As a log of the connection may have it, and as a stack may.
    forms.push(bytes.iter().map(|byte| format!("%{byte:02X}")).collect());
    forms.push(secret.chars().rev().collect());
    forms.into_iter().map(String::into_bytes).collect()
}

/// Writes to [`HEARD`].
struct Ear;

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        hear(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Panics once when it is asked to. Each session is polled within a span, so this happens in the middle of it, wherever
/// it is, and postkey contains no hook for tests.
struct Defect;

/// Makes the next session that is polled on this thread panic.
pub fn arm_defect() {
    ARMED.set(true);
}

impl Layer<Registry> for Defect {
    fn on_enter(&self, _: &Id, _: Context<'_, Registry>) {
        assert!(!ARMED.replace(false), "a defect for this test");
    }
}
