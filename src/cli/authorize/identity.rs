//! Who has signed in: the tokens of another mailbox must not take the place of good ones.

use super::super::terminal::complain;
use super::plan::Plan;
use crate::clock::Clock;
use crate::exit::{Exit, Failed};
use crate::oauth::id_token::Expected;
use crate::oauth::identity::who;
use crate::oauth::revocation::revoke;
use crate::token::TokenSet;

impl Plan {
    /// Whose these tokens are, if it is somebody other than who has to sign in. `nonce` is what the request had.
    pub async fn whose(
        &self,
        tokens: &TokenSet,
        id_token: Option<&str>,
        nonce: Option<&str>,
    ) -> Result<Option<String>, Failed> {
        let expected = Expected {
            client_id: &self.registration.client_id,
            issuer: self.reach.provider.issuer.as_deref(),
            nonce,
            now: Clock::System.now(),
        };
        let identity = who(&self.reach.http, &self.server.endpoints, id_token, &tokens.access, &expected).await;
        let identity = identity.map_err(|why| Failed::new(Exit::NoPermission, why))?;
        Ok(identity.other_than(&self.signs_in).map(str::to_owned))
    }

    /// What to tell somebody else.
    pub fn somebody_else(&self, other: &str) -> String {
        let right = &self.signs_in;
        format!(
            "{other} has signed in, not {right}; nothing was changed. Sign out of {other} in the browser, or open a private \
             window, and try again as {right}. If {other} is the one to sign in for this mailbox, end this and add \
             --signs-in {other}"
        )
    }

    /// Revokes tokens that nobody will use. Not those of somebody who has an account here: with one authorization of a person
    /// some providers end them all.
    pub async fn give_back(&self, other: &str, tokens: &TokenSet) {
        let Some(endpoint) =
            self.server.endpoints.revocation.as_ref().filter(|_| !self.known.iter().any(|one| one == other))
        else {
            return;
        };
        let revoked = revoke(&self.reach.http, &self.registration, endpoint, tokens, &Clock::System).await;
        if let Err(failure) = revoked {
            complain(format_args!(
                "{other}'s authorization could not be withdrawn: {failure}; withdraw it at the provider"
            ));
        }
    }
}
