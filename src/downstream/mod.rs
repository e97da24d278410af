//! Our half of the dialogue towards the client: greets, reads its login, answers in its protocol.

mod exchange;
pub mod imap;
mod manners;
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
    /// The client begins a mail without a login, for this listener asks for none; waits as after a login.
    Mail,
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
    /// Whether the listener asks clients to log in. Only SMTP can do without.
    pub asks_login: bool,
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
    /// What the client has said already that is for the provider, once the dialogue has ended with a yes.
    fn replay(&mut self) -> Vec<u8> {
        Vec::new()
    }
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

/// What may be said to a client at any time after login, as the last thing (RFC 3501 section 7.1.5, RFC 5321 section 3.8).
/// POP3 has nothing of the kind.
pub const fn farewell(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Imap => b"* BYE postkey is stopping.\r\n",
        Protocol::Pop3 => b"",
        Protocol::Smtp => b"421 4.3.2 postkey is stopping.\r\n",
    }
}

/// Appends one line and its end.
fn reply(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The first word, and what follows the one blank after it.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = line.splitn(2, |&byte| byte == b' ');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// A command's name as the match statements spell it.
fn verb(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_ascii_uppercase()
}

/// The provider's capabilities that may be shown before login: all that fit in a line, but the hidden ones.
///
/// `hidden` holds first words in any case; one that ends with `=` hides whatever follows.
fn shown<'a>(known: &'a Capabilities, hidden: &'static [&'static str]) -> impl Iterator<Item = &'a str> {
    let hides = |entry: &str, word: &str| match word.strip_suffix('=') {
        Some(name) => entry.split_once('=').is_some_and(|(before, _)| before.eq_ignore_ascii_case(name)),
        None => entry.split(' ').next().is_some_and(|first| first.eq_ignore_ascii_case(word)),
    };
    let fits = |entry: &str| (1..=500).contains(&entry.len()) && entry.bytes().all(|it| matches!(it, b' '..=b'~'));
    let entries = known.0.iter().map(|entry| entry.trim_matches(' '));
    entries.filter(move |entry| fits(entry) && !hidden.iter().any(|word| hides(entry, word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::framer::Framer;
    use proptest::prelude::*;

    /// Pieces of which both sense and nonsense can be made in all three protocols.
    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        const WORDS: [&str; 21] = [
            "\r\n",
            "\n",
            " ",
            "a ",
            "LOGIN ",
            "AUTHENTICATE ",
            "AUTH ",
            "PLAIN",
            "LOGIN",
            "USER ",
            "PASS ",
            "EHLO ",
            "MAIL ",
            "{3}\r\n",
            "{3+}\r\n",
            "{2000+}\r\n",
            "\"",
            "*",
            "AGFubgBibG9jaw==",
            "STARTTLS",
            "STLS",
        ];
        let word = proptest::sample::select(WORDS.as_slice()).prop_map(|word| word.as_bytes().to_vec());
        proptest::collection::vec(prop_oneof![8 => word, 1 => proptest::collection::vec(any::<u8>(), 1..9)], 0..80)
    }

    /// What a client hears that sends these bytes, and is refused whenever it logs in.
    fn hear(protocol: Protocol, tls: Tls, asks_login: bool, bytes: &[u8]) -> Vec<u8> {
        let offer = Offer { host: "mail.test".into(), known: Capabilities::default(), tls, asks_login };
        let (mut dialogue, mut framer, mut out) = (new(protocol, offer), Framer::default(), Vec::new());
        dialogue.greet(&mut out);
        framer.push(bytes);
        while let Some(frame) = framer.next(dialogue.want()) {
            match dialogue.feed(frame, &mut out) {
                Some(Event::Login(_) | Event::Mail) => dialogue.refuse(&Refusal::credentials(), &mut out),
                Some(Event::StartTls) => dialogue.tls_started(),
                Some(Event::HangUp) => assert_eq!(dialogue.want(), crate::wire::Want::Nothing),
                None => {}
            }
        }
        out
    }

    proptest! {
        #[test]
        fn whatever_comes_the_answer_is_short_lines_of_ascii(
            protocol in proptest::sample::select(Protocol::ALL.as_slice()),
            tls in proptest::sample::select([Tls::Absent, Tls::Offered].as_slice()),
            asks_login in any::<bool>(),
            pieces in pieces(),
        ) {
            let heard = String::from_utf8(hear(protocol, tls, asks_login, &pieces.concat())).unwrap();
            for line in heard.split_inclusive('\n') {
                let text = line.strip_suffix("\r\n").unwrap();
                prop_assert!(text.len() <= 510 && text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
                prop_assert!(!text.contains("lock"), "{line:?}");
            }
        }
    }
}
