//! What the dialogues of all protocols have in common: their events, their beginning, what a server may say.

use super::rejection::{Fault, Rejection, Verdict};
use super::verdict::No;
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Redactor, Want};

/// What the session has to act on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The server is ready for our TLS handshake.
    StartTls,
    /// The server waits for `authenticate`, and has these capabilities.
    Ready(Capabilities),
    /// We are logged in.
    Accepted(Acceptance),
    /// The server refused the bearer.
    Rejected(Rejection),
    /// The server did something that ends the dialogue.
    Unexpected(Fault),
}

impl Event {
    /// Removes what was sent from what the server says of it.
    fn without_secrets(self, sent: &Redactor) -> Self {
        match self {
            Self::Rejected(rejection) => Self::Rejected(rejection.without_secrets(sent)),
            Self::Unexpected(Fault::Refused(rejection)) => {
                Self::Unexpected(Fault::Refused(rejection.without_secrets(sent)))
            }
            Self::Unexpected(Fault::NoMechanism(said)) => Self::Unexpected(Fault::NoMechanism(sent.redact(&said))),
            Self::Accepted(acceptance) => Self::Accepted(Acceptance {
                alerts: acceptance.alerts.iter().map(|alert| sent.redact(alert)).collect(),
                ..acceptance
            }),
            event => event,
        }
    }
}

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct Approach {
    /// How the connection is encrypted; after a handshake this is [`Security::Tls`].
    pub security: Security,
    /// Our EHLO name, already checked.
    pub client_name: String,
    /// The name to try once if the server permanently refuses the first one.
    pub other_name: Option<String>,
    /// The cached capabilities from an earlier connection with TLS, which save a round trip in IMAP and POP3; empty if
    /// they are not known.
    pub known: Capabilities,
}

/// The dialogue with a provider's server, in whatever protocol.
pub trait Upstream: Dialogue<Event = Event> {
    /// Continues after the handshake: forgets everything from before, and asks for the capabilities unless they are
    /// cached from another connection with TLS.
    fn tls_started(&mut self, out: &mut Vec<u8>) -> Option<Event>;
    /// Sends the bearer; only after [`Event::Ready`].
    fn authenticate(&mut self, bearer: Bearer, out: &mut Vec<u8>) -> Result<(), Fault>;
}

/// The longest line of a server. Providers' lines have a few hundred bytes. The limit of RFC 7162 section 4 for
/// commands is also enough for a capability list.
pub const LINE: Want = Want::Line { limit: 8192 };

/// The fault if `authenticate` is called too early.
pub const NOT_READY: Fault = Fault::Protocol("has not announced its capabilities yet");

/// How much a server may still send, so that a dialogue cannot go on forever.
///
/// The longest real dialogues, with two lists of capabilities, have 40 lines and 3 KiB.
pub struct Allowance {
    lines: usize,
    bytes: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { lines: 256, bytes: 64 * 1024 }
    }
}

impl Allowance {
    /// Counts and returns a line. Bytes that are not UTF-8 are replaced, because nothing that we look for contains any.
    pub fn hear(&mut self, frame: Frame<'_>) -> Result<String, Fault> {
        let Frame::Line(line) = frame else { return Err(Fault::Protocol("sent a line of more than 8192 bytes")) };
        match (self.lines.checked_sub(1), self.bytes.checked_sub(line.len())) {
            (Some(lines), Some(bytes)) => *self = Self { lines, bytes },
            _ => return Err(Fault::Protocol("sent more than a login needs")),
        }
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

impl Approach {
    /// The fault for a refusal before the server has judged a bearer. Before TLS anybody may have sent it, so it is not
    /// repeated and never permanent.
    pub(super) fn refused(&self, no: &No<'_>) -> Fault {
        Fault::Refused(match self.security {
            Security::StartTls => Rejection {
                verdict: Verdict::Temporary,
                said: "an answer before TLS, which is not repeated here".to_owned(),
                explanation: None,
                alerts: Vec::new(),
            },
            Security::Tls | Security::Clear => match no.judge() {
                // No token was sent, so its meaning for a token does not count.
                it @ Rejection { verdict: Verdict::Token, .. } => {
                    Rejection { verdict: Verdict::Forbidden, explanation: None, ..it }
                }
                it => it,
            },
        })
    }
}

/// What came of a line, or the fault that ends the dialogue; nothing that was sent is in it.
pub fn told(heard: Result<Option<Event>, Fault>, sent: &Redactor) -> Option<Event> {
    let event = heard.unwrap_or_else(|fault| Some(Event::Unexpected(fault)));
    event.map(|event| event.without_secrets(sent))
}

/// A server's list, without entries that could break out of a list that we write: only visible ASCII and blanks, and no
/// `]`, which ends an IMAP response code.
pub fn capabilities<'a>(entries: impl Iterator<Item = &'a str>) -> Capabilities {
    let harmless = |c: char| (c == ' ' || c.is_ascii_graphic()) && c != ']';
    let entries = entries.map(str::trim).filter(|entry| !entry.is_empty() && entry.chars().all(harmless));
    Capabilities(entries.map(str::to_owned).collect())
}

/// Appends a line.
pub fn send(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
