//! IMAP4rev1 (RFC 3501) up to the login: in the not authenticated state, seen from the server.

mod command;

use super::dialogue::{Commands, Offer, Reaction, Replies, Tls, shown};
use super::exchange::{Exchange, login};
use crate::wire::{Acceptance, Capabilities, Frame, Reason, Refusal, Want, printable, put_line};
use command::{Announcement, Command};

/// The longest command line (RFC 9051 section 4 requires 8192).
const LINE: usize = 8192;

const TOO_LONG: &str = "BAD Line too long.";

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

#[derive(Default)]
pub struct Imap {
    /// The tag of the last command.
    tag: String,
    /// The command of which more has to arrive: a literal of this size, or else the rest of its line.
    pending: Option<(Command, Option<usize>)>,
}

impl Commands for Imap {
    const REPLIES: Replies = Replies {
        challenge: "+",
        cancelled: "BAD AUTHENTICATE cancelled.",
        malformed: "BAD Malformed AUTHENTICATE.",
        too_long: TOO_LONG,
        unknown_mechanism: "NO Unsupported mechanism.",
        too_many: "* BYE Too many bad commands.",
        goodbye: "* BYE [UNAVAILABLE]",
    };

    fn want(&self) -> Want {
        match &self.pending {
            None => Want::Line { limit: LINE },
            // The lines of a command count as one line for its limit.
            Some((command, None)) => Want::Line { limit: LINE.saturating_sub(command.size()) },
            Some((_, Some(length))) => Want::Literal(*length),
        }
    }

    fn read(&mut self, frame: Frame<'_>, offer: &Offer, out: &mut Vec<u8>) -> Reaction {
        match (self.pending.take(), frame) {
            (None, Frame::Line(line)) => self.line(line, offer, out),
            (Some((command, _)), Frame::Line(text)) => self.collect(command, text, offer, out),
            (Some((mut command, _)), Frame::Literal(bytes)) => {
                command.add_literal(bytes);
                self.pending = Some((command, None));
                Reaction::Command
            }
            (None, Frame::Overlong(start) | Frame::Literal(start)) => {
                command::tag(start).unwrap_or("*").clone_into(&mut self.tag);
                Reaction::Mistake(TOO_LONG)
            }
            (Some(_), Frame::Overlong(_)) => Reaction::Mistake(TOO_LONG),
        }
    }

    fn tagged(&self, text: &str) -> String {
        format!("{} {text}", self.tag)
    }

    fn greet(&self, offer: &Offer, out: &mut Vec<u8>) {
        put_line(out, &format!("* OK {}postkey ready.", code(&capabilities(offer))));
    }

    fn accept(&self, acceptance: &Acceptance, _: &Offer, out: &mut Vec<u8>) {
        alert(&acceptance.alerts, out);
        let list = acceptance.capabilities.as_ref().map(|known| atoms(known, HIDDEN_ALWAYS).join(" "));
        put_line(out, &self.tagged(&format!("OK {}Logged in.", list.as_deref().map_or(String::new(), code))));
    }

    fn refuse(&self, refusal: &Refusal, _: bool, out: &mut Vec<u8>) {
        alert(&refusal.alerts, out);
        let code = response_code(refusal.reason);
        put_line(out, &self.tagged(&format!("NO [{code}] {}", printable(&refusal.text))));
    }
}

impl Imap {
    fn line(&mut self, line: &[u8], offer: &Offer, out: &mut Vec<u8>) -> Reaction {
        let tag = command::tag(line);
        tag.unwrap_or("*").clone_into(&mut self.tag);
        if tag.is_none() {
            return Reaction::Mistake("BAD A command begins with a tag.");
        }
        let (command, arguments) = Command::new(line);
        self.collect(command, arguments, offer, out)
    }

    fn collect(&mut self, mut command: Command, text: &[u8], offer: &Offer, out: &mut Vec<u8>) -> Reaction {
        match command.add_text(text) {
            None => self.execute(&command, offer, out),
            Some(announcement) => self.announced(command, announcement, offer, out),
        }
    }

