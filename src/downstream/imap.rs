//! IMAP4rev1 (RFC 3501) up to the login: in the not authenticated state, seen from the server.

mod command;

use super::dialogue::{Downstream, Event, Offer, Tls, reply, shown};
use super::exchange::{Exchange, SaslFailure, Step};
use super::manners::Manners;
use crate::wire::{Acceptance, Capabilities, Credentials, Dialogue, Frame, Reason, Refusal, Want, printable, sasl};
use command::{Announcement, Command};

/// The longest command line (RFC 9051 section 4 requires 8192).
const LINE: usize = 8192;

/// The longest literal: no longer password can be right.
const LITERAL: usize = 1024;

/// The most literals in one command: LOGIN has two, ID may have a few more.
const LITERALS: usize = 4;

/// The longest line of a reply. A requested capability list may be longer, because clients expect that.
const REPLY: usize = 510;

/// The provider's capabilities that are hidden before the login: those that we announce ourselves, other ways to log
/// in, and what only the provider can do. The provider itself announces COMPRESS and IMAP4rev2 after the login.
const HIDDEN: &[&str] = &[
    "IMAP4rev1",
    "IMAP4rev2",
    "SASL-IR",
    "ID",
    "AUTH=",
    "LOGINDISABLED",
    "STARTTLS",
    "PREAUTH",
    "CLIENTID",
    "XCLIENT",
    "COMPRESS=",
    "LOGIN-REFERRALS",
    "MAILBOX-REFERRALS",
    "UNAUTHENTICATE",
    "X-UNAUTHENTICATE",
];

/// Hidden after the login as well: UNAUTHENTICATE (RFC 8437) would put the client before the provider's login, where it
/// would send its password for postkey.
const HIDDEN_ALWAYS: &[&str] = &["UNAUTHENTICATE", "X-UNAUTHENTICATE"];

/// Commands of the later states, to distinguish "too early" from "unknown".
const LATER: &str = "SELECT EXAMINE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB XLIST STATUS APPEND ENABLE \
    NAMESPACE IDLE CHECK CLOSE UNSELECT EXPUNGE SEARCH SORT THREAD FETCH STORE COPY MOVE UID COMPRESS GETQUOTA \
    GETQUOTAROOT SETQUOTA GETACL SETACL MYRIGHTS GETMETADATA SETMETADATA NOTIFY UNAUTHENTICATE";

/// The dialogue with an IMAP client.
pub struct Imap {
    offer: Offer,
    state: State,
    manners: Manners,
}

/// The state of the dialogue: what it waits for.
#[derive(Default)]
enum State {
    /// A command.
    #[default]
    Ready,
    /// A literal of this size for this command.
    Literal(Command, usize),
    /// The rest of this command's line, behind a literal.
    Rest(Command),
    /// The next line of an AUTHENTICATE with this tag.
    Sasl(String, Exchange),
    /// The session's decision about the login with this tag.
    Decision(String),
    /// The end of the TLS handshake.
    Handshake,
    /// Nothing more; the dialogue is over.
    Over,
}

impl Dialogue for Imap {
    type Event = Event;

    fn want(&self) -> Want {
        match &self.state {
            State::Ready => Want::Line { limit: LINE },
            // The lines of a command count as one line for its limit.
            State::Rest(command) => Want::Line { limit: LINE.saturating_sub(command.size()) },
            State::Literal(_, length) => Want::Literal(*length),
            State::Sasl(..) => Want::Line { limit: sasl::LINE_LIMIT },
            State::Decision(_) | State::Handshake | State::Over => Want::Nothing,
        }
    }

    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Event> {
        if self.manners.foreign(frame) {
            return self.hang_up();
        }
        match (std::mem::take(&mut self.state), frame) {
            (State::Ready, Frame::Line(line)) => self.line(line, out),
            (State::Ready, Frame::Overlong(start)) => {
                self.bad(command::tag(start).unwrap_or("*"), "Line too long.", out)
            }
            (State::Literal(mut command, _), Frame::Literal(bytes)) => {
                command.add_literal(bytes);
                self.state = State::Rest(command);
                None
            }
            (State::Rest(command), Frame::Line(text)) => self.collect(command, text, out),
            (State::Rest(command), Frame::Overlong(_)) => self.bad(&command.tag, "Line too long.", out),
            (State::Sasl(tag, exchange), frame) => self.step(tag, exchange.take(frame), out),
            (state, _) => {
                self.state = state;
                None
            }
        }
    }
}

impl Downstream for Imap {
    fn greet(&mut self, out: &mut Vec<u8>) {
        let code = code(&self.capabilities());
        reply(out, &format!("* OK {code}postkey ready."));
    }

