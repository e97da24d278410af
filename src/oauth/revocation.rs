//! Token revocation (RFC 7009).

use url::Url;

use super::error_codes::RequestKind;
use super::outcome::{self, RequestError};
use super::{Failure, Http, Registration, request};
use crate::clock::Clock;
use crate::secret::Token;
use crate::token::TokenSet;

/// Revokes a token set. The refresh token is first, because its revocation ends the whole authorization (section 2.1).
///
/// # Errors
///
/// The authorization is still valid.
pub async fn revoke(
    http: &Http,
    registration: &Registration,
    endpoint: &Url,
    tokens: &TokenSet,
    clock: &Clock,
) -> Result<(), Failure> {
    let revocation = Revocation { http, registration, endpoint, clock };
    let access = revocation.of(&tokens.access, "access_token");
    match &tokens.refresh {
        None => access.await,
        Some(refresh) => {
            revocation.of(refresh, "refresh_token").await?;
            // Without the refresh token it soon expires anyway, and not every server can revoke it.
            let _unsupported = access.await;
            Ok(())
        }
    }
}

struct Revocation<'a> {
    http: &'a Http,
    registration: &'a Registration,
    endpoint: &'a Url,
    clock: &'a Clock,
}

impl Revocation<'_> {
    async fn of(&self, token: &Token, kind: &str) -> Result<(), Failure> {
        let Self { http, registration, endpoint, clock } = self;
        let form = [("token", token.expose()), ("token_type_hint", kind)];
        let answer = request::send(http, endpoint, registration, &form, clock.now()).await?;
        let is_done = (200..300).contains(&answer.status);
        match outcome::members(answer) {
            Ok(_) => Ok(()),
            // The body of a success has no meaning (section 2.2), and mostly there is none.
            Err(RequestError::Failed(_)) if is_done => Ok(()),
            Err(error) => Err(error.failure(RequestKind::Revocation, Some(registration))),
        }
    }
}
