//! The client credentials grant (RFC 6749 section 4.4): the client itself has been let into mailboxes.

use oauth2::Scope;

use super::errors::RequestKind;
use super::extension::granted;
use super::{Failure, Http, Registration};
use crate::clock::Clock;
use crate::token::TokenSet;

/// Asks for a token set. It brings no refresh token: one asks again.
pub async fn ask(
    http: &Http,
    registration: &Registration,
    scope: &[String],
    clock: &Clock,
) -> Result<TokenSet, Failure> {
    let requests = registration.requests()?;
    let mut request = requests.exchange_client_credentials().add_scopes(scope.iter().cloned().map(Scope::new));
    for (name, value) in registration.assertion(clock.now())? {
        request = request.add_extra_param(name, value);
    }
    let granted = granted(request.request_async(http).await, clock.now(), None);
    granted.map(|granted| granted.tokens).map_err(|denied| denied.failure(&registration.context(RequestKind::Client)))
}
