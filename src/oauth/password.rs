//! The resource owner password credentials grant (RFC 6749 section 4.3). RFC 9700 section 2.4 forbids it; a few servers have
//! nothing else.

use oauth2::{ResourceOwnerPassword, ResourceOwnerUsername, Scope};

use super::errors::RequestKind;
use super::extension::granted;
use super::{Failure, Http, Registration};
use crate::clock::Clock;
use crate::secret::Secret;
use crate::token::TokenSet;

/// Sends the mailbox's own password for a token set. Microsoft's first version of its endpoints asks for a resource.
pub async fn ask(
    http: &Http,
    registration: &Registration,
    scope: &[String],
    resource: Option<&str>,
    (user, password): (&str, Option<&Secret>),
    clock: &Clock,
) -> Result<TokenSet, Failure> {
    let missing = || Failure::Ended("the password of the mailbox is not kept with the account".to_owned());
    let password = std::str::from_utf8(password.ok_or_else(missing)?.expose())
        .map_err(|_| Failure::Ended("the password of the mailbox is not text".to_owned()))?;
    let (user, password) =
        (ResourceOwnerUsername::new(user.to_owned()), ResourceOwnerPassword::new(password.to_owned()));
    let requests = registration.requests()?;
    let mut request = requests.exchange_password(&user, &password).add_scopes(scope.iter().cloned().map(Scope::new));
    if let Some(resource) = resource {
        request = request.add_extra_param("resource", resource);
    }
    for (name, value) in registration.assertion(clock.now())? {
        request = request.add_extra_param(name, value);
    }
    let granted = granted(request.request_async(http).await, clock.now(), None);
    granted.map(|granted| granted.tokens).map_err(|denied| denied.failure(&registration.context(RequestKind::Password)))
}
