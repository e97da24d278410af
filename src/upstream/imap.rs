//! IMAP towards the provider: RFC 3501, with the initial response of RFC 4959.

use std::mem;

use super::exchange::Exchange;
use super::verdict::{bracketed, judge};
use super::{Allowance, Approach, Event, Fault, LINE, NOT_READY, Rejection, Upstream, Verdict, capabilities, send};
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Want};

/// Longest command line with its end, in bytes (RFC 7162 section 4).
const COMMAND_LIMIT: usize = 8192;

/// How far we have come.
enum State {
    /// The server has not greeted us yet.
    Greeting,
    /// We have said STARTTLS.
    StartTls,
    /// The session does the TLS handshake.
    Handshake,
    /// We have said CAPABILITY.
    Capability,
    /// The session knows what the server can do, and has a bearer to bring.
    Ready(Capabilities),
    /// We have said AUTHENTICATE.
    Authenticating(Exchange),
    /// Nothing more is to be said here: we are in, out, or at odds.
    Over,
}

/// The dialogue with an IMAP server.
pub struct Imap {
    approach: Approach,
    state: State,
    /// How many commands we have sent; the last one's tag has this number.
    commands: u32,
    /// The untagged list of capabilities that came since our last command.
    listed: Option<Capabilities>,
    allowance: Allowance,
}

/// Whom a line of the server speaks to.
#[derive(Clone, Copy)]
enum Kind {
    /// `*`: to nobody.
    Untagged,
    /// `+`: to a command that is not finished.
    Challenge,
    /// Our tag: to the command, whose end this is.
    Tagged,
}

/// A line of the server.
struct Reply<'a> {
    kind: Kind,
    /// Its first word, upper case.
    word: String,
    /// What follows.
    text: &'a str,
}

impl<'a> Reply<'a> {
    fn parse(line: &'a str, tag: &str) -> Result<Self, Fault> {
        let (start, rest) = line.split_once(' ').unwrap_or((line, ""));
        let kind = match start {
            "*" => Kind::Untagged,
            "+" => Kind::Challenge,
            start if start == tag => Kind::Tagged,
            _ => return Err(Fault::Protocol("sent a line that answers nothing we said")),
        };
        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(Self { kind, word: word.to_ascii_uppercase(), text })
    }
}

impl Imap {
    /// Waits for the greeting.
    pub fn new(approach: Approach) -> Self {
        Self { approach, state: State::Greeting, commands: 0, listed: None, allowance: Allowance::default() }
    }

    /// A tag of our own, never the client's: its tags come into use when the relay begins.
    fn tag(&self) -> String {
        format!("P{}", self.commands)
    }

    fn command(&mut self, command: &str, out: &mut Vec<u8>) {
        self.commands += 1;
        send(out, &format!("{} {command}", self.tag()));
    }

    fn line(&mut self, line: &str, out: &mut Vec<u8>) -> Result<Option<Event>, Fault> {
        let reply = Reply::parse(line, &self.tag())?;
        let state = mem::replace(&mut self.state, State::Over);
        let (state, event) = self.step(&reply, state, out)?;
        self.state = state;
        Ok(event)
    }

    fn step(&mut self, reply: &Reply, state: State, out: &mut Vec<u8>) -> Result<(State, Option<Event>), Fault> {
        match (reply.kind, reply.word.as_str(), state) {
            (Kind::Untagged, "BYE", _) => Err(Fault::Busy(self.approach.quote(reply.text))),
            (Kind::Untagged, "OK", State::Greeting) => self.greeted(coded_list(reply.text), out),
            (Kind::Untagged, "PREAUTH", State::Greeting) => Err(Fault::PreAuth),
            (_, _, State::Greeting) => Err(Fault::Protocol("did not greet as an IMAP server does")),
            (Kind::Untagged, _, state) => self.untagged(reply).map(|()| (state, None)),
            (Kind::Tagged, "OK", State::StartTls) => Ok((State::Handshake, Some(Event::StartTls))),
            (Kind::Tagged, _, State::StartTls) => Err(Fault::NoStartTls),
            (Kind::Tagged, "OK", State::Capability) => {
                self.newest(reply.text).map(ready).ok_or(Fault::Protocol("did not say what it can do"))
            }
            (Kind::Challenge, _, State::Authenticating(exchange)) => {
                Ok((State::Authenticating(exchange.challenged(out)?), None))
            }
            (Kind::Tagged, "OK", State::Authenticating(exchange)) if exchange.is_sent() => {
                let capabilities = self.newest(reply.text);
                Ok((State::Over, Some(Event::Accepted(Acceptance { capabilities }))))
            }
            (Kind::Tagged, "NO" | "BAD", State::Authenticating(exchange)) => {
                Ok((State::Over, Some(exchange.refused(rejection(reply)))))
            }
            _ => Err(Fault::Protocol("sent a line that answers nothing we said")),
        }
    }

    /// The greeting may list the capabilities, which spares a question. STARTTLS needs no question either: without a list
    /// it is simply said, since whoever has it not refuses it.
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

    /// Goes by what is known of the server, or else asks.
    fn recall(&mut self, out: &mut Vec<u8>) -> (State, Option<Event>) {
        if !self.approach.known.0.is_empty() {
            return ready(self.approach.known.clone());
        }
        self.command("CAPABILITY", out);
        (State::Capability, None)
    }

    /// The list in our command's end, else the untagged one that came before it.
    fn newest(&mut self, text: &str) -> Option<Capabilities> {
        let listed = self.listed.take();
        coded_list(text).or(listed)
    }

    /// Keeps a list of capabilities, reads past everything else. Nothing that a server has to say before login is a
    /// literal; reading on after one would take its bytes for replies.
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
        heard.unwrap_or_else(|fault| {
            self.state = State::Over;
            Some(Event::Unexpected(fault))
        })
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
        let exchange = Exchange::begin(&bearer, &mechanisms(&list))?;
        self.commands += 1;
        let limit = if list.has("SASL-IR") { COMMAND_LIMIT } else { 0 };
        self.state = State::Authenticating(exchange.start(&format!("{} AUTHENTICATE", self.tag()), limit, out));
        Ok(())
    }
}

fn ready(list: Capabilities) -> (State, Option<Event>) {
    (State::Ready(list.clone()), Some(Event::Ready(list)))
}

/// BAD is a server that is out of step (Exchange under load), NO is about the token.
fn rejection(reply: &Reply) -> Rejection {
    let otherwise = if reply.word == "NO" { Verdict::Token } else { Verdict::Temporary };
    judge(bracketed(reply.text), reply.text, otherwise)
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

/// The mechanisms, each in an entry of its own: `AUTH=XOAUTH2`.
fn mechanisms(list: &Capabilities) -> Vec<&str> {
    let split = list.0.iter().filter_map(|entry| entry.split_once('='));
    split.filter(|(name, _)| name.eq_ignore_ascii_case("AUTH")).map(|(_, name)| name).collect()
}
