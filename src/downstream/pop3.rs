//! POP3 (RFC 1939, RFC 2449, RFC 5034) in the AUTHORIZATION state, seen from the server.

use zeroize::Zeroizing;

use super::dialogue::{Commands, Offer, Reaction, Replies, Tls, shown, verb};
use super::exchange::{Exchange, login};
use crate::wire::{Acceptance, Frame, Reason, Refusal, printable, put_line, split_word};

/// The provider's capabilities that are hidden before the login: those that we announce ourselves, other ways to log
/// in, and commands of this state that only the provider supports (UTF8 and LANG of RFC 6856).
const HIDDEN: &[&str] =
    &["USER", "SASL", "RESP-CODES", "AUTH-RESP-CODE", "STLS", "APOP", "UTF8", "LANG", "XCLIENT", "CLIENTID"];

/// Commands of the TRANSACTION state, to distinguish "too early" from "unknown".
const LATER: &[&str] = &["STAT", "LIST", "RETR", "DELE", "RSET", "TOP", "UIDL", "LAST"];

#[derive(Default)]
pub struct Pop3 {
    /// The user name that waits for its PASS.
    user: Option<Zeroizing<Vec<u8>>>,
}

impl Commands for Pop3 {
    const REPLIES: Replies = Replies {
        challenge: "+",
        cancelled: "-ERR AUTH cancelled.",
        malformed: "-ERR Malformed AUTH.",
        too_long: "-ERR Line too long.",
        unknown_mechanism: "-ERR Unsupported mechanism.",
        too_many: "-ERR Too many bad commands.",
        goodbye: "-ERR [SYS/TEMP]",
    };

    fn read(&mut self, frame: Frame<'_>, offer: &Offer, out: &mut Vec<u8>) -> Reaction {
        let Frame::Line(line) = frame else { return Reaction::Mistake(Self::REPLIES.too_long) };
        let (word, argument) = split_word(line);
        match (verb(word).as_str(), offer.tls) {
            ("CAPA", _) => capa(offer, out),
            ("NOOP", _) => ok("Nothing done.", out),
            ("QUIT", _) => {
                ok("Bye.", out);
                Reaction::HangUp
            }
            ("STLS", _) if !argument.trim_ascii().is_empty() => Reaction::Mistake("-ERR STLS takes no argument."),
            ("STLS", Tls::Offered) => {
                ok("Begin TLS negotiation now.", out);
                Reaction::StartTls
            }
            ("STLS", _) => Reaction::Mistake("-ERR STLS is not offered here."),
            ("USER" | "PASS" | "AUTH", Tls::Offered) => Reaction::Mistake("-ERR Use STLS first."),
            ("USER", _) if argument.is_empty() => Reaction::Mistake("-ERR USER takes a name."),
            // Everything after the first blank is the argument, because a name or a password can contain blanks.
            ("USER", _) => {
                self.user = Some(Zeroizing::new(argument.to_vec()));
                ok("Send PASS.", out)
            }
            ("PASS", _) => match self.user.take() {
                Some(user) => Reaction::Login(login(&user, argument)),
                None => Reaction::Mistake("-ERR USER comes first."),
            },
            ("AUTH", _) if argument.trim_ascii().is_empty() => list("Mechanisms follow.", &["PLAIN", "LOGIN"], out),
            ("AUTH", _) => {
                let step = Exchange::begin(argument);
                self.user = self.user.take().filter(|_| step.is_err());
                Reaction::Login(step)
            }
            ("APOP", _) => Reaction::Mistake("-ERR APOP is not supported."),
            (verb, _) if LATER.contains(&verb) => Reaction::Mistake("-ERR Log in first."),
            _ => Reaction::Mistake("-ERR Unknown command."),
        }
    }

    /// Greets without a timestamp in angle brackets, so that no client tries APOP.
    fn greet(&self, _: &Offer, out: &mut Vec<u8>) {
        ok("postkey ready.", out);
    }

    fn accept(&self, _: &Acceptance, _: &Offer, out: &mut Vec<u8>) {
        ok("Logged in.", out);
    }

    fn refuse(&self, refusal: &Refusal, _: bool, out: &mut Vec<u8>) {
        put_line(out, &format!("-ERR [{}] {}", response_code(refusal.reason), text(refusal)));
    }
}

fn capa(offer: &Offer, out: &mut Vec<u8>) -> Reaction {
    let login: &[&str] = match offer.tls {
        Tls::Offered => &["STLS"],
        Tls::Absent | Tls::Active => &["USER", "SASL PLAIN LOGIN"],
    };
    let known: Vec<&str> = shown(&offer.known, HIDDEN).filter(|entry| *entry != ".").collect();
    list("Capabilities follow.", &[login, &["RESP-CODES", "AUTH-RESP-CODE"], &known].concat(), out)
}

fn ok(text: &str, out: &mut Vec<u8>) -> Reaction {
    put_line(out, &format!("+OK {text}"));
    Reaction::Command
}

fn list(text: &str, lines: &[&str], out: &mut Vec<u8>) -> Reaction {
    ok(text, out);
    lines.iter().chain(&["."]).for_each(|line| put_line(out, line));
    Reaction::Command
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
