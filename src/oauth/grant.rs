//! New tokens for an account, whatever its grant, as far as that needs no person.

use super::refresh::refresh;
use super::{Failure, Http, Registration, client_credentials, jwt_bearer, password};
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::config::provider::Provider;
use crate::secret::Secret;
use crate::token::TokenSet;

/// What an account asks for, and how.
pub struct GrantRequest<'a> {
    /// How it gets its tokens.
    pub flow: Flow,
    /// Where.
    pub provider: &'a Provider,
    /// What they shall be good for.
    pub scope: &'a [String],
    /// The mailbox at the provider.
    pub user: &'a str,
    /// The mailbox's own password, where the grant sends it.
    pub password: Option<&'a Secret>,
}

impl GrantRequest<'_> {
    /// Gets a new token set: by the refresh token where there is one, and else by asking again, where the grant needs no
    /// person for it.
    pub async fn renew(
        &self,
        http: &Http,
        registration: &Registration,
        before: Option<&TokenSet>,
        clock: &Clock,
    ) -> Result<TokenSet, Failure> {
        let Some(token) = before.and_then(|tokens| tokens.refresh.as_ref()) else {
            return self.anew(http, registration, clock).await;
        };
        match refresh(http, registration, self.refresh_scope(), token, before, clock).await {
            // The refresh token has ended, and not the password.
            Err(Failure::Ended(_)) if self.flow == Flow::Password => self.anew(http, registration, clock).await,
            refreshed => refreshed.map(|granted| granted.tokens),
        }
    }

    /// What a refresh asks for: nothing, which is what was granted, unless the provider wants to be asked.
    fn refresh_scope(&self) -> &[String] {
        if self.provider.refresh_scope { self.scope } else { &[] }
    }

    /// Gets a token set without a refresh token.
    async fn anew(&self, http: &Http, registration: &Registration, clock: &Clock) -> Result<TokenSet, Failure> {
        let Self { flow, provider, scope, user, password } = *self;
        match flow {
            Flow::ClientCredentials => client_credentials::ask(http, registration, scope, clock).await,
            Flow::JwtBearer => jwt_bearer::ask(http, registration, provider, (user, scope), clock).await,
            Flow::Password => {
                let resource = provider.resource.as_deref();
                password::ask(http, registration, scope, resource, (user, password), clock).await
            }
            Flow::AuthorizationCode | Flow::DeviceCode => {
                Err(Failure::Ended("the provider gave no refresh token".to_owned()))
            }
        }
    }
}
