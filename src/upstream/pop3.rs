//! POP3 before the login, seen from the client: RFC 1939, CAPA of RFC 2449, STLS of RFC 2595, AUTH of RFC 5034.

use super::dialogue::{Approach, Event, State, StepResult, Steps, accepted, capabilities, challenged, ready, rejected};
use super::exchange::BearerExchange;
use super::rejection::{Fault, Verdict};
use super::verdict::{RawRefusal, bracketed};
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, put_line};

#[derive(Default)]
pub struct Pop3 {
    /// The capabilities that have arrived so far; the list ends with a dot.
    listing: Option<Vec<String>>,
}

enum Reply<'a> {
    Ok,
    Err(&'a str),
    /// `+` and a challenge, which may be empty.
    Challenge,
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

impl Steps for Pop3 {
    fn line(&mut self, line: &str, state: State, approach: &mut Approach, out: &mut Vec<u8>) -> StepResult {
        if let Some(mut list) = self.listing.take() {
            if line == "." {
                return Ok(ready(capabilities(list.iter().map(String::as_str))));
            }
            // A dot at the beginning of a line is doubled (RFC 1939 section 3).
            list.push(line.strip_prefix('.').unwrap_or(line).to_owned());
            self.listing = Some(list);
            return Ok((state, None));
        }
        match (Reply::parse(line), state) {
            (Reply::Ok, State::Greeting) => Ok(greeted(approach, out)),
            (Reply::Err(text), State::Greeting) => Err(approach.refused(&RawRefusal::open(text, Verdict::Temporary))),
            (Reply::Ok, State::StartTls) => Ok((State::Handshake, Some(Event::StartTls))),
            (Reply::Err(text), State::StartTls) if bracketed(text).eq_ignore_ascii_case("SYS/TEMP") => {
                Err(Fault::StartTlsLater)
            }
            (Reply::Err(_), State::StartTls) => Err(Fault::NoStartTls),
            (Reply::Ok, state @ State::Capabilities) => {
                self.listing = Some(Vec::new());
                Ok((state, None))
            }
            (Reply::Err(_), State::Capabilities) => Ok(ready(Capabilities::default())),
            (Reply::Challenge, State::Authenticating(exchange)) => challenged(exchange, out),
            (Reply::Ok, State::Authenticating(exchange)) if exchange.is_sent() => accepted(Acceptance::default()),
            (Reply::Err(text), State::Authenticating(exchange)) => {
                rejected(&exchange, RawRefusal::open(text, Verdict::Token).judge())
            }
            _ => Err(Fault::Protocol("sent a line that answers nothing we sent")),
        }
    }

    fn tls_started(&mut self, approach: &Approach, out: &mut Vec<u8>) -> (State, Option<Event>) {
        greeted(approach, out)
    }

    /// Never sends the message together with AUTH: the line would have to fit in 255 bytes (RFC 5034 section 4), and
    /// Exchange hangs up.
    ///
    /// A server without CAPA says nothing about its mechanisms, so we try the best one. That costs at most a round
    /// trip, because the token is sent only after the server has accepted the mechanism.
    fn authenticate(
        &mut self,
        list: &Capabilities,
        bearer: &Bearer,
        out: &mut Vec<u8>,
    ) -> Result<BearerExchange, Fault> {
        let exchange = match bearer.mechanisms.first() {
            Some(&best) if list.0.is_empty() => BearerExchange::with(best, bearer),
            _ => BearerExchange::begin(bearer, &mechanisms(list))?,
        };
        Ok(exchange.start("AUTH", 0, out))
    }
}

/// Sends STLS without asking whether it is offered: a refusal says the same, and the list has to be read again after it
/// anyway.
fn greeted(approach: &Approach, out: &mut Vec<u8>) -> (State, Option<Event>) {
    if approach.security == Security::StartTls {
        put_line(out, "STLS");
        return (State::StartTls, None);
    }
    if !approach.known.0.is_empty() {
        return ready(approach.known.clone());
    }
    put_line(out, "CAPA");
    (State::Capabilities, None)
}

/// The mechanisms of `SASL ...` (RFC 5034 section 6).
pub(super) fn mechanisms(list: &Capabilities) -> Vec<&str> {
    list.arguments("SASL").unwrap_or_default().split(' ').collect()
}
