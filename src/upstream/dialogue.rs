//! What the dialogues of all protocols share: their states and events, and what a server may send. A protocol only
//! handles the server's lines.

use std::mem;

use super::exchange::{BearerExchange, redactor};
use super::rejection::{Fault, Rejection, Verdict};
use super::verdict::RawRefusal;
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Redactor, Want};

/// An event that the session has to act on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The server is ready for our TLS handshake.
    StartTls,
    /// The server waits for `authenticate`, and has these capabilities.
    Ready(Capabilities),
    Accepted(Acceptance),
    /// The server refused the bearer.
    Rejected(Rejection),
    /// The server did something that ends the dialogue.
    Unexpected(Fault),
}

impl Event {
    /// Removes the secrets that were sent from what the server says.
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

/// The dialogue with a provider's server, in any protocol.
pub trait Upstream: Dialogue<Event = Event> {
    /// Continues after the handshake: forgets everything from before, and asks for the capabilities unless they are
    /// cached from another connection with TLS.
    fn tls_started(&mut self, out: &mut Vec<u8>) -> Option<Event>;
    /// Sends the bearer; only after [`Event::Ready`].
    fn authenticate(&mut self, bearer: Bearer, out: &mut Vec<u8>) -> Result<(), Fault>;
}

/// A protocol up to the login, seen from the client.
pub trait Steps: Default + Send {
    /// Handles a line of the server.
    fn line(&mut self, line: &str, state: State, approach: &mut Approach, out: &mut Vec<u8>) -> StepResult;
    /// Asks for the capabilities after a handshake, unless they are cached.
    fn tls_started(&mut self, approach: &Approach, out: &mut Vec<u8>) -> (State, Option<Event>);
    /// Sends the bearer to a server with these capabilities.
    fn authenticate(
        &mut self,
        list: &Capabilities,
        bearer: &Bearer,
        out: &mut Vec<u8>,
    ) -> Result<BearerExchange, Fault>;
}

/// The step after a line: the next state and perhaps an event, or the fault that ends the dialogue.
pub type StepResult = Result<(State, Option<Event>), Fault>;

/// The answer that the dialogue waits for.
pub enum State {
    /// The server's greeting.
    Greeting,
    /// The answer to STARTTLS.
    StartTls,
    /// The end of the TLS handshake.
    Handshake,
    /// The capabilities that we have asked for.
    Capabilities,
    /// A bearer from the session, which has these capabilities.
    Ready(Capabilities),
    /// The answer to AUTH.
    Authenticating(BearerExchange),
    /// Nothing more: accepted, refused, or failed.
    Over,
}

/// The dialogue with a server in one protocol.
pub struct ServerDialogue<S> {
    approach: Approach,
    state: State,
    allowance: Allowance,
    /// Removes our secrets from what the server says.
    sent: Redactor,
    steps: S,
}

impl<S: Steps> ServerDialogue<S> {
    pub fn new(approach: Approach) -> Self {
        let (allowance, sent) = (Allowance::default(), Redactor::default());
        Self { approach, state: State::Greeting, allowance, sent, steps: S::default() }
    }
}

impl<S: Steps> Dialogue for ServerDialogue<S> {
    type Event = Event;

    /// Providers' lines have a few hundred bytes. The limit of RFC 7162 section 4 for commands is also enough for a
    /// capability list.
    fn want(&self) -> Want {
        match self.state {
            State::Handshake | State::Ready(_) | State::Over => Want::Nothing,
            State::Greeting | State::StartTls | State::Capabilities | State::Authenticating(_) => {
                Want::Line { limit: 8192 }
            }
        }
    }

    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Event> {
        let state = mem::replace(&mut self.state, State::Over);
        let line = self.allowance.take(frame);
        let event = match line.and_then(|line| self.steps.line(&line, state, &mut self.approach, out)) {
            Ok((state, event)) => {
                self.state = state;
                event
            }
            Err(fault) => Some(Event::Unexpected(fault)),
        };
        event.map(|event| event.without_secrets(&self.sent))
    }
}

impl<S: Steps> Upstream for ServerDialogue<S> {
    fn tls_started(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.approach.security = Security::Tls;
        let event;
        (self.state, event) = self.steps.tls_started(&self.approach, out);
        event
    }

    fn authenticate(&mut self, bearer: Bearer, out: &mut Vec<u8>) -> Result<(), Fault> {
        let State::Ready(list) = mem::replace(&mut self.state, State::Over) else { return Err(NOT_READY) };
        self.sent = redactor(&bearer);
        self.state = State::Authenticating(self.steps.authenticate(&list, &bearer, out)?);
        Ok(())
    }
}

/// The server waits for a bearer.
pub fn ready(list: Capabilities) -> (State, Option<Event>) {
    (State::Ready(list.clone()), Some(Event::Ready(list)))
}

/// The fault if `authenticate` is called too early.
pub const NOT_READY: Fault = Fault::Protocol("has not announced its capabilities yet");

/// How much a server may still send, so that a dialogue cannot go on forever.
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
    /// Counts and returns a line. Bytes that are not UTF-8 are replaced, because nothing that we look for contains any.
    fn take(&mut self, frame: Frame<'_>) -> Result<String, Fault> {
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
    pub(super) fn refused(&self, refusal: &RawRefusal<'_>) -> Fault {
        Fault::Refused(match self.security {
            Security::StartTls => Rejection {
                verdict: Verdict::Temporary,
                said: "an answer before TLS, which is not repeated here".to_owned(),
                explanation: None,
                alerts: Vec::new(),
            },
            Security::Tls | Security::Clear => match refusal.judge() {
                // No token was sent, so its meaning for a token does not count.
                it @ Rejection { verdict: Verdict::Token, .. } => {
                    Rejection { verdict: Verdict::Forbidden, explanation: None, ..it }
                }
                it => it,
            },
        })
    }
}

pub fn challenged(exchange: BearerExchange, out: &mut Vec<u8>) -> StepResult {
    Ok((State::Authenticating(exchange.challenged(out)?), None))
}

pub fn accepted(acceptance: Acceptance) -> StepResult {
    Ok((State::Over, Some(Event::Accepted(acceptance))))
}

pub fn rejected(exchange: &BearerExchange, rejection: Rejection) -> StepResult {
    Ok((State::Over, Some(Event::Rejected(exchange.refused(rejection)?))))
}

/// A server's list, without entries that could break out of a list that we write: only visible ASCII and blanks, and no
/// `]`, which ends an IMAP response code.
pub fn capabilities<'a>(entries: impl Iterator<Item = &'a str>) -> Capabilities {
    let harmless = |c: char| (c == ' ' || c.is_ascii_graphic()) && c != ']';
    let entries = entries.map(str::trim).filter(|entry| !entry.is_empty() && entry.chars().all(harmless));
    Capabilities(entries.map(str::to_owned).collect())
}
