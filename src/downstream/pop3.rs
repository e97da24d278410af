//! POP3 (RFC 1939, RFC 2449, RFC 5034) in the AUTHORIZATION state, seen from the server.

use zeroize::Zeroizing;

use super::dialogue::{Downstream, Event, Offer, Tls, reply, shown, split_word, verb};
use super::exchange::{Exchange, SaslFailure, Step};
use super::manners::Manners;
use crate::wire::{Acceptance, Credentials, Dialogue, Frame, Reason, Refusal, Want, printable, sasl};

/// The longest command line. RFC 2449 section 4 allows 255; an initial response with a long password needs more.
const LINE: usize = 2048;

/// The provider's capabilities that are hidden before the login: those that we announce ourselves, other ways to log
/// in, and commands of this state that only the provider supports (UTF8 and LANG of RFC 6856).
const HIDDEN: &[&str] =
    &["USER", "SASL", "RESP-CODES", "AUTH-RESP-CODE", "STLS", "APOP", "UTF8", "LANG", "XCLIENT", "CLIENTID"];

/// Commands of the TRANSACTION state, to distinguish "too early" from "unknown".
const LATER: &[&str] = &["STAT", "LIST", "RETR", "DELE", "RSET", "TOP", "UIDL", "LAST"];

/// The dialogue with a POP3 client.
pub struct Pop3 {
    offer: Offer,
    state: State,
    manners: Manners,
}

/// The state of the dialogue: what it waits for.
enum State {
    /// A command.
    Ready,
    /// A command, most likely PASS for this user name.
    Named(Zeroizing<Vec<u8>>),
    /// The next line of an AUTH.
    Sasl(Exchange),
    /// The session's decision about a login.
    Decision,
    /// The end of the TLS handshake.
    Handshake,
    /// Nothing more; the dialogue is over.
    Over,
}

impl Dialogue for Pop3 {
    type Event = Event;

    fn want(&self) -> Want {
        match &self.state {
            State::Ready | State::Named(_) => Want::Line { limit: LINE },
            State::Sasl(_) => Want::Line { limit: sasl::LINE_LIMIT },
            State::Decision | State::Handshake | State::Over => Want::Nothing,
        }
    }

    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Event> {
        if self.manners.foreign(frame) {
            return self.hang_up();
        }
        match (&self.state, frame) {
            (State::Ready | State::Named(_), Frame::Line(line)) => self.command(line, out),
            (State::Ready | State::Named(_), Frame::Overlong(_)) => self.err("Line too long.", out),
            (State::Sasl(_), frame) => self.answer(frame, out),
            _ => None,
        }
    }
}

impl Downstream for Pop3 {
    /// Greets without a timestamp in angle brackets, so that no client tries APOP.
    fn greet(&mut self, out: &mut Vec<u8>) {
        reply(out, "+OK postkey ready.");
    }

    fn tls_started(&mut self) {
        *self = Self::new(Offer { tls: Tls::Active, ..self.offer.clone() });
    }

    fn accept(&mut self, _: &Acceptance, out: &mut Vec<u8>) {
        self.state = State::Over;
        reply(out, "+OK Logged in.");
    }

    fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>) {
        self.state = State::Ready;
        refuse(refusal, out);
    }

    fn dismiss(&mut self, why: &str, out: &mut Vec<u8>) {
        self.state = State::Over;
        reply(out, &format!("-ERR [SYS/TEMP] {}", printable(why)));
    }
}

impl Pop3 {
    /// Creates a dialogue that has not greeted yet.
    pub fn new(offer: Offer) -> Self {
        Self { offer, state: State::Ready, manners: Manners::default() }
    }

    fn command(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        let (word, argument) = split_word(line);
        match (verb(word).as_str(), self.offer.tls) {
            ("CAPA", _) => self.capa(out),
            ("NOOP", _) => ok("Nothing done.", out),
            ("QUIT", _) => {
                ok("Bye.", out);
                self.hang_up()
            }
            ("STLS", _) if !argument.trim_ascii().is_empty() => self.err("STLS takes no argument.", out),
            ("STLS", Tls::Offered) => {
                self.state = State::Handshake;
                ok("Begin TLS negotiation now.", out);
                Some(Event::StartTls)
            }
            ("STLS", _) => self.err("STLS is not offered here.", out),
            ("USER" | "PASS" | "AUTH", Tls::Offered) => self.err("Use STLS first.", out),
            ("USER", _) => self.user(argument, out),
            ("PASS", _) => self.pass(argument, out),
            ("AUTH", _) if argument.trim_ascii().is_empty() => list("Mechanisms follow.", &["PLAIN", "LOGIN"], out),
            ("AUTH", _) => self.step(Exchange::begin(argument), out),
            ("APOP", _) => self.err("APOP is not supported.", out),
            (verb, _) if LATER.contains(&verb) => self.err("Log in first.", out),
            _ => self.err("Unknown command.", out),
        }
    }

