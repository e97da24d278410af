//! Requests to an authorization server: forms that carry the client's authentication (RFC 6749 section 2.3).

use url::Url;
use url::form_urlencoded::Serializer;

use super::http::{FORM, ServerResponse};
use super::outcome::{self, Granted, RequestError};
use super::{Failure, Http, Registration};
use crate::clock::Clock;
use crate::token::TokenSet;

/// Requests tokens from the token endpoint. `before` supplies the refresh token and scope that the answer leaves out.
pub async fn tokens(
    http: &Http,
    registration: &Registration,
    form: &[(&str, &str)],
    before: Option<&TokenSet>,
    clock: &Clock,
) -> Result<Granted, RequestError> {
    let answer = send(http, registration, &registration.token_endpoint, form, clock).await?;
    outcome::tokens(answer, clock.now(), before)
}

/// Sends a form to an endpoint. A parameter without a value is left out (RFC 6749 section 3.2).
pub async fn send(
    http: &Http,
    registration: &Registration,
    endpoint: &Url,
    form: &[(&str, &str)],
    clock: &Clock,
) -> Result<ServerResponse, Failure> {
    let form = form.iter().copied().chain([("client_id", &*registration.client_id)]);
    let body = Serializer::new(String::new())
        .extend_pairs(form.filter(|(_, value)| !value.is_empty()))
        .extend_pairs(registration.authentication(clock.now())?)
        .finish();
    http.post(endpoint, FORM, body.into_bytes()).await
}
