//! Grants for which nobody signs in now: an administrator has consented, or somebody did so before.

use super::super::terminal::{Input, complain};
use super::plan::Plan;
use super::server::no_tokens;
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::exit::{Exit, Failed};
use crate::oauth::Granted;
use crate::oauth::refresh::{is_begun, pasted, refresh};
use crate::pasted::decoded;
use crate::secret::{Secret, Token};
use crate::token::TokenSet;

/// The longest token answer to read, in bytes.
const MOST: usize = 64 * 1024;

impl Plan {
    /// Gets tokens from the authorization server without a person.
    pub async fn ask_alone(&self, password: Option<&Secret>) -> Result<TokenSet, Failed> {
        let tokens = self.ask(password).renew(&self.connector.http, &self.registration, None, &Clock::System).await;
        tokens.map_err(|failure| no_tokens(&failure))
    }

    /// Gets tokens with the mailbox's own password, which is kept for the next time.
    pub async fn ask_with_password(&self, input: &mut Input) -> Result<(TokenSet, Secret), Failed> {
        complain(format_args!(
            "warning: the password of {} opens more than its mail, and postkey will keep it (sealed); use another grant \
             as soon as {} has one",
            self.address, self.connector.provider.name
        ));
        self.show_note();
        let prompt = format!("The password of {} at {}: ", self.address, self.connector.provider.name);
        let password = input.password(&prompt).await?;
        Ok((self.ask_alone(Some(&password)).await?, password))
    }

    /// Takes over a refresh token that the same client got elsewhere.
    pub async fn take_over(&self, input: &mut Input) -> Result<TokenSet, Failed> {
        if !matches!(self.flow, Flow::AuthorizationCode | Flow::DeviceCode) {
            let why =
                format!("the grant {} needs no refresh token; leave out `--refresh-token-stdin`", self.flow.name());
            return Err(Failed::new(Exit::Usage, why));
        }
        let token = refresh_token(input).await?;
        // The token may cover less than the configuration requests.
        let tokens = refresh(&self.connector.http, &self.registration, &[], &token, None, &Clock::System).await;
        let Granted { tokens, id_token, .. } = tokens.map_err(|failure| no_tokens(&failure))?;
        match self.whose(&tokens, id_token.as_deref(), None).await? {
            None => Ok(tokens),
            Some(other) => Err(Failed::new(Exit::NoPermission, self.somebody_else(&other))),
        }
    }
}

/// Asks for a refresh token. A whole token answer can have several lines.
async fn refresh_token(input: &mut Input) -> Result<Token, Failed> {
    let mut typed = input.password("The refresh token: ").await?.expose().to_vec();
    let text = loop {
        let text = String::from_utf8_lossy(&decoded(&typed)).into_owned();
        if !is_begun(&text) || typed.len() > MOST {
            break text;
        }
        let Ok(more) = input.password("").await else { break text };
        typed.push(b'\n');
        typed.extend_from_slice(more.expose());
    };
    pasted(&text).map_err(|why| Failed::new(Exit::Data, why))
}
