//! Our half of the dialogue with the provider: STARTTLS, capabilities, then AUTH with a bearer.

mod dialogue;
mod exchange;
mod imap;
mod pop3;
mod rejection;
mod smtp;
mod verdict;

use crate::protocol::{Mechanism, Protocol};
use crate::wire::Capabilities;
use dialogue::ServerDialogue;
pub use dialogue::{Approach, Event, Upstream};
pub use exchange::bearer_message;
pub use rejection::{Fault, Rejection, Verdict, backoff};

/// A new dialogue in this protocol.
pub fn new(protocol: Protocol, approach: Approach) -> Box<dyn Upstream> {
    match protocol {
        Protocol::Imap => Box::new(ServerDialogue::<imap::Imap>::new(approach)),
        Protocol::Pop3 => Box::new(ServerDialogue::<pop3::Pop3>::new(approach)),
        Protocol::Smtp => Box::new(ServerDialogue::<smtp::Smtp>::new(approach)),
    }
}

/// The command that ends a connection cleanly if the server waits for one (RFC 3501 section 6.1.3, RFC 1939 section 6,
/// RFC 5321 section 4.1.1.10). No other command has this tag.
pub const fn goodbye(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "P0 LOGOUT\r\n",
        Protocol::Pop3 | Protocol::Smtp => "QUIT\r\n",
    }
}

/// Which of these mechanisms a server offers, in this order. All of them if a POP3 server has not announced its
/// capabilities.
pub fn offered(protocol: Protocol, list: &Capabilities, allowed: &[Mechanism]) -> Vec<Mechanism> {
    let names = match protocol {
        Protocol::Imap => imap::mechanisms(list),
        Protocol::Pop3 if list.0.is_empty() => return allowed.to_vec(),
        Protocol::Pop3 => pop3::mechanisms(list),
        Protocol::Smtp => smtp::mechanisms(list),
    };
    let is_offered = |one: &Mechanism| names.iter().any(|name| name.eq_ignore_ascii_case(one.name()));
    allowed.iter().copied().filter(is_offered).collect()
}

#[cfg(test)]
mod tests {
    use super::dialogue::NOT_READY;
    use super::*;
    use crate::protocol::Security;
    use crate::secret::Token;
    use crate::wire::Bearer;
    use crate::wire::framer::Framer;
    use proptest::prelude::*;

    /// A dialogue and the session around it, with what both have done.
    struct Run {
        dialogue: Box<dyn Upstream>,
        framer: Framer,
        frames: usize,
        out: Vec<u8>,
        events: Vec<Event>,
    }

    impl Run {
        fn new(protocol: Protocol, security: Security) -> Self {
            let dialogue = new(
                protocol,
                Approach {
                    security,
                    client_name: "client.test".into(),
                    other_name: None,
                    known: Capabilities::default(),
                },
            );
            Self { dialogue, framer: Framer::default(), frames: 0, out: Vec::new(), events: Vec::new() }
        }

        fn hear(&mut self, bytes: &[u8]) {
            self.framer.push(bytes);
            while let Some(frame) = self.framer.next(self.dialogue.want()) {
                self.frames += 1;
                if let Some(event) = self.dialogue.feed(frame, &mut self.out) {
                    self.act(event);
                }
            }
        }

        fn act(&mut self, event: Event) {
            let mechanisms = vec![Mechanism::OAuthBearer, Mechanism::XOAuth2];
            let bearer =
                Bearer { user: "ann@example.test".into(), token: Token::parse("tok-123").unwrap(), mechanisms };
            let next = match event {
                Event::StartTls => self.dialogue.tls_started(&mut self.out),
                Event::Ready(_) => self.dialogue.authenticate(bearer, &mut self.out).err().map(Event::Unexpected),
                _ => None,
            };
            self.events.push(event);
            if let Some(next) = next {
                self.act(next);
            }
        }

        fn fault(&self) -> Option<&Fault> {
            self.events.iter().find_map(|event| if let Event::Unexpected(fault) = event { Some(fault) } else { None })
        }
    }

    /// For each protocol, the way to a state in which it ignores a line that it does not need, and such a line.
    const OPENINGS: [(Protocol, &str, &str); 4] = [
        (Protocol::Imap, "* OK ready\r\n", "* X\r\n"),
        (Protocol::Imap, "* OK [CAPABILITY AUTH=XOAUTH2] ready\r\n", "* X\r\n"),
        (Protocol::Pop3, "+OK ready\r\n+OK\r\n", "X\r\n"),
        (Protocol::Smtp, "220 ready\r\n", "250-X\r\n"),
    ];

