//! Requests to a token endpoint: those that the oauth2 crate makes, and those that it does not know (RFC 6749 section 4.5).

use oauth2::RequestTokenError;
use url::Url;
use url::form_urlencoded::Serializer;

use super::http::{FORM, Heard, ServerResponse};
use super::members::Members;
use super::outcome::{self, Denied};
use super::{Failure, Granted, Http, Registration, TemporaryCause};
use crate::clock::Moment;
use crate::token::TokenSet;

/// What a request of the oauth2 crate brought: tokens, where those of `before` stay good that it does not bring.
pub fn granted<T, E: oauth2::ErrorResponse>(
    heard: Result<T, RequestTokenError<Heard, E>>,
    now: Moment,
    before: Option<&TokenSet>,
) -> Result<Granted, Denied> {
    match heard {
        Err(RequestTokenError::Request(Heard(answer))) => {
            let members = outcome::given(answer.map_err(Failure::from)?)?;
            Ok(outcome::tokens(&members, now, before)?)
        }
        // The crate hears of no answer, so that it can say nothing about one.
        _ => Err(Failure::Temporary(TemporaryCause::Faulty, "the request could not be made".to_owned()).into()),
    }
}

/// Asks the token endpoint for tokens.
pub async fn ask(
    http: &Http,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<Granted, Denied> {
    let members = post(http, &registration.token_endpoint, registration, form, now).await?;
    Ok(outcome::tokens(&members, now, None)?)
}

/// Sends a form with the client's own parameters to an endpoint: the members of a good answer.
pub async fn post(
    http: &Http,
    endpoint: &Url,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<Members, Denied> {
    outcome::given(send(http, endpoint, registration, form, now).await?)
}

/// The same, and whatever comes back.
pub async fn send(
    http: &Http,
    endpoint: &Url,
    registration: &Registration,
    form: &[(&str, &str)],
    now: Moment,
) -> Result<ServerResponse, Failure> {
    let own = registration.parameters(now)?;
    let body = Serializer::new(String::new()).extend_pairs(form).extend_pairs(own).finish().into_bytes();
    Ok(http.post(endpoint, FORM, body).await?)
}
