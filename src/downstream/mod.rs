//! Our half of the dialogue with the client: greets, reads its login, answers in its protocol.

mod dialogue;
mod exchange;
mod imap;
mod pop3;
pub mod sasl;
mod smtp;

use crate::protocol::Protocol;
use dialogue::ClientDialogue;
pub use dialogue::{Downstream, Event, Offer, Tls};

/// A new dialogue in this protocol.
pub fn new(protocol: Protocol, offer: Offer) -> Box<dyn Downstream> {
    match protocol {
        Protocol::Imap => Box::new(ClientDialogue::<imap::Imap>::new(offer)),
        Protocol::Pop3 => Box::new(ClientDialogue::<pop3::Pop3>::new(offer)),
        Protocol::Smtp => Box::new(ClientDialogue::<smtp::Smtp>::new(offer)),
    }
}

/// The goodbye that may be sent to a client at any time after the login (RFC 3501 section 7.1.5, RFC 5321 section 3.8).
/// POP3 has none. IMAP has none if the port stays open, because mail programs return later after BYE than after a
/// closed connection, or not at all; `docs/design/decisions/0029-goodbye.md` has what was measured.
pub const fn farewell(protocol: Protocol, port_stays_open: bool) -> &'static [u8] {
    match protocol {
        Protocol::Imap if port_stays_open => b"",
        Protocol::Imap => b"* BYE postkey is stopping.\r\n",
        Protocol::Pop3 => b"",
        Protocol::Smtp => b"421 4.3.2 postkey is stopping.\r\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::framer::Framer;
    use crate::wire::{Capabilities, Refusal};
    use proptest::prelude::*;

    /// Pieces that make valid and invalid commands in all three protocols.
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

    /// The replies to a client that sends these bytes, and whose logins are all refused.
    fn replies(protocol: Protocol, tls: Tls, asks_login: bool, bytes: &[u8]) -> Vec<u8> {
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
        fn replies_are_short_lines_of_ascii(
            protocol in proptest::sample::select(Protocol::ALL.as_slice()),
            tls in proptest::sample::select([Tls::Absent, Tls::Offered].as_slice()),
            asks_login in any::<bool>(),
            pieces in pieces(),
        ) {
            let text = String::from_utf8(replies(protocol, tls, asks_login, &pieces.concat())).unwrap();
            for line in text.split_inclusive('\n') {
                let line = line.strip_suffix("\r\n").unwrap();
                prop_assert!(line.len() <= 510 && line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
                prop_assert!(!line.contains("lock"), "{line:?}");
            }
        }
    }
}
