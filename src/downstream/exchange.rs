//! The server's half of SASL PLAIN (RFC 4616) and of LOGIN, the same in all protocols.

use zeroize::Zeroizing;

use super::sasl::{self, PASSWORD_PROMPT, SaslFailure, USERNAME_PROMPT};
use crate::wire::{Credentials, Frame, split_word};

/// An exchange that waits for the client's next line.
pub enum Exchange {
    /// PLAIN: everything comes in one message.
    Plain,
    /// LOGIN: the user name comes first.
    User,
    /// LOGIN: the password for this user name comes next.
    Password(Zeroizing<Vec<u8>>),
}

pub enum Step {
    /// Ask the client with [`Exchange::prompt`].
    Ask(Exchange),
    Login(Credentials),
}

/// Reads a user name and a password that were sent as they are.
pub fn login(user: &[u8], password: &[u8]) -> Result<Step, SaslFailure> {
    Credentials::parse(user, password).map(Step::Login).ok_or(SaslFailure::Credentials)
}

impl Exchange {
    /// Reads what follows AUTH or AUTHENTICATE: a mechanism, and perhaps an initial response (RFC 4959).
    ///
    /// LOGIN's initial response is the user name. Several programs send it, although no specification defines it.
    pub fn begin(arguments: &[u8]) -> Result<Step, SaslFailure> {
        let (mechanism, initial) = split_word(arguments.trim_ascii());
        let exchange = match mechanism.to_ascii_uppercase().as_slice() {
            b"PLAIN" => Self::Plain,
            b"LOGIN" => Self::User,
            b"" => return Err(SaslFailure::Malformed),
            _ => return Err(SaslFailure::Mechanism),
        };
        if initial.is_empty() { Ok(Step::Ask(exchange)) } else { exchange.answer(initial) }
    }

    /// The prompt before the next line, in base64.
    pub const fn prompt(&self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::User => USERNAME_PROMPT,
            Self::Password(_) => PASSWORD_PROMPT,
        }
    }

    /// Handles the client's next line, of at most [`sasl::LINE_LIMIT`] bytes.
    pub fn take(self, frame: Frame<'_>) -> Result<Step, SaslFailure> {
        match frame {
            Frame::Line(line) => self.answer(line),
            Frame::Overlong(_) | Frame::Literal(_) => Err(SaslFailure::TooLong),
        }
    }

    fn answer(self, line: &[u8]) -> Result<Step, SaslFailure> {
        let line = line.trim_ascii();
        if line == b"*" {
            return Err(SaslFailure::Cancelled);
        }
        let message = sasl::decode(line)?;
        match self {
            Self::Plain => Ok(Step::Login(sasl::plain(&message)?)),
            Self::User => Ok(Step::Ask(Self::Password(message))),
            Self::Password(user) => login(&user, &message),
        }
    }
}
