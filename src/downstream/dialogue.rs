//! What the dialogues of all protocols share: how a login goes. A protocol only reads commands and words the replies.

use super::exchange::{Exchange, Step};
use super::sasl::{self, SaslFailure};
use crate::wire::framer::begins_tls;
use crate::wire::{
    Acceptance, Capabilities, Credentials, Dialogue, Frame, Refusal, Want, printable, put_line, split_word,
};

/// The number of bad commands to allow. A person at a terminal and odd programs stay below; a web page that makes a
/// browser post to a mail port does not get far.
const MOST_MISTAKES: u8 = 10;

/// The beginnings of HTTP requests (RFC 9110 section 9, RFC 9113 section 3.4).
const METHODS: [&[u8]; 10] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"];

/// An event that the session has to act on.
pub enum Event {
    /// The client waits for our TLS handshake.
    StartTls,
    /// The client wants to log in, and waits for `accept` or `refuse`.
    Login(Credentials),
    /// The client starts a mail without a login, because this listener requires none. It waits as after a login.
    Mail,
    /// The dialogue is over: the client has said goodbye, or must be disconnected.
    HangUp,
}

/// The state of TLS towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// This listener has none; it accepts unencrypted passwords, from this machine.
    Absent,
    /// Unencrypted so far: STARTTLS is offered, and a password is accepted only after it.
    Offered,
    Active,
}

#[derive(Clone, Debug)]
pub struct Offer {
    /// Our own host name, for greetings.
    pub host: String,
    /// The known capabilities of the provider's server; empty before its first connection.
    pub known: Capabilities,
    pub tls: Tls,
    /// Whether the listener requires a login. Only SMTP can do without.
    pub asks_login: bool,
}

/// The dialogue with a client, in any protocol.
pub trait Downstream: Dialogue<Event = Event> {
    fn greet(&mut self, out: &mut Vec<u8>);
    /// Forgets everything from before the TLS handshake.
    fn tls_started(&mut self);
    /// Accepts the login. The dialogue ends, and the bytes after it come from the provider.
    fn accept(&mut self, acceptance: &Acceptance, out: &mut Vec<u8>);
    /// Refuses the login; the client may try again.
    fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>);
    /// Ends the dialogue from our side; `why` is for a person.
    fn dismiss(&mut self, why: &str, out: &mut Vec<u8>);
    /// Bytes that the client has already sent and that are for the provider, after a successful login.
    fn replay(&mut self) -> Vec<u8>;
    /// The name that the client gave itself (SMTP's EHLO), if it did.
    fn client_name(&self) -> Option<&str>;
}

/// A protocol before the login, seen from the server.
pub trait Commands: Default + Send {
    const REPLIES: Replies;
    /// What to read where a command is expected, or the rest of one. RFC 2449 section 4 allows lines of 255 bytes and
    /// RFC 5321 section 4.5.3.1.4 lines of 512, but an initial response with a long password needs more.
    fn want(&self) -> Want {
        Want::Line { limit: 2048 }
    }