    #[test]
    fn only_offered_mechanisms_are_used() {
        use Mechanism::{OAuthBearer, XOAuth2};
        let both = [OAuthBearer, XOAuth2];
        for (protocol, list, expected) in [
            (Protocol::Imap, &["IDLE", "AUTH=PLAIN", "auth=xoauth2"][..], &[XOAuth2][..]),
            (Protocol::Imap, &["AUTH=XOAUTH2", "AUTH=OAUTHBEARER"], &both),
            (Protocol::Imap, &[], &[]),
            (Protocol::Pop3, &["UIDL", "SASL PLAIN XOAUTH2"], &[XOAuth2]),
            (Protocol::Pop3, &["UIDL"], &[]),
            (Protocol::Pop3, &[], &both),
            (Protocol::Smtp, &["SIZE 1000", "AUTH PLAIN OAuthBearer"], &[OAuthBearer]),
            (Protocol::Smtp, &[], &[]),
        ] {
            let list = Capabilities(list.iter().map(ToString::to_string).collect());
            assert_eq!(offered(protocol, &list, &both), expected, "{protocol} {list:?}");
        }
    }

    #[test]
    fn a_server_that_never_stops_sending_is_cut_off() {
        for (protocol, opening, line) in OPENINGS {
            let mut run = Run::new(protocol, Security::Tls);
            run.hear(opening.as_bytes());
            for _ in 0..100_000 {
                run.hear(line.as_bytes());
            }
            assert_eq!(run.fault(), Some(&Fault::Protocol("sent more than a login needs")), "{protocol}");
            assert_eq!(run.frames, 257, "{protocol}");
        }
    }

    #[test]
    fn long_lines_are_counted_by_their_bytes() {
        for (protocol, opening, line) in OPENINGS {
            let mut run = Run::new(protocol, Security::Tls);
            run.hear(opening.as_bytes());
            for _ in 0..9 {
                run.hear(line.replace('X', &"x".repeat(8000)).as_bytes());
            }
            assert_eq!(run.fault(), Some(&Fault::Protocol("sent more than a login needs")), "{protocol}");
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_not_waited_for() {
        for protocol in Protocol::ALL {
            let mut run = Run::new(protocol, Security::Tls);
            run.hear(&[b'+'; 8194]);
            assert_eq!(run.fault(), Some(&Fault::Protocol("sent a line of more than 8192 bytes")));
            run.hear(b"\r\n+OK\r\n");
            assert_eq!(run.events.len(), 1);
        }
    }

    #[test]
    fn a_bearer_that_comes_too_early_is_not_sent() {
        for protocol in Protocol::ALL {
            let mut run = Run::new(protocol, Security::Tls);
            run.act(Event::Ready(Capabilities::default()));
            assert_eq!((run.fault(), run.out.len()), (Some(&NOT_READY), 0));
        }
    }

    /// Lines with a meaning, and random bytes.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let known = "* OK hi|* OK [CAPABILITY STARTTLS AUTH=XOAUTH2 SASL-IR] hi|* CAPABILITY AUTH=OAUTHBEARER|* BYE|* X {9}\
            |P1 OK x|P2 OK x|P3 NO x|P1 BAD|+|+ eyJ9|+OK|-ERR|-ERR [AUTH] x|SASL XOAUTH2|.|..|220 x|220-x|250-x|250 STARTTLS\
            |250-AUTH XOAUTH2|250 x|334|334 eyJ9|235 x|535 5.7.8 x|421|999| |";
        let known: Vec<Vec<u8>> = known.split('|').map(|line| format!("{line}\r\n").into_bytes()).collect();
        prop_oneof![9 => proptest::sample::select(known), 1 => proptest::collection::vec(any::<u8>(), 0..30)]
    }

    /// The replies of a server until the bearer is sent, in each protocol.
    const AT_AUTH: [&str; 3] = [
        "* OK [CAPABILITY AUTH=XOAUTH2] hi\r\n",
        "+OK hi\r\n+OK\r\nSASL XOAUTH2\r\n.\r\n",
        "220 hi\r\n250-hi\r\n250 AUTH XOAUTH2\r\n",
    ];

    proptest! {
        #[test]
        fn events_and_commands_do_not_depend_on_how_bytes_arrive(
            protocol in proptest::sample::select(&Protocol::ALL[..]),
            security in proptest::sample::select(vec![Security::Tls, Security::StartTls]),
            opening in proptest::sample::select(vec!["", AT_AUTH[0], AT_AUTH[1], AT_AUTH[2]]),
            lines in proptest::collection::vec(line(), 0..40),
            sizes in proptest::collection::vec(1..50_usize, 1..10),
        ) {
            let bytes = [opening.as_bytes(), &lines.concat()].concat();
            let (mut whole, mut split) = (Run::new(protocol, security), Run::new(protocol, security));
            whole.hear(&bytes);
            let (mut rest, mut sizes) = (bytes.as_slice(), sizes.iter().cycle());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(*sizes.next().unwrap_or(&1)));
                split.hear(piece);
                rest = later;
            }
            prop_assert_eq!((&whole.events, &whole.out), (&split.events, &split.out));
            prop_assert!(whole.out.len() < 1000 && whole.events.len() <= 3);
        }
    }
}