    fn tls_started(&mut self) {
        *self = Self::new(Offer { tls: Tls::Active, ..self.offer.clone() });
    }

    fn accept(&mut self, acceptance: &Acceptance, out: &mut Vec<u8>) {
        if let State::Decision(tag) = std::mem::replace(&mut self.state, State::Over) {
            alert(&acceptance.alerts, out);
            let list = acceptance.capabilities.as_ref().map(|known| atoms(known, HIDDEN_ALWAYS).join(" "));
            reply(out, &format!("{tag} OK {}Logged in.", list.as_deref().map_or(String::new(), code)));
        }
    }

    fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<u8>) {
        if let State::Decision(tag) = std::mem::take(&mut self.state) {
            no(&tag, refusal, out);
        }
    }

    fn dismiss(&mut self, why: &str, out: &mut Vec<u8>) {
        self.state = State::Over;
        reply(out, &format!("* BYE [UNAVAILABLE] {}", printable(why)));
    }
}

impl Imap {
    /// Creates a dialogue that has not greeted yet.
    pub fn new(offer: Offer) -> Self {
        Self { offer, state: State::Ready, manners: Manners::default() }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        let Some(tag) = command::tag(line) else {
            return self.bad("*", "A command begins with a tag.", out);
        };
        let (command, arguments) = Command::new(tag, line);
        self.collect(command, arguments, out)
    }

    fn collect(&mut self, mut command: Command, text: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        match command.add_text(text) {
            None => self.execute(&command, out),
            Some(announcement) => self.announced(command, announcement, out),
        }
    }

    /// Checks a literal before it arrives. A non-synchronizing one can only be read or cut off.
    fn announced(&mut self, command: Command, literal: Announcement, out: &mut Vec<u8>) -> Option<Event> {
        let length = literal.length.filter(|&length| length <= LITERAL && command.literals() < LITERALS);
        match length {
            Some(_) if literal.waits && !self.asks_for_literals(&command) => return self.execute(&command, out),
            Some(length) => {
                if literal.waits {
                    reply(out, "+ OK");
                }
                self.state = State::Literal(command, length);
            }
            None if literal.waits => return self.bad(&command.tag, "Literal too large.", out),
            None => {
                reply(out, "* BYE Literal too large.");
                return self.hang_up();
            }
        }
        None
    }

    /// Whether the command can use literals. If not, its answer need not wait for them.
    fn asks_for_literals(&self, command: &Command) -> bool {
        match command.verb.as_str() {
            "ID" => true,
            "LOGIN" => self.offer.tls != Tls::Offered,
            _ => false,
        }
    }

    fn execute(&mut self, command: &Command, out: &mut Vec<u8>) -> Option<Event> {
        let tag = &command.tag;
        match (command.verb.as_str(), self.offer.tls) {
            ("CAPABILITY", _) => {
                reply(out, &format!("* CAPABILITY {}", self.capabilities()));
                done(tag, "Capability completed.", out)
            }
            ("ID", _) => {
                reply(out, "* ID NIL");
                done(tag, "ID completed.", out)
            }
            ("NOOP", _) => done(tag, "NOOP completed.", out),
            ("LOGOUT", _) => {
                reply(out, "* BYE Logging out.");
                done(tag, "Logout completed.", out);
                self.hang_up()
            }
            ("STARTTLS", _) if command.literals() > 0 || !command.text().trim_ascii().is_empty() => {
                self.bad(tag, "STARTTLS takes no argument.", out)
            }
            ("STARTTLS", Tls::Offered) => {
                self.state = State::Handshake;
                done(tag, "Begin TLS negotiation now.", out);
                Some(Event::StartTls)
            }
            ("STARTTLS", _) => self.bad(tag, "STARTTLS is not offered here.", out),
            ("LOGIN" | "AUTHENTICATE", Tls::Offered) => {
                reply(out, &format!("{tag} NO [PRIVACYREQUIRED] Use STARTTLS first."));
                None
            }
            ("LOGIN", _) => self.login(command, out),
            ("AUTHENTICATE", _) => self.step(tag.clone(), Exchange::begin(command.text()), out),
            (verb, _) if LATER.split(' ').any(|later| later == verb) => self.bad(tag, "Log in first.", out),
            _ => self.bad(tag, "Unknown command.", out),
        }
    }

    fn login(&mut self, command: &Command, out: &mut Vec<u8>) -> Option<Event> {
        let strings = command.strings();
        let Some([user, password]) = strings.as_deref() else {
            return self.bad(&command.tag, "LOGIN takes a user name and a password.", out);
        };
        let step = Credentials::parse(user, password).map(Step::Login).ok_or(SaslFailure::Credentials);
        self.step(command.tag.clone(), step, out)
    }

