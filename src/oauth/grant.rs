//! New tokens for an account without a person, whatever its grant.

use super::error_codes::RequestKind;
use super::refresh::refresh;
use super::{Failure, Http, Registration, jwt_bearer, request};
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::config::provider::Provider;
use crate::secret::Secret;
use crate::token::TokenSet;

/// The parameters of an account's token requests, by grant.
pub struct GrantRequest<'a> {
    pub flow: Flow,
    pub provider: &'a Provider,
    pub scope: &'a [String],
    /// The mailbox at the provider.
    pub user: &'a str,
    /// The account's own secret for the grant: the mailbox's password, or the key file of a service account.
    pub secret: Option<&'a Secret>,
}

impl GrantRequest<'_> {
    /// Gets a new token set: with the refresh token if there is one, otherwise with a new request, if the grant needs no
    /// person for it.
    pub async fn renew(
        &self,
        http: &Http,
        registration: &Registration,
        before: Option<&TokenSet>,
        clock: &Clock,
    ) -> Result<TokenSet, Failure> {
        let Some(token) = before.and_then(|tokens| tokens.refresh.as_ref()) else {
            return self.request(http, registration, clock).await;
        };
        match refresh(http, registration, self.refresh_scope(), token, before, clock).await {
            // The refresh token has ended, but the password has not.
            Err(Failure::Ended(_)) if self.flow == Flow::Password => self.request(http, registration, clock).await,
            refreshed => refreshed.map(|granted| granted.tokens),
        }
    }

    /// The scope of a refresh: none, which means what was granted, unless the provider requires one.
    fn refresh_scope(&self) -> &[String] {
        if self.provider.refresh_scope { self.scope } else { &[] }
    }

    /// Gets a token set without a refresh token. It usually brings none either.
    async fn request(&self, http: &Http, registration: &Registration, clock: &Clock) -> Result<TokenSet, Failure> {
        let scope = self.scope.join(" ");
        let assertion;
        let (kind, form) = match self.flow {
            // RFC 6749 section 4.4: the client itself may open mailboxes.
            Flow::ClientCredentials => {
                (RequestKind::Client, vec![("grant_type", "client_credentials"), ("scope", &*scope)])
            }
            Flow::JwtBearer => {
                assertion = self.assertion(registration, &scope, clock).await?;
                (RequestKind::Assertion, vec![("grant_type", jwt_bearer::GRANT_TYPE), ("assertion", &*assertion)])
            }
            // RFC 6749 section 4.3. RFC 9700 section 2.4 forbids it; a few servers have nothing else.
            Flow::Password => (RequestKind::Password, self.password_form(&scope)?),
            Flow::AuthorizationCode | Flow::DeviceCode => {
                return Err(Failure::Ended("the provider gave no refresh token".to_owned()));
            }
        };
        let granted = request::tokens(http, registration, &form, None, clock).await;
        granted.map(|granted| granted.tokens).map_err(|error| error.failure(kind, Some(registration)))
    }

    /// The assertion that opens the mailbox. A key of the account's own comes before the one in the configuration.
    async fn assertion(&self, registration: &Registration, scope: &str, clock: &Clock) -> Result<String, Failure> {
        let template = match self.secret {
            Some(file) => jwt_bearer::stored(file)?,
            None => jwt_bearer::configured(self.provider, registration).await?,
        };
        template.assertion(self.user, scope, clock.now())
    }

    fn password_form<'f>(&'f self, scope: &'f str) -> Result<Vec<(&'f str, &'f str)>, Failure> {
        let ended = |why: &str| Failure::Ended(format!("the password of the mailbox is {why}"));
        let password = self.secret.ok_or_else(|| ended("not kept with the account"))?;
        let password = std::str::from_utf8(password.expose()).map_err(|_| ended("not text"))?;
        // Version 1 of Microsoft's endpoints requires a resource.
        let resource = self.provider.resource.as_deref().unwrap_or_default();
        Ok(vec![
            ("grant_type", "password"),
            ("username", self.user),
            ("password", password),
            ("scope", scope),
            ("resource", resource),
        ])
    }
}
