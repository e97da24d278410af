//! Tells the person whether the new authorization will last, and whether it covers everything that was requested.

use super::super::terminal::complain;
use super::plan::Plan;
use crate::clock::Clock;
use crate::exit::{Exit, Failed};
use crate::oauth::lasting::LastingRequest;
use crate::token::TokenSet;

impl Plan {
    fn asked(&self) -> LastingRequest<'_> {
        let (address, registration, parameters) = (self.address.as_str(), &self.registration, &self.parameters);
        LastingRequest { address, ask: self.ask(None), registration, parameters }
    }

    /// Uses the refresh token once, to learn at once if it does not work.
    pub async fn lasting(&self, tokens: TokenSet) -> Result<TokenSet, Failed> {
        let (tokens, doubt) = self.asked().first_refresh(&self.connector.http, tokens, &Clock::System).await?;
        if let Some(doubt) = doubt {
            complain(format_args!("warning: {doubt}"));
        }
        Ok(tokens)
    }

    /// Warns about scopes that the server has not granted.
    ///
    /// # Errors
    ///
    /// Fails if there is no refresh token, so that mail stops when the access token expires; says what this server needs to
    /// issue one.
    pub fn tell_what_is_missing(&self, tokens: &TokenSet) -> Result<(), Failed> {
        let asked = self.asked();
        let end = asked.end(tokens);
        for warning in asked.left_out(tokens).iter().chain(&end) {
            complain(format_args!("warning: {warning}"));
        }
        end.map_or(Ok(()), |why| Err(Failed::new(Exit::Config, why)))
    }
}
