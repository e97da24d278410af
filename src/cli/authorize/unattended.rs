//! Nobody signs in: an administrator has done so, or somebody at another time.

use super::super::terminal::{Input, complain};
use super::no_tokens;
use super::plan::Plan;
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::exit::{Exit, Failed};
use crate::oauth::authorization_code::Granted;
use crate::oauth::refresh::refresh;
use crate::secret::{Secret, Token};
use crate::token::TokenSet;

impl Plan {
    /// Asks the authorization server alone.
    pub async fn ask_alone(&self, password: Option<&Secret>) -> Result<TokenSet, Failed> {
        let tokens = self.ask(password).renew(&self.reach.http, &self.registration, None, &Clock::System).await;
        tokens.map_err(|failure| no_tokens(&failure))
    }

    /// Asks with the mailbox's own password, which is kept for the next time.
    pub async fn ask_with_password(&self, input: &mut Input) -> Result<(TokenSet, Secret), Failed> {
        complain(format_args!(
            "warning: the password of {} opens more than its mail, and postkey will keep it (sealed); use another grant \
             as soon as {} has one",
            self.address, self.reach.provider.name
        ));
        self.show_note();
        let prompt = format!("The password of {} at {}: ", self.address, self.reach.provider.name);
        let password = input.password(&prompt).await?;
        Ok((self.ask_alone(Some(&password)).await?, password))
    }

    /// Takes a refresh token over that somebody has got elsewhere, for the same client.
    pub async fn take_over(&self, input: &mut Input) -> Result<TokenSet, Failed> {
        if !matches!(self.flow, Flow::AuthorizationCode | Flow::DeviceCode) {
            let why = format!("the grant {} needs no refresh token; leave out --refresh-token-stdin", self.flow.name());
            return Err(Failed::new(Exit::Usage, why));
        }
        let typed = input.password("The refresh token: ").await?;
        let token = std::str::from_utf8(typed.expose().trim_ascii()).ok().and_then(Token::parse);
        let token = token.ok_or_else(|| Failed::new(Exit::Data, "this is no refresh token"))?;
        let scope = &self.reach.provider.scope;
        let tokens = refresh(&self.reach.http, &self.registration, scope, &token, &Clock::System).await;
        let Granted { tokens, id_token, .. } = tokens.map_err(|failure| no_tokens(&failure))?;
        match self.whose(&tokens, id_token.as_deref(), None).await? {
            None => Ok(tokens),
            Some(other) => Err(Failed::new(Exit::NoPermission, self.somebody_else(&other))),
        }
    }
}
