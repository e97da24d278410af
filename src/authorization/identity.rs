//! Checks new tokens while the person is still there: whose they are, because the tokens of another mailbox must not replace
//! good ones; whether there is a refresh token that works; and whether all scopes were granted.

use super::plan::Plan;
use super::remark::Remark;
use crate::clock::Clock;
use crate::exit::{Exit, Failed};
use crate::name::Name;
use crate::oauth::Granted;
use crate::oauth::id_token::Expected;
use crate::oauth::identity::identify;
use crate::oauth::lasting::LastingRequest;
use crate::oauth::revocation::revoke;
use crate::token::TokenSet;

/// Why a sign-in produced no usable tokens.
pub enum SignInError {
    /// Somebody else has signed in, with this address. Another attempt may succeed.
    SomebodyElse(String),
    /// Another attempt would not help.
    Failed(Failed),
}

impl From<Failed> for SignInError {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl Plan {
    /// Accepts the tokens of the expected person, after using the refresh token once to learn at once if it does not
    /// work. Revokes the tokens of anybody else.
    pub async fn accept(&self, granted: Granted) -> Result<TokenSet, SignInError> {
        if let Some(other) = self.other_identity(&granted).await? {
            self.give_back(&other, &granted.tokens).await;
            return Err(SignInError::SomebodyElse(other));
        }
        let request = self.lasting();
        let (tokens, doubt) = request.first_refresh(&self.connector.http, granted.tokens, &Clock::System).await?;
        if let Some(doubt) = doubt {
            (self.tell)(Remark::Warning(doubt));
        }
        Ok(tokens)
    }

    /// Returns who has signed in, if it is not the expected person.
    pub async fn other_identity(&self, granted: &Granted) -> Result<Option<String>, Failed> {
        let Granted { tokens, id_token, nonce } = granted;
        let expected = Expected {
            client_id: &self.registration.client_id,
            secret: self.registration.secret(),
            issuer: self.connector.provider.issuer.as_deref(),
            token_endpoint: Some(&self.registration.token_endpoint),
            nonce: nonce.as_deref(),
            now: Clock::System.now(),
        };
        let (http, endpoints) = (&self.connector.http, &self.server.endpoints);
        let identity = identify(http, endpoints, id_token.as_deref(), &tokens.access, &expected).await;
        let identity = identity.map_err(|why| Failed::new(Exit::NoPermission, why))?;
        if identity.is_nobody() {
            (self.tell)(Remark::Warning(format!(
                "{} does not say who has signed in; if it was not {}, sign in again",
                self.connector.provider.name, self.signs_in
            )));
        }
        Ok(identity.other_than(&self.signs_in).map(str::to_owned))
    }

    /// The message after somebody else has signed in.
    pub fn somebody_else(&self, other: &str) -> String {
        let right = &self.signs_in;
        format!(
            "{other} has signed in, not {right}; nothing was changed. Sign out of {other} in the browser, or open a \
             private window, and try again as {right}"
        )
    }

    /// Revokes tokens that nobody will use. It keeps those of somebody who has an account here, because some providers
    /// revoke all authorizations of a person together.
    async fn give_back(&self, other: &str, tokens: &TokenSet) {
        let name = Name::claimed(other);
        let has_account = self.known.iter().any(|one| Name::typed(one).same_as(&name));
        let Some(endpoint) = self.server.endpoints.revocation.as_ref().filter(|_| !has_account) else {
            return;
        };
        let revoked = revoke(&self.connector.http, &self.registration, endpoint, tokens, &Clock::System).await;
        if let Err(failure) = revoked {
            (self.tell)(Remark::Warning(format!(
                "cannot revoke the authorization of {other}: {failure}; revoke it in the account settings at the \
                 provider"
            )));
        }
    }

    fn lasting(&self) -> LastingRequest<'_> {
        let (address, registration, parameters) = (self.address.as_str(), &self.registration, &self.parameters);
        LastingRequest { address, ask: self.request(None), registration, parameters }
    }

    /// Warns about scopes that the server has not granted.
    ///
    /// # Errors
    ///
    /// Fails if there is no refresh token, so that mail stops when the access token expires; says what this server
    /// needs to issue one.
    pub fn check_granted(&self, tokens: &TokenSet) -> Result<(), Failed> {
        let request = self.lasting();
        let end = request.end(tokens);
        for warning in request.left_out(tokens).iter().chain(&end) {
            (self.tell)(Remark::Warning(warning.clone()));
        }
        end.map_or(Ok(()), |why| Err(Failed::new(Exit::Config, why)))
    }
}
