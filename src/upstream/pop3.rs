//! POP3 towards the provider: RFC 1939, CAPA of RFC 2449, STLS of RFC 2595, AUTH of RFC 5034.

use std::mem;

use super::dialogue::{Allowance, Approach, Event, LINE, NOT_READY, Upstream, capabilities, send, told};
use super::exchange::BearerExchange;
use super::rejection::{Fault, Verdict};
use super::verdict::{No, bracketed};
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Redactor, Want, sasl};

/// The state of the dialogue.
enum State {
    /// The server has not greeted us yet.
    Greeting,
    /// We have sent STLS.
    StartTls,
    /// The session does the TLS handshake.
    Handshake,
    /// We have sent CAPA.
    Capa,
    /// The server lists its capabilities, up to a dot.
    Listing(Vec<String>),
    /// The session has the capabilities and will provide a bearer.
    Ready(Capabilities),
    /// We have sent AUTH.
    Authenticating(BearerExchange),
    /// The dialogue is over: accepted, refused, or failed.
    Over,
}

/// The dialogue with a POP3 server.
pub struct Pop3 {
    approach: Approach,
    state: State,
    allowance: Allowance,
    /// Removes our secrets from what the server says.
    sent: Redactor,
}

/// A line of the server.
enum Reply<'a> {
    /// `+OK`.
    Ok,
    /// `-ERR` and its text.
    Err(&'a str),
    /// `+` and a challenge, which may be empty.
    Challenge,
    /// Anything else.
    Other,
}

impl<'a> Reply<'a> {
    /// Parses a line. `+OK` and `+ b64` begin with the same character, so the whole first word decides.
    fn parse(line: &'a str) -> Self {
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        match word.to_ascii_uppercase().as_str() {
            "+OK" => Self::Ok,
            "-ERR" => Self::Err(text),
            "+" => Self::Challenge,
            _ => Self::Other,
        }
    }
}

impl Pop3 {
    /// Waits for the greeting.
    pub fn new(approach: Approach) -> Self {
        Self { approach, state: State::Greeting, allowance: Allowance::default(), sent: Redactor::default() }
    }

    fn line(&mut self, line: &str, out: &mut Vec<u8>) -> Result<Option<Event>, Fault> {
        let state = mem::replace(&mut self.state, State::Over);
        let (state, event) = self.step(line, state, out)?;
        self.state = state;
        Ok(event)
    }

    fn step(&self, line: &str, state: State, out: &mut Vec<u8>) -> Result<(State, Option<Event>), Fault> {
        match (Reply::parse(line), state) {
            (_, State::Listing(list)) => Ok(listed(line, list)),
            (Reply::Ok, State::Greeting) => Ok(self.greeted(out)),
            (Reply::Err(text), State::Greeting) => Err(self.approach.refused(&No::open(text, Verdict::Temporary))),
            (Reply::Ok, State::StartTls) => Ok((State::Handshake, Some(Event::StartTls))),
            (Reply::Err(text), State::StartTls) if bracketed(text).eq_ignore_ascii_case("SYS/TEMP") => {
                Err(Fault::StartTlsLater)
            }
            (Reply::Err(_), State::StartTls) => Err(Fault::NoStartTls),
            (Reply::Ok, State::Capa) => Ok((State::Listing(Vec::new()), None)),
            (Reply::Err(_), State::Capa) => Ok(ready(Capabilities::default())),
            (Reply::Challenge, State::Authenticating(exchange)) => {
                Ok((State::Authenticating(exchange.challenged(out)?), None))
            }
            (Reply::Ok, State::Authenticating(exchange)) if exchange.is_sent() => {
                Ok((State::Over, Some(Event::Accepted(Acceptance::default()))))
            }
            (Reply::Err(text), State::Authenticating(exchange)) => {
                Ok((State::Over, Some(exchange.refused(No::open(text, Verdict::Token).judge()))))
            }
            _ => Err(Fault::Protocol("sent a line that answers nothing we said")),
        }
    }

    /// Sends STLS without asking whether it is offered: a refusal says the same, and the list has to be read again
    /// after it anyway.
    fn greeted(&self, out: &mut Vec<u8>) -> (State, Option<Event>) {
        match self.approach.security {
            Security::StartTls => {
                send(out, "STLS");
                (State::StartTls, None)
            }
            Security::Tls | Security::Clear if !self.approach.known.0.is_empty() => ready(self.approach.known.clone()),
            Security::Tls | Security::Clear => (ask(out), None),
        }
    }
}

impl Dialogue for Pop3 {
    type Event = Event;

    fn want(&self) -> Want {
        match self.state {
            State::Handshake | State::Ready(_) | State::Over => Want::Nothing,
            State::Greeting | State::StartTls | State::Capa | State::Listing(_) | State::Authenticating(_) => LINE,
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

impl Upstream for Pop3 {
    fn tls_started(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.approach.security = Security::Tls;
        let event;
        (self.state, event) = self.greeted(out);
        event
    }

    /// Never sends the message together with AUTH: the line would have to fit in 255 bytes (RFC 5034 section 4), and
    /// BearerExchange hangs up.
    fn authenticate(&mut self, bearer: Bearer, out: &mut Vec<u8>) -> Result<(), Fault> {
        let State::Ready(list) = mem::replace(&mut self.state, State::Over) else { return Err(NOT_READY) };
        self.sent = sasl::redactor(&bearer);
        let exchange = begin(&list, &bearer)?;
        self.state = State::Authenticating(exchange.start("AUTH", 0, out));
        Ok(())
    }
}

/// Chooses a mechanism. A server without CAPA says nothing about its mechanisms, so we try the best one. That costs at
/// most a round trip, because the token is sent only after the server has accepted the mechanism.
fn begin(list: &Capabilities, bearer: &Bearer) -> Result<BearerExchange, Fault> {
    match bearer.mechanisms.first() {
        Some(&best) if list.0.is_empty() => Ok(BearerExchange::with(best, bearer)),
        _ => BearerExchange::begin(bearer, &mechanisms(list)),
    }
}

/// The mechanisms of `SASL ...` (RFC 5034 section 6).
pub(super) fn mechanisms(list: &Capabilities) -> Vec<&str> {
    list.arguments("SASL").unwrap_or_default().split(' ').collect()
}

/// Reads a line of a list. A dot at its beginning is doubled (RFC 1939 section 3).
fn listed(line: &str, mut list: Vec<String>) -> (State, Option<Event>) {
    if line == "." {
        return ready(capabilities(list.iter().map(String::as_str)));
    }
    list.push(line.strip_prefix('.').unwrap_or(line).to_owned());
    (State::Listing(list), None)
}

fn ask(out: &mut Vec<u8>) -> State {
    send(out, "CAPA");
    State::Capa
}

fn ready(list: Capabilities) -> (State, Option<Event>) {
    (State::Ready(list.clone()), Some(Event::Ready(list)))
}