    fn capa(&self, out: &mut Vec<u8>) -> Option<Event> {
        let login: &[&str] = match self.offer.tls {
            Tls::Offered => &["STLS"],
            Tls::Absent | Tls::Active => &["USER", "SASL PLAIN LOGIN"],
        };
        let known: Vec<&str> = shown(&self.offer.known, HIDDEN).filter(|entry| *entry != ".").collect();
        list("Capabilities follow.", &[login, &["RESP-CODES", "AUTH-RESP-CODE"], &known].concat(), out)
    }

    /// Everything after the first blank is the argument, because a name or a password can contain blanks.
    fn user(&mut self, name: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        if name.is_empty() {
            return self.err("USER takes a name.", out);
        }
        self.state = State::Named(Zeroizing::new(name.to_vec()));
        ok("Send PASS.", out)
    }

    fn pass(&mut self, password: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        let State::Named(user) = std::mem::replace(&mut self.state, State::Ready) else {
            return self.err("USER comes first.", out);
        };
        let step = Credentials::parse(&user, password).map(Step::Login).ok_or(SaslFailure::Credentials);
        self.step(step, out)
    }

    fn answer(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Event> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Sasl(exchange) => self.step(exchange.take(frame), out),
            _ => None,
        }
    }

    /// Continues a login, whichever command started it.
    fn step(&mut self, step: Result<Step, SaslFailure>, out: &mut Vec<u8>) -> Option<Event> {
        match step {
            Ok(Step::Ask(exchange)) => {
                reply(out, &format!("+ {}", exchange.prompt()));
                self.state = State::Sasl(exchange);
                None
            }
            Ok(Step::Login(credentials)) => {
                self.state = State::Decision;
                Some(Event::Login(credentials))
            }
            Err(failure) => self.failed(failure, out),
        }
    }

    fn failed(&mut self, failure: SaslFailure, out: &mut Vec<u8>) -> Option<Event> {
        match failure {
            SaslFailure::Cancelled => self.err("AUTH cancelled.", out),
            SaslFailure::Malformed => self.err("Malformed AUTH.", out),
            SaslFailure::TooLong => self.err("Line too long.", out),
            SaslFailure::Mechanism => self.err("Unsupported mechanism.", out),
            SaslFailure::Credentials => {
                refuse(&Refusal::credentials(), out);
                None
            }
        }
    }

    /// Answers a mistake. After too many, it says goodbye instead.
    fn err(&mut self, text: &str, out: &mut Vec<u8>) -> Option<Event> {
        if self.manners.mistake() {
            reply(out, "-ERR Too many bad commands.");
            return self.hang_up();
        }
        reply(out, &format!("-ERR {text}"));
        None
    }

    fn hang_up(&mut self) -> Option<Event> {
        self.state = State::Over;
        Some(Event::HangUp)
    }
}

fn ok(text: &str, out: &mut Vec<u8>) -> Option<Event> {
    reply(out, &format!("+OK {text}"));
    None
}

fn list(text: &str, lines: &[&str], out: &mut Vec<u8>) -> Option<Event> {
    ok(text, out);
    lines.iter().chain(&["."]).for_each(|line| reply(out, line));
    None
}

fn refuse(refusal: &Refusal, out: &mut Vec<u8>) {
    reply(out, &format!("-ERR [{}] {}", response_code(refusal.reason), text(refusal)));
}

/// The refusal's text. A provider may write of a "blocked" account, but fetchmail takes every reply with "lock" for a
/// mailbox in use and would try again forever.
fn text(refusal: &Refusal) -> String {
    let text = printable(&refusal.text);
    if text.to_ascii_lowercase().contains("lock") {
        "The login failed; the log of postkey says why.".into()
    } else {
        text
    }
}

/// RFC 2449 section 8.1 and RFC 3206. SYS/PERM makes the client wait for a person, and keep the password.
const fn response_code(reason: Reason) -> &'static str {
    match reason {
        Reason::Credentials | Reason::SomebodyElse | Reason::TokenRefused => "AUTH",
        Reason::AuthorizationEnded | Reason::Forbidden | Reason::ServerRefuses => "SYS/PERM",
        Reason::Unavailable | Reason::AuthorizationAwaited => "SYS/TEMP",
        Reason::Limit => "IN-USE",
    }
}
