//! Requests to a token endpoint, and what their outcome means.

pub mod access_token;
pub mod authorization_code;
mod client_credentials;
pub mod device_code;
pub mod discovery;
mod errors;
mod extension;
pub mod grant;
mod http;
pub mod id_token;
pub mod identity;
mod jwt;
mod jwt_bearer;
mod keys;
mod password;
pub mod refresh;
mod registration;
#[cfg(not(fuzzing))]
mod response;
#[cfg(fuzzing)]
pub mod response;
pub mod revocation;
pub mod self_registration;
mod source;

use std::time::Duration;

use oauth2::RequestTokenError;
use tracing::debug;

use crate::wire::printable;
use errors::{Class, Meaning};
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
    /// An administrator at the provider has to allow or mend something.
    Forbidden(String),
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
            Self::Forbidden(_) => "forbidden",
            Self::Misconfigured(_) => "misconfigured",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Temporary(_, text) | Self::Ended(text) | Self::Forbidden(text) | Self::Misconfigured(text)) = self;
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

/// RFC 6749 section 5.2 and its extensions, by who has to act: a sentence for them, and then the server's own words.
fn classify(body: &ErrorBody) -> Failure {
    let Meaning { class, sentence } = body.meaning();
    debug!(correlation_id = body.correlation_id(), "the authorization server refuses");
    let text = format!("{sentence}; the authorization server says {}", body.words());
    match class {
        Class::Passes => Failure::Temporary(Trouble::Faulty, text),
        Class::BackOff(time) => Failure::Temporary(Trouble::Lasting(time), text),
        Class::Person | Class::Flow => Failure::Ended(text),
        Class::Administrator => Failure::Forbidden(text),
        Class::Configuration => Failure::Misconfigured(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(body: serde_json::Value) -> Failure {
        classify(&serde_json::from_value(body).unwrap())
    }

    #[test]
    fn who_has_to_act_depends_on_the_error() {
        let of = |error: &str| outcome(serde_json::json!({ "error": error, "error_description": "x" }));
        assert!(matches!(of("server_error"), Failure::Temporary(Trouble::Faulty, _)));
        assert!(matches!(of("slow_down"), Failure::Temporary(Trouble::Lasting(None), _)));
        assert!(matches!(of("expired_token"), Failure::Ended(_)));
        assert!(matches!(of("admin_policy_enforced"), Failure::Forbidden(_)));
        assert!(matches!(of("invalid_client"), Failure::Misconfigured(_)));
        let told =
            "the authorization is not valid any more: sign in again; the authorization server says invalid_grant (x)";
        assert_eq!(of("invalid_grant"), Failure::Ended(told.to_owned()));
    }

    #[test]
    fn a_loop_is_left_alone_for_minutes() {
        let looped = outcome(serde_json::json!({ "error": "invalid_grant", "error_codes": [50196] }));
        let Failure::Temporary(Trouble::Lasting(Some(time)), _) = looped else { panic!("{looped:?}") };
        assert!(time >= Duration::from_secs(300));
    }
}
