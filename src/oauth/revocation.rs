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
    let revoke = async |token: &Token, kind| {
        let form = [("token", token.expose()), ("token_type_hint", kind)];
        let answer = request::send(http, registration, endpoint, &form, clock).await?;
        let is_done = (200..300).contains(&answer.status);
        match outcome::members(answer) {
            Ok(_) => Ok(()),
            // The body of a success has no meaning (section 2.2), and is mostly empty.
            Err(RequestError::Failed(_)) if is_done => Ok(()),
            Err(error) => Err(error.failure(RequestKind::Revocation, Some(registration))),
        }
    };
    let Some(refresh) = &tokens.refresh else { return revoke(&tokens.access, "access_token").await };
    revoke(refresh, "refresh_token").await?;
    // Without the refresh token it soon expires anyway, and not every server can revoke it.
    let _unsupported = revoke(&tokens.access, "access_token").await;
    Ok(())
}
