//! The SASL exchange with a provider, the same in all three protocols: one message, and possibly an error challenge.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use zeroize::Zeroizing;

use super::rejection::{Fault, Rejection, Verdict};
use crate::protocol::Mechanism;
use crate::wire::{Bearer, Redactor, printable, put_line};

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
        Self::Begun(mechanism, bearer_message(mechanism, bearer))
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
                put_line(out, error_answer(mechanism));
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

/// The message of a mechanism in base64, ready to send.
pub fn bearer_message(mechanism: Mechanism, bearer: &Bearer) -> Zeroizing<String> {
    let token = bearer.token.expose();
    let message = Zeroizing::new(match mechanism {
        Mechanism::XOAuth2 => format!("user={}\x01auth=Bearer {token}\x01\x01", bearer.user),
        Mechanism::OAuthBearer => format!("n,a={},\x01auth=Bearer {token}\x01\x01", saslname(&bearer.user)),
    });
    Zeroizing::new(BASE64_STANDARD.encode(message.as_bytes()))
}

/// A redactor for the token, which a server may repeat in an error.
pub fn redactor(bearer: &Bearer) -> Redactor {
    let mut redactor = Redactor::default();
    redactor.know(bearer.token.expose());
    redactor
}

/// Our answer to the provider's error challenge, which the provider needs before it refuses (RFC 7628 section 3.2.3).
const fn error_answer(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::XOAuth2 => "",
        Mechanism::OAuthBearer => "AQ==",
    }
}

/// Escapes as in RFC 5801 section 4; `=` first, or it would be escaped twice.
fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Token;

    fn bearer(user: &str, token: &str) -> Bearer {
        Bearer { user: user.into(), token: Token::parse(token).unwrap(), mechanisms: vec![] }
    }

    #[test]
    fn bearer_messages_match_the_vectors() {
        let message = |mechanism, user, token| bearer_message(mechanism, &bearer(user, token)).to_string();
        assert_eq!(
            message(Mechanism::XOAuth2, "ann@example.test", "tok-123"),
            "dXNlcj1hbm5AZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHRvay0xMjMBAQ=="
        );
        assert_eq!(
            message(Mechanism::OAuthBearer, "ann@example.test", "tok-123"),
            "bixhPWFubkBleGFtcGxlLnRlc3QsAWF1dGg9QmVhcmVyIHRvay0xMjMBAQ=="
        );
        assert_eq!(
            message(Mechanism::OAuthBearer, "we,ird=name", "x"),
            "bixhPXdlPTJDaXJkPTNEbmFtZSwBYXV0aD1CZWFyZXIgeAEB"
        );
    }

    #[test]
    fn the_message_is_sent_with_the_command_if_the_line_fits() {
        let bearer = bearer("ann@example.test", "tok-123");
        let line = "AUTH XOAUTH2 dXNlcj1hbm5AZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHRvay0xMjMBAQ==\r\n";
        for (limit, sent, is_sent) in [(line.len(), line, true), (line.len() - 1, "AUTH XOAUTH2\r\n", false)] {
            let mut out = Vec::new();
            let exchange = BearerExchange::with(Mechanism::XOAuth2, &bearer).start("AUTH", limit, &mut out);
            assert_eq!((out.as_slice(), exchange.is_sent()), (sent.as_bytes(), is_sent));
        }
    }
}
