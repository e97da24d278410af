//! The resource owner password credentials grant (RFC 6749 section 4.3). RFC 9700 section 2.4 forbids it; a few servers have
//! nothing else.

use oauth2::{ResourceOwnerPassword, ResourceOwnerUsername, Scope};

use super::grant::Ask;
use super::{Failure, Http, Registration, failure};
use crate::clock::Clock;
use crate::token::TokenSet;

/// Sends the mailbox's own password for a token set.
pub async fn ask(http: &Http, registration: &Registration, ask: &Ask<'_>, clock: &Clock) -> Result<TokenSet, Failure> {
    let missing = || Failure::Ended("the password of the mailbox is not kept with the account".to_owned());
    let password = ask.password.ok_or_else(missing)?;
    let password = std::str::from_utf8(password.expose())
        .map_err(|_| Failure::Ended("the password of the mailbox is not text".to_owned()))?;
    let (user, password) =
        (ResourceOwnerUsername::new(ask.user.to_owned()), ResourceOwnerPassword::new(password.to_owned()));
    let requests = registration.requests()?;
    let mut request =
        requests.exchange_password(&user, &password).add_scopes(ask.scope.iter().cloned().map(Scope::new));
    // Microsoft's first version of its endpoints asks for a resource.
    if let Some(resource) = &ask.provider.resource {
        request = request.add_extra_param("resource", resource);
    }
    for (name, value) in registration.assertion(clock.now())? {
        request = request.add_extra_param(name, value);
    }
    request.request_async(http).await.map_err(failure)?.into_token_set(clock.now(), None)
}
