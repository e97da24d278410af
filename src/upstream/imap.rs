//! IMAP towards the provider: RFC 3501, with the initial response of RFC 4959.

use std::mem;

use super::dialogue::{Allowance, Approach, Event, LINE, NOT_READY, Upstream, capabilities, send, told};
use super::exchange::BearerExchange;
use super::rejection::{Fault, Rejection, Verdict};
use super::verdict::No;
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Redactor, Want, quote, sasl};

/// The longest command line with its end, in bytes (RFC 7162 section 4).
const COMMAND_LIMIT: usize = 8192;

/// The most alerts that are passed on for one login.
const ALERTS: usize = 4;

/// The state of the dialogue.
enum State {
    /// The server has not greeted us yet.
    Greeting,
    /// We have sent STARTTLS.
    StartTls,
    /// The session does the TLS handshake.
    Handshake,
    /// We have sent CAPABILITY.
    Capability,
    /// The session has the capabilities and will provide a bearer.
    Ready(Capabilities),
    /// We have sent AUTHENTICATE.
    Authenticating(BearerExchange),
    /// The dialogue is over: accepted, refused, or failed.
    Over,
}

/// The dialogue with an IMAP server.
pub struct Imap {
    approach: Approach,
    state: State,
    /// The number of commands sent, which is also in the tag of the last one.
    commands: u32,
    /// The untagged list of capabilities that arrived since our last command.
    listed: Option<Capabilities>,
    /// The alerts for the person.
    alerts: Vec<String>,
    allowance: Allowance,
    /// Removes our secrets from what the server says.
    sent: Redactor,
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

/// A line of the server.
struct Reply<'a> {
    kind: ReplyKind,
    /// Its first word, upper case.
    word: String,
    /// What follows.
    text: &'a str,
}

impl<'a> Reply<'a> {
    fn parse(line: &'a str, tag: &str) -> Result<Self, Fault> {
        let (start, rest) = line.split_once(' ').unwrap_or((line, ""));
        let kind = match start {
            "*" => ReplyKind::Untagged,
            "+" => ReplyKind::Challenge,
            start if start == tag => ReplyKind::Tagged,
            _ => return Err(Fault::Protocol("sent a line that answers nothing we said")),
        };
        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(Self { kind, word: word.to_ascii_uppercase(), text })
    }
}

impl Imap {
    /// Waits for the greeting.
    pub fn new(approach: Approach) -> Self {
        Self {
            approach,
            state: State::Greeting,
            commands: 0,
            listed: None,
            alerts: Vec::new(),
            allowance: Allowance::default(),
            sent: Redactor::default(),
        }
    }

    /// Our own tag, never one of the client's, which are used after the relay begins.
    fn tag(&self) -> String {
        format!("P{}", self.commands)
    }

    fn command(&mut self, command: &str, out: &mut Vec<u8>) {
        self.commands += 1;
        send(out, &format!("{} {command}", self.tag()));
    }

    fn line(&mut self, line: &str, out: &mut Vec<u8>) -> Result<Option<Event>, Fault> {
        let reply = Reply::parse(line, &self.tag())?;
        self.alerts.extend(self.alert(&reply));
        let state = mem::replace(&mut self.state, State::Over);
        let (state, event) = self.step(&reply, state, out)?;
        self.state = state;
        Ok(event)
    }

    fn step(&mut self, reply: &Reply, state: State, out: &mut Vec<u8>) -> Result<(State, Option<Event>), Fault> {
        match (reply.kind, reply.word.as_str(), state) {
            (ReplyKind::Untagged, "BYE", _) => Err(self.refused(reply)),
            (ReplyKind::Untagged, "OK", State::Greeting) => self.greeted(coded_list(reply.text), out),
            (ReplyKind::Untagged, "PREAUTH", State::Greeting) => Err(Fault::PreAuth),
            (_, _, State::Greeting) => Err(Fault::Protocol("did not greet as an IMAP server does")),
            (ReplyKind::Untagged, _, state) => self.untagged(reply).map(|()| (state, None)),
            (ReplyKind::Tagged, "OK", State::StartTls) => Ok((State::Handshake, Some(Event::StartTls))),
            (ReplyKind::Tagged, "NO", State::StartTls) => Err(Fault::StartTlsLater),
            (ReplyKind::Tagged, _, State::StartTls) => Err(Fault::NoStartTls),
            (ReplyKind::Tagged, "OK", State::Capability) => {
                self.newest(reply.text).map(ready).ok_or(Fault::Protocol("did not say what it can do"))
            }
            (ReplyKind::Tagged, "NO" | "BAD", State::Capability) => Err(self.refused(reply)),
            (ReplyKind::Challenge, _, State::Authenticating(exchange)) => {
                // A list from before the server has the bearer does not hold after the login.
                self.listed = None;
                Ok((State::Authenticating(exchange.challenged(out)?), None))
            }
            (ReplyKind::Tagged, "OK", State::Authenticating(exchange)) if exchange.is_sent() => {
                let capabilities = self.newest(reply.text).filter(is_of_logged_in);
                let alerts = mem::take(&mut self.alerts);
                Ok((State::Over, Some(Event::Accepted(Acceptance { capabilities, alerts }))))
            }
            (ReplyKind::Tagged, "NO" | "BAD", State::Authenticating(exchange)) => {
                let rejection = Rejection { alerts: mem::take(&mut self.alerts), ..no(reply).judge() };
                Ok((State::Over, Some(exchange.refused(rejection))))
            }
            _ => Err(Fault::Protocol("sent a line that answers nothing we said")),
        }
    }

