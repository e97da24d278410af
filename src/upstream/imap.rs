//! IMAP before the login, seen from the client: RFC 3501, with the initial response of RFC 4959.

use std::mem;

use super::dialogue::{Approach, Event, State, StepResult, Steps, accepted, capabilities, challenged, ready, rejected};
use super::exchange::BearerExchange;
use super::rejection::{Fault, Rejection, Verdict};
use super::verdict::RawRefusal;
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, put_line, quote};

/// The longest command line with its end, in bytes (RFC 7162 section 4).
const COMMAND_LIMIT: usize = 8192;

/// The most alerts that are passed on for one login.
const ALERTS: usize = 4;

#[derive(Default)]
pub struct Imap {
    /// The number of commands sent, which is also in the tag of the last one.
    commands: u32,
    /// The untagged list of capabilities that arrived since our last command.
    listed: Option<Capabilities>,
    /// The alerts for the person.
    alerts: Vec<String>,
}

/// The addressee of a server's line.
#[derive(Clone, Copy)]
enum ReplyKind {
    /// `*`: no command.
    Untagged,
    /// `+`: a command that is not finished.
    Challenge,
    /// Our tag: the command that this line ends.
    Tagged,
}

struct Reply<'a> {
    kind: ReplyKind,
    /// Its first word, upper case.
    word: String,
    text: &'a str,
}

impl<'a> Reply<'a> {
    fn parse(line: &'a str, tag: &str) -> Result<Self, Fault> {
        let (start, rest) = line.split_once(' ').unwrap_or((line, ""));
        let kind = match start {
            "*" => ReplyKind::Untagged,
            "+" => ReplyKind::Challenge,
            start if start == tag => ReplyKind::Tagged,
            _ => return Err(Fault::Protocol("sent a line that answers nothing we sent")),
        };
        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(Self { kind, word: word.to_ascii_uppercase(), text })
    }
}

impl Steps for Imap {
    fn line(&mut self, line: &str, state: State, approach: &mut Approach, out: &mut Vec<u8>) -> StepResult {
        let reply = Reply::parse(line, &self.tag())?;
        if approach.security != Security::StartTls && self.alerts.len() < ALERTS {
            self.alerts.extend(alert(&reply));
        }
        self.step(&reply, state, approach, out)
    }

    fn tls_started(&mut self, approach: &Approach, out: &mut Vec<u8>) -> (State, Option<Event>) {
        self.listed = None;
        self.recall(approach, out)
    }

    fn authenticate(
        &mut self,
        list: &Capabilities,
        bearer: &Bearer,
        out: &mut Vec<u8>,
    ) -> Result<BearerExchange, Fault> {
        let exchange = BearerExchange::begin(bearer, &mechanisms(list))?;
        self.commands += 1;
        self.listed = None;
        let limit = if list.has("SASL-IR") { COMMAND_LIMIT } else { 0 };
        Ok(exchange.start(&format!("{} AUTHENTICATE", self.tag()), limit, out))
    }
}

impl Imap {
    /// Our own tag, never one of the client's, which are used after the relay begins.
    fn tag(&self) -> String {
        format!("P{}", self.commands)
    }

    fn command(&mut self, command: &str, out: &mut Vec<u8>) {
        self.commands += 1;
        put_line(out, &format!("{} {command}", self.tag()));
    }

    fn step(&mut self, reply: &Reply, state: State, approach: &Approach, out: &mut Vec<u8>) -> StepResult {
        match (reply.kind, reply.word.as_str(), state) {
            (ReplyKind::Untagged, "BYE", _) => Err(self.refused(reply, approach)),
            (ReplyKind::Untagged, "OK", State::Greeting) => self.greeted(coded_list(reply.text), approach, out),
            (ReplyKind::Untagged, "PREAUTH", State::Greeting) => Err(Fault::PreAuth),
            (_, _, State::Greeting) => Err(Fault::Protocol("did not greet as an IMAP server does")),
            (ReplyKind::Untagged, _, state) => self.untagged(reply).map(|()| (state, None)),
            (ReplyKind::Tagged, "OK", State::StartTls) => Ok((State::Handshake, Some(Event::StartTls))),
            (ReplyKind::Tagged, "NO", State::StartTls) => Err(Fault::StartTlsLater),
            (ReplyKind::Tagged, _, State::StartTls) => Err(Fault::NoStartTls),
            (ReplyKind::Tagged, "OK", State::Capabilities) => {
                self.newest(reply.text).map(ready).ok_or(Fault::Protocol("did not list its capabilities"))
            }
            (ReplyKind::Tagged, "NO" | "BAD", State::Capabilities) => Err(self.refused(reply, approach)),
            (ReplyKind::Challenge, _, State::Authenticating(exchange)) => {
                // A list from before the server has the bearer does not hold after the login.
                self.listed = None;
                challenged(exchange, out)
            }
            (ReplyKind::Tagged, "OK", State::Authenticating(exchange)) if exchange.is_sent() => {
                let capabilities = self.newest(reply.text).filter(is_of_logged_in);
                accepted(Acceptance { capabilities, alerts: mem::take(&mut self.alerts) })
            }
            (ReplyKind::Tagged, "NO" | "BAD", State::Authenticating(exchange)) => {
                rejected(&exchange, Rejection { alerts: mem::take(&mut self.alerts), ..raw(reply).judge() })
            }
            _ => Err(Fault::Protocol("sent a line that answers nothing we sent")),
        }
    }

