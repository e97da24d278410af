//! Our half of the dialogue towards the provider: STARTTLS, capabilities, then AUTH with a bearer.

mod exchange;
pub mod imap;
pub mod pop3;
pub mod smtp;
mod verdict;

use crate::protocol::{Protocol, Security};
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Want};

/// What the session has to act on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The server is ready for our TLS handshake.
    StartTls,
    /// The server waits for `authenticate`; this is what it can do.
    Ready(Capabilities),
    /// We are logged in.
    Accepted(Acceptance),
    /// The server said no to the bearer.
    Rejected(Rejection),
    /// The server said something that ends the dialogue.
    Unexpected(Fault),
}

/// What a provider's no means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The token is not good: a new one may be.
    Token,
    /// Too many connections, logins or bytes.
    Limit,
    /// The server has trouble of its own.
    Temporary,
    /// The protocol or the mailbox is switched off for this account: a person or an administrator has to act.
    Forbidden,
}

/// A provider's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What it means for us.
    pub verdict: Verdict,
    /// The provider's own words, printable.
    pub said: String,
}

/// Why a dialogue cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server ends or refuses the connection for now; its words, printable.
    Busy(String),
    /// STARTTLS was chosen and the server does not offer it, or refuses it.
    NoStartTls,
    /// The server says that we are logged in already, which cannot be (IMAP PREAUTH).
    PreAuth,
    /// The server offers none of the mechanisms that may carry the bearer; what it does offer.
    NoMechanism(String),
    /// The server broke its protocol; what it did.
    Protocol(&'static str),
}

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct Approach {
    /// How the connection is protected; it is [`Security::Tls`] again once a handshake is done.
    pub security: Security,
    /// The name to give ourselves (SMTP's EHLO), already checked.
    pub client_name: String,
}

/// The dialogue with a provider's server, in whatever protocol.
pub trait Upstream: Dialogue<Event = Event> + Send {
    /// The handshake is done: everything heard before is forgotten, and the capabilities are asked for again.
    fn tls_started(&mut self, out: &mut Vec<u8>);
    /// Sends the bearer; only after [`Event::Ready`].
    fn authenticate(&mut self, bearer: Bearer, out: &mut Vec<u8>) -> Result<(), Fault>;
}

/// A new dialogue in this protocol.
pub fn new(protocol: Protocol, approach: Approach) -> Box<dyn Upstream> {
    match protocol {
        Protocol::Imap => Box::new(imap::Imap::new(approach)),
        Protocol::Pop3 => Box::new(pop3::Pop3::new(approach)),
        Protocol::Smtp => Box::new(smtp::Smtp::new(approach)),
    }
}

/// Every line of a server. Providers' lines have a few hundred bytes; what RFC 7162 section 4 grants to clients'
/// commands is enough for a capability list, too.
const LINE: Want = Want::Line { limit: 8192 };

/// What `authenticate` says when it is called too early.
const NOT_READY: Fault = Fault::Protocol("has not said yet what it can do");

/// What a server may still say before the dialogue has to be over, so that nobody can talk us to death.
///
/// The longest real dialogues, with two lists of capabilities, have 40 lines and 3 KiB.
struct Allowance {
    lines: usize,
    bytes: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { lines: 256, bytes: 64 * 1024 }
    }
}

impl Allowance {
    /// Takes a line off. Bytes that are no UTF-8 are replaced: nothing that we look for has any.
    fn hear(&mut self, frame: Frame<'_>) -> Result<String, Fault> {
        let Frame::Line(line) = frame else { return Err(Fault::Protocol("sent a line of more than 8192 bytes")) };
        match (self.lines.checked_sub(1), self.bytes.checked_sub(line.len())) {
            (Some(lines), Some(bytes)) => *self = Self { lines, bytes },
            _ => return Err(Fault::Protocol("says more than a login can take")),
        }
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

impl Approach {
    /// A server's words fit to be shown. Before TLS anybody may have said them, so they are not.
    fn quote(&self, said: &str) -> String {
        match self.security {
            Security::StartTls => "said before TLS began, so it is not repeated here".to_owned(),
            Security::Tls | Security::Clear => verdict::quote(said),
        }
    }
}

/// A server's list, without entries that could break out of a list that we write: visible ASCII and blanks only, and
/// not the `]` that ends an IMAP response code.
fn capabilities<'a>(entries: impl Iterator<Item = &'a str>) -> Capabilities {
    let harmless = |c: char| (c == ' ' || c.is_ascii_graphic()) && c != ']';
    let entries = entries.map(str::trim).filter(|entry| !entry.is_empty() && entry.chars().all(harmless));
    Capabilities(entries.map(str::to_owned).collect())
}

/// Appends a line.
fn send(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
