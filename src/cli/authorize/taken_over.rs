//! An account that another program has authorized.

use super::super::arguments::AuthorizeOptions;
use super::super::terminal::Input;
use super::preparation::plan;
use crate::authorization::Plan;
use crate::config::Config;
use crate::control::Status;
use crate::exit::Failed;
use crate::secret::{Secret, Token};
use crate::vault::Authorization;

/// The way to get the account's first tokens here.
pub enum TokenSource {
    Refresh(Token),
    /// The mailbox's own password.
    Password(Secret),
    /// The client alone.
    Client,
}

/// Gets tokens with what another program had, and checks whose they are. The options name provider, grant and client.
pub async fn take_over(
    config: &Config,
    status: &Status,
    address: &str,
    options: &AuthorizeOptions,
    source: TokenSource,
) -> Result<Authorization, Failed> {
    plan(config, address, options, status, &mut Input::new()).await?.take_over(source).await
}

impl Plan {
    /// Gets tokens with what another program had, and checks whose they are.
    pub async fn take_over(self, source: TokenSource) -> Result<Authorization, Failed> {
        let (tokens, password) = match source {
            TokenSource::Refresh(token) => (self.use_refresh_token(&token).await?, None),
            TokenSource::Password(password) => (self.request_tokens(Some(&password)).await?, Some(password)),
            TokenSource::Client => (self.request_tokens(None).await?, None),
        };
        Ok(self.authorization(tokens, password))
    }
}
