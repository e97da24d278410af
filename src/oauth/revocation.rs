//! Token revocation (RFC 7009): tokens that nobody needs any more open nothing.

use url::{Url, form_urlencoded};

use super::http::HttpError;
use super::{ErrorBody, Failure, Http, Registration, classify, trouble};
use crate::clock::Clock;
use crate::secret::Token;
use crate::token::TokenSet;

/// Revokes a token set: the refresh token first, with which a server ends the whole authorization (RFC 7009 section 2.1).
///
/// # Errors
///
/// Why the authorization still stands.
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
            // Without the other it dies by itself, if it is not dead by now; not every server knows how to revoke it.
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
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token.expose())
            .append_pair("token_type_hint", kind)
            .extend_pairs(self.registration.parameters(self.clock.now())?)
            .finish()
            .into_bytes();
        match self.http.post(self.endpoint, "application/x-www-form-urlencoded", form).await {
            // The body of a yes has no meaning (section 2.2), and mostly there is none.
            Err(HttpError::NotJson(200)) => Ok(()),
            Ok(answer) if answer.status() == 200 => Ok(()),
            Ok(answer) => Err(match serde_json::from_slice::<ErrorBody>(answer.body()) {
                Ok(body) => classify(&body),
                Err(_) => failure(&HttpError::NotJson(answer.status().as_u16())),
            }),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn failure(error: &HttpError) -> Failure {
    Failure::Temporary(trouble(error), error.to_string())
}
