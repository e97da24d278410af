//! Our half of the dialogue towards the provider: STARTTLS, capabilities, then AUTH with a bearer.

mod exchange;
mod explanation;
pub mod imap;
pub mod pop3;
pub mod smtp;
mod verdict;

pub use explanation::{explain, explained};

use crate::protocol::{Protocol, Security};
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Want, quote};

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
    /// The server offers none of the mechanisms that may carry the bearer, or takes it not any more; what it does offer, or says.
    NoMechanism(String),
    /// The server broke its protocol; what it did.
    Protocol(&'static str),
}

/// What a server does, to stand behind its name.
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy(said) => write!(f, "is not available: {}", explained(said)),
            Self::NoStartTls => f.write_str("does not offer STARTTLS, so nothing was sent to it."),
            Self::PreAuth => f.write_str("claims that we are logged in already; somebody may be in between."),
            Self::NoMechanism(offered) => {
                write!(f, "offers no OAuth mechanism that the configuration allows; it offers: {offered}")
            }
            Self::Protocol(what) => write!(f, "breaks its protocol: {what}"),
        }
    }
}

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct Approach {
    /// How the connection is protected; it is [`Security::Tls`] again once a handshake is done.
    pub security: Security,
    /// The name to give ourselves (SMTP's EHLO), already checked.
    pub client_name: String,
    /// What the server has been heard to offer under TLS a while ago, which spares the question in IMAP and POP3; empty
    /// where it has to be asked.
    pub known: Capabilities,
}

/// The dialogue with a provider's server, in whatever protocol.
pub trait Upstream: Dialogue<Event = Event> {
    /// The handshake is done: everything heard before is forgotten, and the capabilities are asked for, unless they are
    /// known from another connection under TLS.
    fn tls_started(&mut self, out: &mut Vec<u8>) -> Option<Event>;
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
            Security::Tls | Security::Clear => quote(said),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Mechanism;
    use crate::secret::Token;
    use crate::wire::framer::Framer;
    use proptest::prelude::*;

    /// A dialogue, the session around it, and what came of both.
    struct Run {
        dialogue: Box<dyn Upstream>,
        framer: Framer,
        frames: usize,
        out: Vec<u8>,
        events: Vec<Event>,
    }

    impl Run {
        fn new(protocol: Protocol, security: Security) -> Self {
            let dialogue =
                new(protocol, Approach { security, client_name: "client.test".into(), known: Capabilities::default() });
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

    /// For each protocol, how it gets to where it reads past what it does not need.
    const OPENINGS: [(Protocol, &str, &str); 4] = [
        (Protocol::Imap, "* OK ready\r\n", "* X\r\n"),
        (Protocol::Imap, "* OK [CAPABILITY AUTH=XOAUTH2] ready\r\n", "* X\r\n"),
        (Protocol::Pop3, "+OK ready\r\n+OK\r\n", "X\r\n"),
        (Protocol::Smtp, "220 ready\r\n", "250-X\r\n"),
    ];

    #[test]
    fn nobody_can_talk_us_to_death() {
        for (protocol, opening, line) in OPENINGS {
            let mut run = Run::new(protocol, Security::Tls);
            run.hear(opening.as_bytes());
            for _ in 0..100_000 {
                run.hear(line.as_bytes());
            }
            assert_eq!(run.fault(), Some(&Fault::Protocol("says more than a login can take")), "{protocol}");
            assert_eq!(run.frames, 257, "{protocol}");
        }
    }

    #[test]
    fn few_lines_may_be_too_many_bytes() {
        for (protocol, opening, line) in OPENINGS {
            let mut run = Run::new(protocol, Security::Tls);
            run.hear(opening.as_bytes());
            for _ in 0..9 {
                run.hear(line.replace('X', &"x".repeat(8000)).as_bytes());
            }
            assert_eq!(run.fault(), Some(&Fault::Protocol("says more than a login can take")), "{protocol}");
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

    /// Lines that lead somewhere, and bytes that do not.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let known = "* OK hi|* OK [CAPABILITY STARTTLS AUTH=XOAUTH2 SASL-IR] hi|* CAPABILITY AUTH=OAUTHBEARER|* BYE|* X {9}\
            |P1 OK x|P2 OK x|P3 NO x|P1 BAD|+|+ eyJ9|+OK|-ERR|-ERR [AUTH] x|SASL XOAUTH2|.|..|220 x|220-x|250-x|250 STARTTLS\
            |250-AUTH XOAUTH2|250 x|334|334 eyJ9|235 x|535 5.7.8 x|421|999| |";
        let known: Vec<Vec<u8>> = known.split('|').map(|line| format!("{line}\r\n").into_bytes()).collect();
        prop_oneof![9 => proptest::sample::select(known), 1 => proptest::collection::vec(any::<u8>(), 0..30)]
    }

    /// What leads to where the bearer is sent, in each protocol.
    const AT_AUTH: [&str; 3] = [
        "* OK [CAPABILITY AUTH=XOAUTH2] hi\r\n",
        "+OK hi\r\n+OK\r\nSASL XOAUTH2\r\n.\r\n",
        "220 hi\r\n250-hi\r\n250 AUTH XOAUTH2\r\n",
    ];

    proptest! {
        #[test]
        fn whatever_comes_however_it_comes(
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
