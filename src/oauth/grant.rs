//! New tokens for an account, whatever its grant, as far as that needs no person.

use super::refresh::refresh;
use super::{Failure, Http, Registration, client_credentials};
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::config::provider::Provider;
use crate::secret::{Secret, Token};
use crate::token::TokenSet;

/// What an account asks for, and how.
pub struct Ask<'a> {
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

impl Ask<'_> {
    /// Gets a new token set with one request: by the refresh token where there is one, and else by asking anew, where the
    /// grant needs no person for it.
    pub async fn renew(
        &self,
        http: &Http,
        registration: &Registration,
        token: Option<&Token>,
        clock: &Clock,
    ) -> Result<TokenSet, Failure> {
        match (token, self.flow) {
            (Some(token), _) => refresh(http, registration, self.scope, token, clock).await,
            (None, Flow::ClientCredentials) => client_credentials::ask(http, registration, self.scope, clock).await,
            (None, Flow::AuthorizationCode | Flow::DeviceCode) => {
                Err(Failure::Ended("the provider gave no refresh token".to_owned()))
            }
            (None, Flow::JwtBearer | Flow::Password) => {
                Err(Failure::Misconfigured(format!("the grant {} is not there yet", self.flow.name())))
            }
        }
    }
}
