//! Our half of the dialogue towards the provider: STARTTLS, capabilities, then AUTH with a bearer.

pub mod imap;
pub mod pop3;
pub mod smtp;

use crate::protocol::{Protocol, Security};
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue};

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
