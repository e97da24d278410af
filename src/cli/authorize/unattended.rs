//! Secrets that a person types for a grant for which nobody signs in now.

use super::super::terminal::{Input, complain};
use crate::authorization::Plan;
use crate::config::flow::Flow;
use crate::exit::{Exit, Failed};
use crate::oauth::refresh::{is_incomplete, pasted};
use crate::pasted::decoded;
use crate::secret::{Secret, Token};
use crate::token::TokenSet;

/// The longest token answer to read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

impl Plan {
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
}

/// Asks for a refresh token, or for a whole token answer, which can have several lines.
async fn refresh_token(input: &mut Input) -> Result<Token, Failed> {
    let mut typed = input.password("The refresh token: ").await?.expose().to_vec();
    let text = loop {
        let text = String::from_utf8_lossy(&decoded(&typed)).into_owned();
        if !is_incomplete(&text) || typed.len() > MAX_ANSWER {
            break text;
        }
        let Ok(more) = input.password("").await else {
            break text;
        };
        typed.push(b'\n');
        typed.extend_from_slice(more.expose());
    };
    pasted(&text).map_err(|why| Failed::new(Exit::Data, why))
}
