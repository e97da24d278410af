//! Checks who has signed in, because the tokens of another mailbox must not replace good ones.

use super::super::terminal::complain;
use super::plan::Plan;
use crate::clock::Clock;
use crate::exit::{Exit, Failed};
use crate::name::Name;
use crate::oauth::id_token::Expected;
use crate::oauth::identity::who;
use crate::oauth::revocation::revoke;
use crate::token::TokenSet;

impl Plan {
    /// Returns who has signed in, if it is not the expected person. `nonce` is the request's.
    pub async fn whose(
        &self,
        tokens: &TokenSet,
        id_token: Option<&str>,
        nonce: Option<&str>,
    ) -> Result<Option<String>, Failed> {
        let expected = Expected {
            client_id: &self.registration.client_id,
            secret: self.registration.secret(),
            issuer: self.connector.provider.issuer.as_deref(),
            token_endpoint: Some(&self.registration.token_endpoint),
            nonce,
            now: Clock::System.now(),
        };
        let identity = who(&self.connector.http, &self.server.endpoints, id_token, &tokens.access, &expected).await;
        let identity = identity.map_err(|why| Failed::new(Exit::NoPermission, why))?;
        if identity.is_nobody() {
            complain(format_args!(
                "warning: {} does not say who has signed in; if it was not {}, sign in again",
                self.connector.provider.name, self.signs_in
            ));
        }
        Ok(identity.other_than(&self.signs_in).map(str::to_owned))
    }

    /// The message after somebody else has signed in.
    pub fn somebody_else(&self, other: &str) -> String {
        let right = &self.signs_in;
        format!(
            "{other} has signed in, not {right}; nothing was changed. Sign out of {other} in the browser, or open a private \
             window, and try again as {right}. If {other} should sign in for this mailbox, stop this command and add \
             `--signs-in {other}`"
        )
    }

    /// Revokes tokens that nobody will use. It keeps those of somebody who has an account here, because some providers revoke
    /// all authorizations of a person together.
    pub async fn give_back(&self, other: &str, tokens: &TokenSet) {
        let Some(endpoint) = self
            .server
            .endpoints
            .revocation
            .as_ref()
            .filter(|_| !self.known.iter().any(|one| Name::typed(one).same_as(&Name::claimed(other))))
        else {
            return;
        };
        let revoked = revoke(&self.connector.http, &self.registration, endpoint, tokens, &Clock::System).await;
        if let Err(failure) = revoked {
            complain(format_args!(
                "cannot revoke the authorization of {other}: {failure}; revoke it in the account settings at the provider"
            ));
        }
    }
}
