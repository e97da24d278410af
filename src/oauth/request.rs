//! Requests to an authorization server: forms that carry the client's authentication (RFC 6749 section 2.3).

use url::Url;
use url::form_urlencoded::Serializer;

use super::error_codes::RequestKind;
use super::http::{FORM, ServerResponse};
use super::members::Members;
use super::outcome::{self, RequestError};
use super::{Failure, Granted, Http, Registration};
use crate::clock::{Clock, Moment};
use crate::token::TokenSet;

/// Requests tokens from the token endpoint. `before` supplies the refresh token and scope that the answer leaves out.
pub async fn tokens(
    http: &Http,
    registration: &Registration,
    kind: RequestKind,
    form: &[(&str, &str)],
    before: Option<&TokenSet>,
    clock: &Clock,
) -> Result<Granted, Failure> {
    let answer = post(http, &registration.token_endpoint, registration, form, clock.now()).await;
    let granted = answer.and_then(|members| Ok(outcome::tokens(&members, clock.now(), before)?));
    granted.map_err(|error| error.failure(kind, Some(registration)))
}

/// Sends a form to an endpoint, and returns the members of a successful answer.
pub async fn post(
    http: &Http,
    endpoint: &Url,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<Members, RequestError> {
    outcome::members(send(http, endpoint, registration, form, now).await?)
}

/// Sends a form to an endpoint, and returns whatever it answers. A parameter without a value is left out (RFC 6749 section 3.2).
pub async fn send(
    http: &Http,
    endpoint: &Url,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<ServerResponse, Failure> {
    let form = form.iter().copied().chain([("client_id", &*registration.client_id)]);
    let body = Serializer::new(String::new())
        .extend_pairs(form.filter(|(_, value)| !value.is_empty()))
        .extend_pairs(registration.authentication(now)?)
        .finish();
    http.post(endpoint, FORM, body.into_bytes()).await
}
