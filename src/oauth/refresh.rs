//! Refreshing an access token (RFC 6749 section 6).

use oauth2::{RefreshToken, Scope};

use super::authorization_code::Granted;
use super::{Failure, Http, Registration, failure};
use crate::clock::Clock;
use crate::secret::Token;

/// Exchanges a refresh token for a new token set, with one request: whether a second one is worth its risk is for the
/// caller to decide. With it comes whose it is, if the server tells.
pub async fn refresh(
    http: &Http,
    registration: &Registration,
    scope: &[String],
    token: &Token,
    clock: &Clock,
) -> Result<Granted, Failure> {
    let requests = registration.requests()?;
    let refresh_token = RefreshToken::new(token.expose().to_owned());
    let mut request = requests.exchange_refresh_token(&refresh_token).add_scopes(scope.iter().cloned().map(Scope::new));
    for (name, value) in registration.assertion(clock.now())? {
        request = request.add_extra_param(name, value);
    }
    let body = request.request_async(http).await.map_err(failure)?;
    let id_token = body.id_token().map(str::to_owned);
    Ok(Granted { tokens: body.into_token_set(clock.now(), Some(token.clone()))?, id_token, nonce: None })
}
