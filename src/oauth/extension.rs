//! Requests that the oauth2 crate does not know: extension grants (RFC 6749 section 4.5), and their dialects.

use oauth2::RequestTokenError;
use serde::de::DeserializeOwned;
use url::Url;
use url::form_urlencoded::Serializer;

use super::response::{ErrorBody, TokenBody};
use super::{Failure, Http, HttpError, Registration, failure};
use crate::clock::Moment;

/// Asks the token endpoint for tokens.
pub async fn ask(
    http: &Http,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<TokenBody, Failure> {
    post(http, &registration.token_endpoint, registration, form, now).await?.map_err(failure)
}

/// Sends a form with the client's own parameters to an endpoint. The outer error is one of ours: nothing was sent.
pub async fn post<T: DeserializeOwned>(
    http: &Http,
    endpoint: &Url,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<Result<T, RequestTokenError<HttpError, ErrorBody>>, Failure> {
    let body = Serializer::new(String::new()).extend_pairs(form).extend_pairs(registration.parameters(now)?).finish();
    let answer = http.post(endpoint, "application/x-www-form-urlencoded", body.into_bytes()).await;
    Ok(answer.map_err(RequestTokenError::Request).and_then(|answer| match answer.status().is_success() {
        true => parsed(answer.body()),
        false => Err(RequestTokenError::ServerResponse(parsed(answer.body())?)),
    }))
}

/// The parser's own words are left out: they could quote the answer, and with it a token.
fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, RequestTokenError<HttpError, ErrorBody>> {
    let unreadable = |_| RequestTokenError::Other("the authorization server's answer is no OAuth answer".to_owned());
    serde_json::from_slice(body).map_err(unreadable)
}
