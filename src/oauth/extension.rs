//! Requests that the oauth2 crate does not know: extension grants (RFC 6749 section 4.5), and their dialects.

use serde::de::DeserializeOwned;
use url::Url;
use url::form_urlencoded::Serializer;

use super::response::{ErrorBody, TokenBody};
use super::{Failure, Http, Registration, Trouble, classify, trouble};
use crate::clock::Moment;

/// Why an endpoint has not given what was asked for.
pub enum Denied {
    /// It says so (RFC 6749 section 5.2).
    Said(Box<ErrorBody>),
    /// It was not asked, or nothing was heard of it that can be understood.
    Unsaid(Failure),
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Said(body) => classify(&body),
            Denied::Unsaid(failure) => failure,
        }
    }
}

/// Asks the token endpoint for tokens.
pub async fn ask(
    http: &Http,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<TokenBody, Denied> {
    post(http, &registration.token_endpoint, registration, form, now).await
}

/// Sends a form with the client's own parameters to an endpoint.
pub async fn post<T: DeserializeOwned>(
    http: &Http,
    endpoint: &Url,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<T, Denied> {
    let own = registration.parameters(now).map_err(Denied::Unsaid)?;
    let body = Serializer::new(String::new()).extend_pairs(form).extend_pairs(own).finish().into_bytes();
    let answer = http.post(endpoint, "application/x-www-form-urlencoded", body).await;
    let answer = answer.map_err(|error| Denied::Unsaid(Failure::Temporary(trouble(&error), error.to_string())))?;
    match answer.status().is_success() {
        true => parsed(answer.body()),
        false => Err(Denied::Said(parsed(answer.body())?)),
    }
}

/// The parser's own words are left out: they could quote the answer, and with it a token.
fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Denied> {
    let why = || "the authorization server's answer is no OAuth answer".to_owned();
    serde_json::from_slice(body).map_err(|_| Denied::Unsaid(Failure::Temporary(Trouble::Lost, why())))
}
