//! What the dialogues of all protocols have in common: their events, what a listener offers, words and lines.

use crate::wire::{Acceptance, Capabilities, Credentials, Dialogue, Refusal};

/// What the session has to act on.
pub enum Event {
    /// The client has been told to begin its TLS handshake.
    StartTls,
    /// The client wants to log in, and waits for `accept` or `refuse`.
    Login(Credentials),
    /// The client starts a mail without a login, because this listener requires none. It waits as after a login.
    Mail,
    /// The dialogue is over: the client has said goodbye, or was disconnected.
    HangUp,
}

/// The state of TLS towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// This listener has none; it accepts unencrypted passwords, from this machine.
    Absent,
    /// Unencrypted so far: STARTTLS is offered, and a password is accepted only after it.
    Offered,
    /// The connection is encrypted.
    Active,
}

/// What the listener announces.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Our own host name, for greetings.
    pub host: String,
    /// The known capabilities of the provider's server; empty before its first connection.
    pub known: Capabilities,
    /// The state of TLS.
    pub tls: Tls,
    /// Whether the listener requires a login. Only SMTP can do without.
    pub asks_login: bool,
}

/// The dialogue with a client, in whatever protocol.
pub trait Downstream: Dialogue<Event = Event> {
    /// Sends the greeting.
    fn greet(&mut self, out: &mut Vec<u8>);
    /// Forgets everything from before the TLS handshake.
    fn tls_started(&mut self);
    /// Accepts the login. The dialogue ends, and the bytes after it come from the provider.
    fn accept(&mut self, acceptance: &Acceptance, out: &mut Vec<u8>);
    /// Refuses the login; the client may try again.
    fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>);
    /// Ends the dialogue from our side; `why` is for a person.
    fn dismiss(&mut self, why: &str, out: &mut Vec<u8>);
    /// What the client has already sent that is for the provider, after a successful login.
    fn replay(&mut self) -> Vec<u8> {
        Vec::new()
    }
    /// The name that the client gave itself (SMTP's EHLO), if it did.
    fn client_name(&self) -> Option<&str> {
        None
    }
}

/// Appends one line and its end.
pub fn reply(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The first word, and what follows the blank after it.
pub fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = line.splitn(2, |&byte| byte == b' ');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// A command's name in upper case, as in the match statements.
pub fn verb(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_ascii_uppercase()
}

/// The provider's capabilities to announce before the login: all that fit in a line, except the hidden ones.
///
/// `hidden` lists first words and ignores case. One that ends with `=` hides whatever follows, and one that ends with
/// `*` every word with this beginning.
pub fn shown<'a>(known: &'a Capabilities, hidden: &'static [&'static str]) -> impl Iterator<Item = &'a str> {
    let hides = |entry: &str, word: &str| match (word.strip_suffix('='), word.strip_suffix('*')) {
        (Some(name), _) => entry.split_once('=').is_some_and(|(before, _)| before.eq_ignore_ascii_case(name)),
        (_, Some(start)) => entry.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start)),
        _ => entry.split(' ').next().is_some_and(|first| first.eq_ignore_ascii_case(word)),
    };
    let fits = |entry: &str| (1..=500).contains(&entry.len()) && entry.bytes().all(|it| matches!(it, b' '..=b'~'));
    let entries = known.0.iter().map(|entry| entry.trim_matches(' '));
    entries.filter(move |entry| fits(entry) && !hidden.iter().any(|word| hides(entry, word)))
}