    /// Checks a literal before it arrives. A non-synchronizing one can only be read or cut off.
    fn announced(&mut self, command: Command, literal: Announcement, offer: &Offer, out: &mut Vec<u8>) -> Reaction {
        // If a command cannot use literals, its answer need not wait for them.
        let is_useful = command.verb == "ID" || (command.verb == "LOGIN" && offer.tls != Tls::Offered);
        match literal.length.filter(|&length| length <= LITERAL && command.literals() < LITERALS) {
            Some(_) if literal.waits && !is_useful => self.execute(&command, offer, out),
            Some(length) => {
                if literal.waits {
                    put_line(out, "+ OK");
                }
                self.pending = Some((command, Some(length)));
                Reaction::Command
            }
            None if literal.waits => Reaction::Mistake("BAD Literal too large."),
            None => {
                put_line(out, "* BYE Literal too large.");
                Reaction::HangUp
            }
        }
    }

    fn execute(&self, command: &Command, offer: &Offer, out: &mut Vec<u8>) -> Reaction {
        let is_bare = command.literals() == 0 && command.text().trim_ascii().is_empty();
        match (command.verb.as_str(), offer.tls) {
            ("CAPABILITY", _) => {
                put_line(out, &format!("* CAPABILITY {}", capabilities(offer)));
                self.done("Capability completed.", out)
            }
            ("ID", _) => {
                put_line(out, "* ID NIL");
                self.done("ID completed.", out)
            }
            ("NOOP", _) => self.done("NOOP completed.", out),
            ("LOGOUT", _) => {
                put_line(out, "* BYE Logging out.");
                self.done("Logout completed.", out);
                Reaction::HangUp
            }
            ("STARTTLS", _) if !is_bare => Reaction::Mistake("BAD STARTTLS takes no argument."),
            ("STARTTLS", Tls::Offered) => {
                self.done("Begin TLS negotiation now.", out);
                Reaction::StartTls
            }
            ("STARTTLS", _) => Reaction::Mistake("BAD STARTTLS is not offered here."),
            ("LOGIN" | "AUTHENTICATE", Tls::Offered) => {
                put_line(out, &self.tagged("NO [PRIVACYREQUIRED] Use STARTTLS first."));
                Reaction::Command
            }
            ("LOGIN", _) => match command.strings().as_deref() {
                Some([user, password]) => Reaction::Login(login(user, password)),
                _ => Reaction::Mistake("BAD LOGIN takes a user name and a password."),
            },
            ("AUTHENTICATE", _) => Reaction::Login(Exchange::begin(command.text())),
            (verb, _) if LATER.split(' ').any(|later| later == verb) => Reaction::Mistake("BAD Log in first."),
            _ => Reaction::Mistake("BAD Unknown command."),
        }
    }

    fn done(&self, text: &str, out: &mut Vec<u8>) -> Reaction {
        put_line(out, &self.tagged(&format!("OK {text}")));
        Reaction::Command
    }
}

/// The list before the login. IMAP4rev1 comes first, because at least one client reads no further.
///
/// `LITERAL+` is always accepted, but announced only if the provider has it, because clients remember it for APPEND.
fn capabilities(offer: &Offer) -> String {
    let login: &[&str] = match offer.tls {
        Tls::Offered => &["STARTTLS", "LOGINDISABLED"],
        Tls::Absent | Tls::Active => &["AUTH=PLAIN", "AUTH=LOGIN"],
    };
    [&["IMAP4rev1", "SASL-IR", "ID"], login, &atoms(&offer.known, HIDDEN)].concat().join(" ")
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

/// Passes on the provider's alerts for the person (RFC 3501 section 7.1).
fn alert(alerts: &[String], out: &mut Vec<u8>) {
    alerts.iter().for_each(|text| put_line(out, &format!("* OK [ALERT] {}", printable(text))));
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