    /// Handles a frame where a command is expected, and writes its reply unless what is returned has one.
    fn read(&mut self, frame: Frame<'_>, offer: &Offer, out: &mut Vec<u8>) -> Reaction;
    /// A reply to the last command.
    fn tagged(&self, text: &str) -> String {
        text.to_owned()
    }

    fn greet(&self, offer: &Offer, out: &mut Vec<u8>);
    fn accept(&self, acceptance: &Acceptance, offer: &Offer, out: &mut Vec<u8>);
    fn refuse(&self, refusal: &Refusal, is_mail: bool, out: &mut Vec<u8>);
    fn replay(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn client_name(&self) -> Option<&str> {
        None
    }
}

/// A protocol's words for what happens in all of them.
pub struct Replies {
    /// The beginning of a challenge.
    pub challenge: &'static str,
    pub cancelled: &'static str,
    pub malformed: &'static str,
    pub too_long: &'static str,
    pub unknown_mechanism: &'static str,
    /// The goodbye after too many mistakes.
    pub too_many: &'static str,
    /// The beginning of a goodbye from our side.
    pub goodbye: &'static str,
}

/// The effect of a frame, beside its reply.
pub enum Reaction {
    /// Another command, or the rest of this one.
    Command,
    /// This reply to a mistake, or a goodbye after too many.
    Mistake(&'static str),
    Login(Result<Step, SaslFailure>),
    Mail,
    StartTls,
    HangUp,
}

/// The answer that the dialogue waits for.
enum State {
    /// A command, or the rest of one.
    Ready,
    /// The next line of a SASL exchange.
    Sasl(Exchange),
    /// The session's decision about a login.
    Decision,
    /// The end of the TLS handshake.
    Handshake,
    /// Nothing more; the dialogue is over.
    Over,
}

/// The dialogue with a client in one protocol.
pub struct ClientDialogue<C> {
    offer: Offer,
    state: State,
    has_spoken: bool,
    mistakes: u8,
    commands: C,
}

impl<C: Commands> ClientDialogue<C> {
    /// Creates a dialogue that has not greeted yet.
    pub fn new(offer: Offer) -> Self {
        Self { offer, state: State::Ready, has_spoken: false, mistakes: 0, commands: C::default() }
    }

    /// Whether a frame comes from a client of another protocol: TLS anywhere, HTTP and SSH in the first line. Such a
    /// client gets no answer.
    fn is_foreign(&mut self, frame: Frame<'_>) -> bool {
        let is_first = !std::mem::replace(&mut self.has_spoken, true);
        let is_method = |line| METHODS.contains(&split_word(line).0);
        match frame {
            Frame::Line(line) => is_first && (line.starts_with(b"SSH-") || (is_method(line) && ends_as_http(line))),
            Frame::Overlong(start) => begins_tls(start) || (is_first && is_method(start)),
            Frame::Literal(_) => false,
        }
    }

    fn mistake(&mut self, answer: &str, out: &mut Vec<u8>) -> Option<Event> {
        self.mistakes += 1;
        if self.mistakes >= MOST_MISTAKES {
            put_line(out, C::REPLIES.too_many);
            return self.turn(State::Over, Event::HangUp);
        }
        put_line(out, &self.commands.tagged(answer));
        None
    }

    fn turn(&mut self, state: State, event: Event) -> Option<Event> {
        self.state = state;
        Some(event)
    }
}

impl<C: Commands> Dialogue for ClientDialogue<C> {
    type Event = Event;

    fn want(&self) -> Want {
        match self.state {
            State::Ready => self.commands.want(),
            State::Sasl(_) => Want::Line { limit: sasl::LINE_LIMIT },
            State::Decision | State::Handshake | State::Over => Want::Nothing,
        }
    }

    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Event> {
        if self.is_foreign(frame) {
            return self.turn(State::Over, Event::HangUp);
        }
        let next = match std::mem::replace(&mut self.state, State::Ready) {
            State::Ready => self.commands.read(frame, &self.offer, out),
            State::Sasl(exchange) => Reaction::Login(exchange.take(frame)),
            state @ (State::Decision | State::Handshake | State::Over) => {
                self.state = state;
                return None;
            }
        };
        match next {
            Reaction::Command => None,
            Reaction::Mistake(answer) => self.mistake(answer, out),
            Reaction::Login(Ok(Step::Ask(exchange))) => {
                put_line(out, &format!("{} {}", C::REPLIES.challenge, exchange.prompt()));
                self.state = State::Sasl(exchange);
                None
            }
            Reaction::Login(Ok(Step::Login(credentials))) => self.turn(State::Decision, Event::Login(credentials)),
            Reaction::Login(Err(SaslFailure::Credentials)) => {
                self.commands.refuse(&Refusal::credentials(), false, out);
                None
            }
            Reaction::Login(Err(SaslFailure::Cancelled)) => self.mistake(C::REPLIES.cancelled, out),
            Reaction::Login(Err(SaslFailure::Malformed)) => self.mistake(C::REPLIES.malformed, out),
            Reaction::Login(Err(SaslFailure::TooLong)) => self.mistake(C::REPLIES.too_long, out),
            Reaction::Login(Err(SaslFailure::Mechanism)) => self.mistake(C::REPLIES.unknown_mechanism, out),
            Reaction::Mail => self.turn(State::Decision, Event::Mail),
            Reaction::StartTls => self.turn(State::Handshake, Event::StartTls),
            Reaction::HangUp => self.turn(State::Over, Event::HangUp),
        }
    }
}

impl<C: Commands> Downstream for ClientDialogue<C> {
    fn greet(&mut self, out: &mut Vec<u8>) {
        self.commands.greet(&self.offer, out);
    }

    fn tls_started(&mut self) {
        *self = Self::new(Offer { tls: Tls::Active, ..self.offer.clone() });
    }

    fn accept(&mut self, acceptance: &Acceptance, out: &mut Vec<u8>) {
        self.state = State::Over;
        self.commands.accept(acceptance, &self.offer, out);
    }

    fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>) {
        self.state = State::Ready;
        self.commands.refuse(refusal, !self.offer.asks_login, out);
    }

    fn dismiss(&mut self, why: &str, out: &mut Vec<u8>) {
        self.state = State::Over;
        put_line(out, &format!("{} {}", C::REPLIES.goodbye, printable(why)));
    }

    fn replay(&mut self) -> Vec<u8> {
        self.commands.replay()
    }

    fn client_name(&self) -> Option<&str> {
        self.commands.client_name()
    }
}

fn ends_as_http(line: &[u8]) -> bool {
    line.rsplit(|&byte| byte == b' ').next().is_some_and(|word| word.starts_with(b"HTTP/"))
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
