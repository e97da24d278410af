//! Grants for which nobody signs in now: an administrator has consented, or somebody did so before.

use super::super::terminal::{Input, complain};
use super::plan::Plan;
use super::server::no_tokens;
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::exit::{Exit, Failed};
use crate::oauth::refresh::{is_incomplete, pasted, refresh};
use crate::pasted::decoded;
use crate::secret::{Secret, Token};
use crate::token::TokenSet;

/// The longest token answer to read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

impl Plan {
    /// Gets tokens from the authorization server without a person.
    pub async fn request_tokens(&self, password: Option<&Secret>) -> Result<TokenSet, Failed> {
        let tokens = self.request(password).renew(&self.connector.http, &self.registration, None, &Clock::System).await;
        tokens.map_err(|failure| no_tokens(&failure))
    }

    /// Gets tokens with the mailbox's own password, which is stored for the next time.
    pub async fn request_by_password(&self, input: &mut Input) -> Result<(TokenSet, Secret), Failed> {
        complain(format_args!(
            "warning: the password of {} opens more than its mail, and postkey will store it (sealed); use another \
             grant as soon as {} offers one",
            self.address, self.connector.provider.name
        ));
        self.show_note();
        let prompt = format!("The password of {} at {}: ", self.address, self.connector.provider.name);
        let password = input.password(&prompt).await?;
        Ok((self.request_tokens(Some(&password)).await?, password))
    }

    /// Takes over a refresh token that the same client got elsewhere. It is not revoked if it belongs to somebody else,
    /// because another program may use it.
    pub async fn import_refresh_token(&self, input: &mut Input) -> Result<TokenSet, Failed> {
        if !matches!(self.flow, Flow::AuthorizationCode | Flow::DeviceCode) {
            let why =
                format!("the grant {} uses no refresh token; leave out `--refresh-token-stdin`", self.flow.name());
            return Err(Failed::new(Exit::Usage, why));
        }
        let token = refresh_token(input).await?;
        self.use_refresh_token(&token).await
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

/// Asks for a refresh token, or for a whole token answer, which can have several lines.
async fn refresh_token(input: &mut Input) -> Result<Token, Failed> {
    let mut typed = input.password("The refresh token: ").await?.expose().to_vec();
    let text = loop {
        let text = String::from_utf8_lossy(&decoded(&typed)).into_owned();
        if !is_incomplete(&text) || typed.len() > MAX_ANSWER {
            break text;
        }
        let Ok(more) = input.password("").await else { break text };
        typed.push(b'\n');
        typed.extend_from_slice(more.expose());
    };
    pasted(&text).map_err(|why| Failed::new(Exit::Data, why))
}