    /// Continues a login, whichever command started it.
    fn step(&mut self, tag: String, step: Result<Step, SaslFailure>, out: &mut Vec<u8>) -> Option<Event> {
        match step {
            Ok(Step::Ask(exchange)) => {
                reply(out, &format!("+ {}", exchange.prompt()));
                self.state = State::Sasl(tag, exchange);
                None
            }
            Ok(Step::Login(credentials)) => {
                self.state = State::Decision(tag);
                Some(Event::Login(credentials))
            }
            Err(failure) => self.failed(&tag, failure, out),
        }
    }

    fn failed(&mut self, tag: &str, failure: SaslFailure, out: &mut Vec<u8>) -> Option<Event> {
        match failure {
            SaslFailure::Cancelled => self.bad(tag, "AUTHENTICATE cancelled.", out),
            SaslFailure::Malformed => self.bad(tag, "Malformed AUTHENTICATE.", out),
            SaslFailure::TooLong => self.bad(tag, "Line too long.", out),
            SaslFailure::Mechanism => self.mistake(&format!("{tag} NO Unsupported mechanism."), out),
            SaslFailure::Credentials => {
                no(tag, &Refusal::credentials(), out);
                None
            }
        }
    }

    fn bad(&mut self, tag: &str, text: &str, out: &mut Vec<u8>) -> Option<Event> {
        self.mistake(&format!("{tag} BAD {text}"), out)
    }

    /// Answers a mistake. After too many, it says goodbye instead.
    fn mistake(&mut self, answer: &str, out: &mut Vec<u8>) -> Option<Event> {
        if self.manners.mistake() {
            reply(out, "* BYE Too many bad commands.");
            return self.hang_up();
        }
        reply(out, answer);
        None
    }

    fn hang_up(&mut self) -> Option<Event> {
        self.state = State::Over;
        Some(Event::HangUp)
    }

    /// The list before the login. IMAP4rev1 comes first, because at least one client reads no further.
    ///
    /// `LITERAL+` is always accepted, but announced only if the provider has it, because clients remember it for
    /// APPEND.
    fn capabilities(&self) -> String {
        let login: &[&str] = match self.offer.tls {
            Tls::Offered => &["STARTTLS", "LOGINDISABLED"],
            Tls::Absent | Tls::Active => &["AUTH=PLAIN", "AUTH=LOGIN"],
        };
        let known = atoms(&self.offer.known, HIDDEN);
        [&["IMAP4rev1", "SASL-IR", "ID"], login, &known].concat().join(" ")
    }
}

/// The entries that are single words and cannot close a response code.
fn atoms<'a>(known: &'a Capabilities, hidden: &'static [&'static str]) -> Vec<&'a str> {
    shown(known, hidden).filter(|entry| !entry.contains([' ', '[', ']'])).collect()
}

/// A capability list as response code (RFC 3501 section 7.1), or nothing if it is too long for a line; then the client
/// asks for it.
fn code(list: &str) -> String {
    const AROUND: usize = 100; // a tag of 64, the code's name and the text
    if list.is_empty() || list.len() + AROUND > REPLY { String::new() } else { format!("[CAPABILITY {list}] ") }
}

fn done(tag: &str, text: &str, out: &mut Vec<u8>) -> Option<Event> {
    reply(out, &format!("{tag} OK {text}"));
    None
}

/// Passes on the provider's alerts for the person (RFC 3501 section 7.1).
fn alert(alerts: &[String], out: &mut Vec<u8>) {
    alerts.iter().for_each(|text| reply(out, &format!("* OK [ALERT] {}", printable(text))));
}

fn no(tag: &str, refusal: &Refusal, out: &mut Vec<u8>) {
    alert(&refusal.alerts, out);
    reply(out, &format!("{tag} NO [{}] {}", response_code(refusal.reason), printable(&refusal.text)));
}

/// The codes of RFC 5530, with one exception: ALERT (RFC 3501 section 7.1) must be shown to a person, and only a person
/// can resolve [`Reason::AuthorizationEnded`]. Most clients do not show CONTACTADMIN and would just ask for the
/// password.
const fn response_code(reason: Reason) -> &'static str {
    match reason {
        Reason::Credentials | Reason::TokenRefused => "AUTHENTICATIONFAILED",
        Reason::SomebodyElse => "AUTHORIZATIONFAILED",
        Reason::AuthorizationEnded => "ALERT",
        // Thunderbird shows the text of this one, keeps the password, and tries no other mechanism.
        Reason::Unavailable | Reason::AuthorizationAwaited => "UNAVAILABLE",
        Reason::Limit => "LIMIT",
        Reason::Forbidden | Reason::ServerRefuses => "CONTACTADMIN",
    }
}