    /// Handles the greeting, which may list the capabilities. Without a list we send STARTTLS without asking, because a
    /// server that does not support it refuses it.
    fn greeted(&mut self, list: Option<Capabilities>, out: &mut Vec<u8>) -> Result<(State, Option<Event>), Fault> {
        match (self.approach.security, list) {
            (Security::StartTls, Some(list)) if !list.has("STARTTLS") => Err(Fault::NoStartTls),
            (Security::StartTls, _) => {
                self.command("STARTTLS", out);
                Ok((State::StartTls, None))
            }
            (_, Some(list)) => Ok(ready(list)),
            (_, None) => Ok(self.recall(out)),
        }
    }

    /// Uses the cached capabilities, or asks for them.
    fn recall(&mut self, out: &mut Vec<u8>) -> (State, Option<Event>) {
        if !self.approach.known.0.is_empty() {
            return ready(self.approach.known.clone());
        }
        self.command("CAPABILITY", out);
        (State::Capability, None)
    }

    /// The list in the reply that ends our command, or else the untagged one before it.
    fn newest(&mut self, text: &str) -> Option<Capabilities> {
        let listed = self.listed.take();
        coded_list(text).or(listed)
    }

    /// The fault for a refusal before the server has judged a bearer.
    fn refused(&mut self, reply: &Reply) -> Fault {
        match self.approach.refused(&no(reply)) {
            Fault::Refused(rejection) => Fault::Refused(Rejection { alerts: mem::take(&mut self.alerts), ..rejection }),
            fault => fault,
        }
    }

    /// Collects the text of `[ALERT]`, which must be shown to the person (RFC 3501 section 7.1), but not before TLS,
    /// when anybody may have sent it.
    fn alert(&self, reply: &Reply) -> Option<String> {
        let is_status = matches!(reply.word.as_str(), "OK" | "NO" | "BAD" | "BYE");
        let text = reply.text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (code, text) = text.filter(|_| is_status && self.approach.security != Security::StartTls)?;
        let is_alert = code.eq_ignore_ascii_case("ALERT") && self.alerts.len() < ALERTS;
        is_alert.then(|| quote(text)).filter(|text| !text.is_empty())
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

impl Dialogue for Imap {
    type Event = Event;

    fn want(&self) -> Want {
        match self.state {
            State::Handshake | State::Ready(_) | State::Over => Want::Nothing,
            State::Greeting | State::StartTls | State::Capability | State::Authenticating(_) => LINE,
        }
    }

    fn feed(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Option<Event> {
        let heard = self.allowance.hear(frame).and_then(|line| self.line(&line, out));
        if heard.is_err() {
            self.state = State::Over;
        }
        told(heard, &self.sent)
    }
}

impl Upstream for Imap {
    fn tls_started(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.approach.security = Security::Tls;
        self.listed = None;
        let event;
        (self.state, event) = self.recall(out);
        event
    }

    fn authenticate(&mut self, bearer: Bearer, out: &mut Vec<u8>) -> Result<(), Fault> {
        let State::Ready(list) = mem::replace(&mut self.state, State::Over) else { return Err(NOT_READY) };
        self.sent = sasl::redactor(&bearer);
        let exchange = BearerExchange::begin(&bearer, &mechanisms(&list))?;
        self.commands += 1;
        self.listed = None;
        let limit = if list.has("SASL-IR") { COMMAND_LIMIT } else { 0 };
        self.state = State::Authenticating(exchange.start(&format!("{} AUTHENTICATE", self.tag()), limit, out));
        Ok(())
    }
}

fn ready(list: Capabilities) -> (State, Option<Event>) {
    (State::Ready(list.clone()), Some(Event::Ready(list)))
}

/// NO concerns the token. BAD comes from a server that is out of step (Exchange under load), and BYE from one that
/// closes.
fn no<'a>(reply: &Reply<'a>) -> No<'a> {
    No::open(reply.text, if reply.word == "NO" { Verdict::Token } else { Verdict::Temporary })
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
