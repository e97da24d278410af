//! Requests to a token endpoint, and what their outcome means.

pub mod authorization_code;
mod client_credentials;
pub mod device_code;
mod extension;
pub mod grant;
mod http;
pub mod identity;
mod jwt;
mod jwt_bearer;
mod password;
pub mod refresh;
mod registration;
mod response;
mod source;

use std::time::Duration;

use oauth2::RequestTokenError;

use crate::wire::printable;
use http::HttpError;
pub use http::{Http, HttpSetupError};
pub use registration::{Proof, Registration};
use response::ErrorBody;

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something that passes by itself.
    Temporary(Trouble, String),
    /// The authorization has ended: a person has to give it anew.
    Ended(String),
    /// The client registration or a setting is wrong: whoever set postkey up has to act.
    Misconfigured(String),
}

/// What passes by itself, by what can be done meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server was not reached, so that asking again costs it nothing.
    Unreachable,
    /// The request was sent and its answer did not come: nobody knows whether the server has acted on it.
    Lost,
    /// The server has a trouble of its own, which may be a short one.
    Faulty,
    /// Asking again soon is in vain: somebody else answers, or the server wants to be left alone, for so long if it said.
    Lasting(Option<Duration>),
}

impl Failure {
    /// Its kind, in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Temporary(..) => "temporary",
            Self::Ended(_) => "ended",
            Self::Misconfigured(_) => "misconfigured",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Temporary(_, text) | Self::Ended(text) | Self::Misconfigured(text)) = self;
        f.write_str(text)
    }
}

/// What a failed request means. Nothing is decided on HTTP's 400 alone, and an answer that is no OAuth error (a captive
/// portal, a proxy's error page) always passes.
fn failure(error: RequestTokenError<HttpError, ErrorBody>) -> Failure {
    match error {
        RequestTokenError::ServerResponse(body) => classify(&body),
        RequestTokenError::Request(error) => Failure::Temporary(trouble(&error), error.to_string()),
        // The parser's own words could quote the answer, and with it a token.
        RequestTokenError::Parse(..) => {
            Failure::Temporary(Trouble::Lost, "the authorization server's answer is no token response".to_owned())
        }
        RequestTokenError::Other(text) => Failure::Temporary(Trouble::Faulty, printable(&text)),
    }
}

fn trouble(error: &HttpError) -> Trouble {
    match error {
        HttpError::Network(_) => Trouble::Unreachable,
        HttpError::Lost(_) => Trouble::Lost,
        HttpError::Status(408 | 425 | 500.., None) => Trouble::Faulty,
        HttpError::Status(_, after) => Trouble::Lasting(*after),
        HttpError::NotJson(_) | HttpError::TooLarge => Trouble::Lasting(None),
    }
}

/// RFC 6749 section 5.2 and its extensions, by who has to act.
fn classify(body: &ErrorBody) -> Failure {
    let text = format!("the authorization server says {}", body.words());
    match body.error.as_str() {
        "temporarily_unavailable" | "server_error" => Failure::Temporary(Trouble::Faulty, text),
        "slow_down" => Failure::Temporary(Trouble::Lasting(None), text),
        "invalid_grant" | "interaction_required" | "consent_required" | "login_required" | "access_denied" => {
            Failure::Ended(text)
        }
        _ => Failure::Misconfigured(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(error: &str) -> Failure {
        classify(&serde_json::from_value(serde_json::json!({ "error": error, "error_description": "x" })).unwrap())
    }

    #[test]
    fn who_has_to_act_depends_on_the_error() {
        assert!(matches!(outcome("server_error"), Failure::Temporary(Trouble::Faulty, _)));
        assert!(matches!(outcome("invalid_grant"), Failure::Ended(_)));
        assert!(matches!(outcome("invalid_client"), Failure::Misconfigured(_)));
        assert_eq!(outcome("invalid_grant").to_string(), "the authorization server says invalid_grant (x)");
    }
}
