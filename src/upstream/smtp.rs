//! SMTP submission before the login, seen from the client: RFC 5321, STARTTLS of RFC 3207, AUTH of RFC 4954.

use super::dialogue::{Approach, Event, State, StepResult, Steps, accepted, capabilities, challenged, ready, rejected};
use super::exchange::BearerExchange;
use super::rejection::Fault;
use super::verdict::RawRefusal;
use crate::protocol::Security;
use crate::wire::{Acceptance, Bearer, Capabilities, put_line};

/// The longest command line with its end, in bytes (RFC 5321 section 4.5.3.1.4). AUTH is no exception (RFC 4954 section
/// 4); only the answer to a challenge may be longer.
const COMMAND_LIMIT: usize = 512;

#[derive(Default)]
pub struct Smtp {
    /// The lines so far of a reply that is not complete.
    reply: Reply,
}

impl Steps for Smtp {
    fn line(&mut self, line: &str, state: State, approach: &mut Approach, out: &mut Vec<u8>) -> StepResult {
        if !self.reply.add(line)? {
            return Ok((state, None));
        }
        let reply = std::mem::take(&mut self.reply);
        match (reply.code, state) {
            (220, State::Greeting) => Ok(ehlo(approach, out)),
            (250, State::Capabilities) => introduced(reply.keywords(), approach, out),
            (220, State::StartTls) => Ok((State::Handshake, Some(Event::StartTls))),
            (400..=499, State::StartTls) => Err(Fault::StartTlsLater),
            (_, State::StartTls) => Err(Fault::NoStartTls),
            // Some servers accept no address literals, and some no name without a dot.
            (500..=599, State::Capabilities) if let Some(name) = approach.other_name.take() => {
                approach.client_name = name;
                Ok(ehlo(approach, out))
            }
            (334, State::Authenticating(exchange)) if reply.lines.len() == 1 => challenged(exchange, out),
            (235, State::Authenticating(exchange)) if exchange.is_sent() => accepted(Acceptance::default()),
            (400..=599, State::Authenticating(exchange)) => {
                rejected(&exchange, RawRefusal::smtp(&reply.text()).judge())
            }
            (400..=599, _) => Err(approach.refused(&RawRefusal::smtp(&reply.text()))),
            _ => Err(Fault::Protocol("sent a reply that answers nothing we sent")),
        }
    }

    /// Always sends EHLO, because a server accepts no AUTH without it.
    fn tls_started(&mut self, approach: &Approach, out: &mut Vec<u8>) -> (State, Option<Event>) {
        ehlo(approach, out)
    }

    fn authenticate(
        &mut self,
        list: &Capabilities,
        bearer: &Bearer,
        out: &mut Vec<u8>,
    ) -> Result<BearerExchange, Fault> {
        Ok(BearerExchange::begin(bearer, &mechanisms(list))?.start("AUTH", COMMAND_LIMIT, out))
    }
}

fn ehlo(approach: &Approach, out: &mut Vec<u8>) -> (State, Option<Event>) {
    put_line(out, &format!("EHLO {}", approach.client_name));
    (State::Capabilities, None)
}

fn introduced(keywords: Capabilities, approach: &Approach, out: &mut Vec<u8>) -> StepResult {
    match approach.security {
        Security::StartTls if !keywords.has("STARTTLS") => Err(Fault::NoStartTls),
        Security::StartTls => {
            put_line(out, "STARTTLS");
            Ok((State::StartTls, None))
        }
        Security::Tls | Security::Clear => Ok(ready(keywords)),
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