    /// Handles the greeting, which may list the capabilities. Without a list we send STARTTLS without asking, because a
    /// server that does not support it refuses it.
    fn greeted(&mut self, list: Option<Capabilities>, approach: &Approach, out: &mut Vec<u8>) -> StepResult {
        match (approach.security, list) {
            (Security::StartTls, Some(list)) if !list.has("STARTTLS") => Err(Fault::NoStartTls),
            (Security::StartTls, _) => {
                self.command("STARTTLS", out);
                Ok((State::StartTls, None))
            }
            (_, Some(list)) => Ok(ready(list)),
            (_, None) => Ok(self.recall(approach, out)),
        }
    }

    /// Uses the cached capabilities, or asks for them.
    fn recall(&mut self, approach: &Approach, out: &mut Vec<u8>) -> (State, Option<Event>) {
        if !approach.known.0.is_empty() {
            return ready(approach.known.clone());
        }
        self.command("CAPABILITY", out);
        (State::Capabilities, None)
    }

    /// The list in the reply that ends our command, or else the untagged one before it.
    fn newest(&mut self, text: &str) -> Option<Capabilities> {
        let listed = self.listed.take();
        coded_list(text).or(listed)
    }

    /// The fault for a refusal before the server has judged a bearer.
    fn refused(&mut self, reply: &Reply, approach: &Approach) -> Fault {
        match approach.refused(&raw(reply)) {
            Fault::Refused(rejection) => Fault::Refused(Rejection { alerts: mem::take(&mut self.alerts), ..rejection }),
            fault => fault,
        }
    }

    /// Stores a list of capabilities and ignores everything else. A server has no reason to send a literal before the
    /// login, and reading on after one would take its bytes for replies.
    fn untagged(&mut self, reply: &Reply) -> Result<(), Fault> {
        match reply.word.as_str() {
            "OK" | "NO" | "BAD" => {}
            word if word.ends_with('}') || reply.text.ends_with('}') => {
                return Err(Fault::Protocol("sent a literal before the login"));
            }
            "CAPABILITY" => self.listed = Some(list(reply.text)),
            _ => {}
        }
        Ok(())
    }
}

/// The text of `[ALERT]`, which must be shown to the person (RFC 3501 section 7.1), but not before TLS, when anybody may
/// have sent it.
fn alert(reply: &Reply) -> Option<String> {
    let (code, text) = reply.text.strip_prefix('[')?.split_once(']')?;
    let is_status = matches!(reply.word.as_str(), "OK" | "NO" | "BAD" | "BYE");
    let is_alert = is_status && code.eq_ignore_ascii_case("ALERT");
    is_alert.then(|| quote(text)).filter(|text| !text.is_empty())
}

/// NO concerns the token. BAD comes from a server that has lost track (Exchange under load), and BYE from one that
/// closes.
fn raw<'a>(reply: &Reply<'a>) -> RawRefusal<'a> {
    RawRefusal::open(reply.text, if reply.word == "NO" { Verdict::Token } else { Verdict::Temporary })
}

/// Whether a list can be from after the login. One that still offers logins was sent before; without a list the client
/// asks.
fn is_of_logged_in(list: &Capabilities) -> bool {
    mechanisms(list).is_empty() && !list.has("STARTTLS") && !list.has("LOGINDISABLED")
}

/// The list in the response code `[CAPABILITY ...]`, if the text begins with that.
fn coded_list(text: &str) -> Option<Capabilities> {
    let (code, _) = text.strip_prefix('[')?.split_once(']')?;
    let (word, names) = code.split_once(' ')?;
    word.eq_ignore_ascii_case("CAPABILITY").then(|| list(names))
}

fn list(names: &str) -> Capabilities {
    capabilities(names.split(' '))
}

/// The mechanisms, each of which has a separate entry: `AUTH=XOAUTH2`.
pub(super) fn mechanisms(list: &Capabilities) -> Vec<&str> {
    let split = list.0.iter().filter_map(|entry| entry.split_once('='));
    split.filter(|(name, _)| name.eq_ignore_ascii_case("AUTH")).map(|(_, name)| name).collect()
}
