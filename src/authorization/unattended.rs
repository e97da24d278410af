//! Grants in which nobody signs in now, because somebody has consented before.

use super::plan::Plan;
use super::server::no_tokens;
use crate::clock::Clock;
use crate::exit::{Exit, Failed};
use crate::oauth::refresh::refresh;
use crate::secret::{Secret, Token};
use crate::token::TokenSet;

impl Plan {
    /// Gets tokens from the authorization server without a person.
    pub async fn request_tokens(&self, secret: Option<&Secret>) -> Result<TokenSet, Failed> {
        let tokens = self.request(secret).renew(&self.connector.http, &self.registration, None, &Clock::System).await;
        tokens.map_err(|failure| no_tokens(&failure))
    }

    /// Exchanges a refresh token for new tokens, and checks whose they are.
    pub async fn use_refresh_token(&self, token: &Token) -> Result<TokenSet, Failed> {
        // The token may cover less than the configuration requests.
        let scope = if self.connector.provider.refresh_scope { self.server.scope.as_slice() } else { &[] };
        let granted = refresh(&self.connector.http, &self.registration, scope, token, None, &Clock::System).await;
        let granted = granted.map_err(|failure| no_tokens(&failure))?;
        match self.other_identity(&granted).await? {
            None => Ok(granted.tokens),
            Some(other) => Err(Failed::new(Exit::NoPermission, self.somebody_else(&other))),
        }
    }
}
