//! The SASL exchange with a provider, the same in all three protocols: one message, and possibly an error challenge.

use zeroize::Zeroizing;

use super::rejection::{Fault, Rejection, Verdict};
use crate::protocol::Mechanism;
use crate::wire::{Bearer, printable, put_line, sasl};

/// The state of the exchange. It has no Debug, because it contains the token.
pub enum BearerExchange {
    /// The server knows the mechanism, but does not have the message yet.
    Begun(Mechanism, Zeroizing<String>),
    /// The server has the message. It accepts, refuses, or explains in an error challenge (RFC 7628 section 3.2.2).
    Sent(Mechanism),
    /// The error challenge is answered; only a refusal can follow.
    Answered,
}

impl BearerExchange {
    /// Chooses the best of the mechanisms that the server offers.
    pub fn begin(bearer: &Bearer, offered: &[&str]) -> Result<Self, Fault> {
        let offers = |mechanism: &Mechanism| offered.iter().any(|name| name.eq_ignore_ascii_case(mechanism.name()));
        match bearer.mechanisms.iter().copied().find(offers) {
            Some(mechanism) => Ok(Self::with(mechanism, bearer)),
            None => Err(Fault::NoMechanism(printable(&offered.join(" ")))),
        }
    }

    /// Uses this mechanism, whatever the server offers.
    pub fn with(mechanism: Mechanism, bearer: &Bearer) -> Self {
        Self::Begun(mechanism, sasl::bearer_message(mechanism, bearer))
    }

    /// Sends the command that starts the exchange, with the message if the line fits in `limit` bytes including its
    /// end.
    pub fn start(self, verb: &str, limit: usize, out: &mut Vec<u8>) -> Self {
        let Self::Begun(mechanism, message) = self else { return self };
        let command = format!("{verb} {}", mechanism.name());
        let whole = command.len() + " ".len() + message.len() + "\r\n".len();
        if whole > limit {
            put_line(out, &command);
            return Self::Begun(mechanism, message);
        }
        put_line(out, &Zeroizing::new(format!("{command} {}", message.as_str())));
        Self::Sent(mechanism)
    }

    /// Answers the server's challenge. One challenge too many ends the exchange, so that it cannot go on forever.
    pub fn challenged(self, out: &mut Vec<u8>) -> Result<Self, Fault> {
        match self {
            Self::Begun(mechanism, message) => {
                put_line(out, &message);
                Ok(Self::Sent(mechanism))
            }
            Self::Sent(mechanism) => {
                put_line(out, sasl::error_answer(mechanism));
                Ok(Self::Answered)
            }
            Self::Answered => Err(Fault::Protocol("sends another challenge after it has had its answer")),
        }
    }

    /// Handles a refusal. Before the server has the message, it cannot concern the token, so it concerns the mechanism.
    pub fn refused(&self, rejection: Rejection) -> Result<Rejection, Fault> {
        match (self, rejection.verdict) {
            (Self::Begun(..), Verdict::Token) => Err(Fault::NoMechanism(rejection.said)),
            _ => Ok(rejection),
        }
    }

    /// Whether the server has the message, so that an acceptance is credible.
    pub fn is_sent(&self) -> bool {
        !matches!(self, Self::Begun(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Token;

    #[test]
    fn the_message_is_sent_with_the_command_if_the_line_fits() {
        let token = Token::parse("tok-123").unwrap();
        let bearer = Bearer { user: "ann@example.test".into(), token, mechanisms: vec![Mechanism::XOAuth2] };
        let line = "AUTH XOAUTH2 dXNlcj1hbm5AZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHRvay0xMjMBAQ==\r\n";
        for (limit, sent, is_sent) in [(line.len(), line, true), (line.len() - 1, "AUTH XOAUTH2\r\n", false)] {
            let mut out = Vec::new();
            let exchange = BearerExchange::with(Mechanism::XOAuth2, &bearer).start("AUTH", limit, &mut out);
            assert_eq!((out.as_slice(), exchange.is_sent()), (sent.as_bytes(), is_sent));
        }
    }
}
