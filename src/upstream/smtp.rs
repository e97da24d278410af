//! SMTP submission towards the provider: RFC 5321, STARTTLS of RFC 3207, AUTH of RFC 4954.

use std::mem;

use super::dialogue::{Allowance, Approach, Event, LINE, NOT_READY, Upstream, capabilities, send, told};
use super::exchange::BearerExchange;
use super::rejection::Fault;
use super::verdict::No;
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, Dialogue, Frame, Redactor, Want, sasl};

/// The longest command line with its end, in bytes (RFC 5321 section 4.5.3.1.4). AUTH is no exception (RFC 4954 section
/// 4); only the answer to a challenge may be longer.
const COMMAND_LIMIT: usize = 512;

/// The state of the dialogue.
enum State {
    /// The server has not greeted us yet.
    Greeting,
    /// We have sent EHLO.
    Ehlo,
    /// We have sent STARTTLS.
    StartTls,
    /// The session does the TLS handshake.
    Handshake,
    /// The session has the capabilities and will provide a bearer.
    Ready(Capabilities),
    /// We have sent AUTH.
    Authenticating(BearerExchange),
    /// The dialogue is over: accepted, refused, or failed.
    Over,
}

/// The dialogue with an SMTP server.
pub struct Smtp {
    approach: Approach,
    state: State,
    /// The lines so far of a reply that is not complete.
    reply: Reply,
    allowance: Allowance,
    /// Removes our secrets from what the server says.
    sent: Redactor,
}

impl Smtp {
    /// Waits for the greeting.
    pub fn new(approach: Approach) -> Self {
        Self {
            approach,
            state: State::Greeting,
            reply: Reply::default(),
            allowance: Allowance::default(),
            sent: Redactor::default(),
        }
    }

    fn line(&mut self, line: &str, out: &mut Vec<u8>) -> Result<Option<Event>, Fault> {
        if !self.reply.add(line)? {
            return Ok(None);
        }
        let reply = mem::take(&mut self.reply);
        let state = mem::replace(&mut self.state, State::Over);
        let (state, event) = self.step(&reply, state, out)?;
        self.state = state;
        Ok(event)
    }

    fn step(&mut self, reply: &Reply, state: State, out: &mut Vec<u8>) -> Result<(State, Option<Event>), Fault> {
        match (reply.code, state) {
            (220, State::Greeting) => Ok((self.ehlo(out), None)),
            (250, State::Ehlo) => self.introduced(reply.keywords(), out),
            (220, State::StartTls) => Ok((State::Handshake, Some(Event::StartTls))),
            (400..=499, State::StartTls) => Err(Fault::StartTlsLater),
            (_, State::StartTls) => Err(Fault::NoStartTls),
            (500..=599, State::Ehlo) if self.approach.other_name.is_some() => Ok((self.ehlo_again(out), None)),
            (334, State::Authenticating(exchange)) if reply.lines.len() == 1 => {
                Ok((State::Authenticating(exchange.challenged(out)?), None))
            }
            (235, State::Authenticating(exchange)) if exchange.is_sent() => {
                Ok((State::Over, Some(Event::Accepted(Acceptance::default()))))
            }
            (400..=599, State::Authenticating(exchange)) => {
                Ok((State::Over, Some(exchange.refused(No::smtp(&reply.text()).judge()))))
            }
            (400..=599, _) => Err(self.approach.refused(&No::smtp(&reply.text()))),
            _ => Err(Fault::Protocol("sent a reply that answers nothing we said")),
        }
    }

    fn ehlo(&self, out: &mut Vec<u8>) -> State {
        send(out, &format!("EHLO {}", self.approach.client_name));
        State::Ehlo
    }

    /// Sends EHLO again with the other name, because some servers accept no address literals, and some no name without
    /// a dot.
    fn ehlo_again(&mut self, out: &mut Vec<u8>) -> State {
        self.approach.client_name = self.approach.other_name.take().unwrap_or_default();
        self.ehlo(out)
    }

    fn introduced(&self, keywords: Capabilities, out: &mut Vec<u8>) -> Result<(State, Option<Event>), Fault> {
        if self.approach.security != Security::StartTls {
            return Ok((State::Ready(keywords.clone()), Some(Event::Ready(keywords))));
        }
        if !keywords.has("STARTTLS") {
            return Err(Fault::NoStartTls);
        }
        send(out, "STARTTLS");
        Ok((State::StartTls, None))
    }
}

impl Dialogue for Smtp {
    type Event = Event;

    fn want(&self) -> Want {
        match self.state {
            State::Handshake | State::Ready(_) | State::Over => Want::Nothing,
            State::Greeting | State::Ehlo | State::StartTls | State::Authenticating(_) => LINE,
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

impl Upstream for Smtp {
    /// Always sends EHLO, because a server accepts no AUTH without it.
    fn tls_started(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.approach.security = Security::Tls;
        self.reply = Reply::default();
        self.state = self.ehlo(out);
        None
    }

    fn authenticate(&mut self, bearer: Bearer, out: &mut Vec<u8>) -> Result<(), Fault> {
        let State::Ready(keywords) = mem::replace(&mut self.state, State::Over) else { return Err(NOT_READY) };
        self.sent = sasl::redactor(&bearer);
        let exchange = BearerExchange::begin(&bearer, &mechanisms(&keywords))?;
        self.state = State::Authenticating(exchange.start("AUTH", COMMAND_LIMIT, out));
        Ok(())
    }
}

/// The mechanisms offered by `AUTH ...`, and by the pre-standard `AUTH=...`, which some servers also send.
pub(super) fn mechanisms(keywords: &Capabilities) -> Vec<&str> {
    let split = keywords.0.iter().filter_map(|entry| entry.split_once([' ', '=']));
    split.filter(|(name, _)| name.eq_ignore_ascii_case("AUTH")).flat_map(|(_, names)| names.split(' ')).collect()
}

/// A reply, line by line (RFC 5321 section 4.2.1).
#[derive(Default)]
struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Reply {
    /// Adds the next line. Returns whether it was the last.
    fn add(&mut self, line: &str) -> Result<bool, Fault> {
        let (code, rest) = line.split_at_checked(3).unwrap_or((line, ""));
        let code = code.parse().ok().filter(|code| (200..600).contains(code));
        let code = code.ok_or(Fault::Protocol("sent a line that is not an SMTP reply"))?;
        if !self.lines.is_empty() && code != self.code {
            return Err(Fault::Protocol("changed the code in the middle of a reply"));
        }
        let (last, text) = match rest.split_at_checked(1) {
            None => (true, ""),
            Some((" ", text)) => (true, text),
            Some(("-", text)) => (false, text),
            Some(_) => return Err(Fault::Protocol("sent a line that is not an SMTP reply")),
        };
        self.code = code;
        self.lines.push(text.to_owned());
        Ok(last)
    }

    /// The lines of a reply to EHLO without the first, which is the server's name.
    fn keywords(&self) -> Capabilities {
        capabilities(self.lines.iter().skip(1).map(String::as_str))
    }

    fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join(" "))
    }
}
