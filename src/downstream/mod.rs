//! Our half of the dialogue towards the client: greets, reads its login, answers in its protocol.

pub mod imap;
pub mod pop3;
pub mod smtp;

use crate::protocol::Protocol;
use crate::wire::{Acceptance, Capabilities, Credentials, Dialogue, Refusal};

/// What the session has to act on.
pub enum Event {
    /// The client has been told to begin its TLS handshake.
    StartTls,
    /// The client wants to log in, and waits for `accept` or `refuse`.
    Login(Credentials),
    /// The dialogue is over: the client has said goodbye, or has been sent away.
    HangUp,
}

/// The state of TLS towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// This listener has none: passwords are taken in clear, from this machine.
    Absent,
    /// Clear so far: STARTTLS is offered, and a password is not taken before it.
    Offered,
    /// The connection is protected.
    Active,
}

/// What the listener has to offer.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Our own host name, for greetings.
    pub host: String,
    /// What the provider's server can do, as far as it is known; empty before its first connection.
    pub known: Capabilities,
    /// The state of TLS.
    pub tls: Tls,
}

/// The dialogue with a client, in whatever protocol.
pub trait Downstream: Dialogue<Event = Event> {
    /// Sends the greeting.
    fn greet(&mut self, out: &mut Vec<u8>);
    /// The handshake is done: everything said before is forgotten.
    fn tls_started(&mut self);
    /// Tells the client yes; the dialogue ends, and the bytes after it are the provider's.
    fn accept(&mut self, acceptance: &Acceptance, out: &mut Vec<u8>);
    /// Tells the client no; it may try again.
    fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>);
    /// Ends the dialogue from our side: `why` is for a person.
    fn dismiss(&mut self, why: &str, out: &mut Vec<u8>);
    /// The name that the client gave itself (SMTP's EHLO), if it did.
    fn client_name(&self) -> Option<&str> {
        None
    }
}

/// A new dialogue in this protocol.
pub fn new(protocol: Protocol, offer: Offer) -> Box<dyn Downstream> {
    match protocol {
        Protocol::Imap => Box::new(imap::Imap::new(offer)),
        Protocol::Pop3 => Box::new(pop3::Pop3::new(offer)),
        Protocol::Smtp => Box::new(smtp::Smtp::new(offer)),
    }
}
