//! POP3 towards the provider: RFC 1939, CAPA of RFC 2449, STLS of RFC 2595, AUTH of RFC 5034.

use std::mem;

use super::exchange::Exchange;
use super::verdict::{bracketed, judge};
use super::{Allowance, Approach, Event, Fault, LINE, NOT_READY, Upstream, Verdict, capabilities, send};
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Want};

/// How far we have come.
enum State {
    /// The server has not greeted us yet.
    Greeting,
    /// We have said STLS.
    StartTls,
    /// The session does the TLS handshake.
    Handshake,
    /// We have said CAPA.
    Capa,
    /// The server lists what it can do; the list ends with a dot.
    Listing(Vec<String>),
    /// The session knows what the server can do, and has a bearer to bring.
    Ready(Capabilities),
    /// We have said AUTH.
    Authenticating(Exchange),
    /// Nothing more is to be said here: we are in, out, or at odds.
    Over,
}

/// The dialogue with a POP3 server.
pub struct Pop3 {
    approach: Approach,
    state: State,
    allowance: Allowance,
}

/// A line of the server.
enum Reply<'a> {
    /// `+OK`.
    Ok,
    /// `-ERR` and why.
    Err(&'a str),
    /// `+` and a challenge, which may be empty.
    Challenge,
    /// Anything else.
    Other,
}

impl<'a> Reply<'a> {
    /// `+OK` and `+ b64` begin alike: only the whole first word tells them apart.
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
        Self { approach, state: State::Greeting, allowance: Allowance::default() }
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
            (Reply::Err(text), State::Greeting) => Err(Fault::Busy(self.approach.quote(text))),
            (Reply::Ok, State::StartTls) => Ok((State::Handshake, Some(Event::StartTls))),
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
                Ok((State::Over, Some(exchange.refused(judge(bracketed(text), text, Verdict::Token)))))
            }
            _ => Err(Fault::Protocol("sent a line that answers nothing we said")),
        }
    }

    /// STLS without asking whether it is offered: a refusal says as much, and the list would be asked for again anyway.
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
        heard.unwrap_or_else(|fault| {
            self.state = State::Over;
            Some(Event::Unexpected(fault))
        })
    }
}

impl Upstream for Pop3 {
    fn tls_started(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.approach.security = Security::Tls;
        let event;
        (self.state, event) = self.greeted(out);
        event
    }

    /// The message is never sent along with AUTH: with it the line would have to fit in 255 bytes (RFC 5034 section 4),
    /// and Exchange hangs up.
    fn authenticate(&mut self, bearer: Bearer, out: &mut Vec<u8>) -> Result<(), Fault> {
        let State::Ready(list) = mem::replace(&mut self.state, State::Over) else { return Err(NOT_READY) };
        let exchange = begin(&list, &bearer)?;
        self.state = State::Authenticating(exchange.start("AUTH", 0, out));
        Ok(())
    }
}

/// A server that knows no CAPA has told nothing about its mechanisms. So the best one is tried; it costs a round trip at
/// most, for the token is not sent before the server has agreed to the mechanism.
fn begin(list: &Capabilities, bearer: &Bearer) -> Result<Exchange, Fault> {
    match bearer.mechanisms.first() {
        Some(&best) if list.0.is_empty() => Ok(Exchange::with(best, bearer)),
        _ => Exchange::begin(bearer, &list.arguments("SASL").unwrap_or_default().split(' ').collect::<Vec<_>>()),
    }
}

/// Takes one line of a list. Its own dots at the beginning are doubled (RFC 1939 section 3).
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
