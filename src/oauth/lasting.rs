//! Checks whether a new authorization outlasts its first access token and covers the requested scope, while the person who can
//! do something about it is still there.

use std::collections::BTreeMap;

use super::grant::GrantRequest;
use super::{Failure, Http, Registration, TemporaryCause};
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::exit::Failed;
use crate::token::TokenSet;

/// Scopes that servers often grant without naming them in the answer (OpenID Connect Core 1.0 sections 5.4, 11).
const UNNAMED: [&str; 6] = ["openid", "email", "profile", "offline_access", "address", "phone"];

/// The request that a new authorization answered.
pub struct LastingRequest<'a> {
    pub address: &'a str,
    pub ask: GrantRequest<'a>,
    pub registration: &'a Registration,
    /// The additional parameters of the authorization request.
    pub parameters: &'a BTreeMap<String, String>,
}

impl LastingRequest<'_> {
    /// Uses a new refresh token once, so that a person learns now, and not after an hour, if it does not work. Returns the tokens
    /// to keep, and a warning if the server gave no clear answer.
    ///
    /// # Errors
    ///
    /// The refresh token does not work.
    pub async fn first_refresh(
        &self,
        http: &Http,
        first: TokenSet,
        clock: &Clock,
    ) -> Result<(TokenSet, Option<String>), Failed> {
        if first.refresh.is_none() || !self.ask.provider.first_refresh {
            return Ok((first, None));
        }
        let renew = async || self.ask.renew(http, self.registration, Some(&first), clock).await;
        let mut outcome = renew().await;
        // The daemon makes this second attempt as well, because the server may have replaced the token.
        if matches!(outcome, Err(Failure::Temporary(TemporaryCause::Lost, _))) {
            outcome = renew().await;
        }
        match outcome {
            Ok(next) => Ok((next, None)),
            Err(doubt @ Failure::Temporary(..)) => {
                let doubt = format!("the refresh token could not be tried ({doubt}); the daemon will use it");
                Ok((first, Some(doubt)))
            }
            Err(failure) => Err(Failed::new(
                failure.exit(),
                format!(
                    "the sign-in succeeded, but its refresh token does not work, so the authorization would end with its first \
                     access token: {failure}. If this provider only refuses a refresh so early, set first_refresh = false \
                     for it"
                ),
            )),
        }
    }

    /// A warning if the server has not granted everything.
    pub fn left_out(&self, tokens: &TokenSet) -> Option<String> {
        let missing = missing(self.ask.scope, &tokens.scope);
        (!missing.is_empty()).then(|| {
            format!(
                "the provider granted less than was requested: it left out {}. If mail needs that, allow it for the client {} at \
                 the provider, and run `postkey authorize {}` again",
                missing.join(", "),
                self.registration.client_id,
                self.address
            )
        })
    }

    /// A warning if mail stops when the access token expires, with what this server needs to give a refresh token.
    pub fn end(&self, tokens: &TokenSet) -> Option<String> {
        let needs_one = matches!(self.ask.flow, Flow::AuthorizationCode | Flow::DeviceCode);
        (needs_one && tokens.refresh.is_none()).then(|| {
            format!(
                "the provider gave no refresh token, so mail for {} stops when its access token expires, at {}: {}; then run \
                 `postkey authorize {0}` again",
                self.address,
                tokens.life.expires,
                self.remedy()
            )
        })
    }

    fn remedy(&self) -> String {
        let (name, parameters) = (&self.ask.provider.name, &self.parameters);
        let prompt = parameters.get("prompt").map(String::as_str).unwrap_or("consent");
        let has = |scopes: &[String]| scopes.iter().any(|scope| scope == "offline_access");
        let is_asked = has(self.ask.scope);
        // A client that registers itself asks only for what the server lists.
        let is_unlisted = self.registration.is_self_registered && has(&self.ask.provider.scope);
        match self.ask.flow {
            _ if !is_asked && is_unlisted => format!(
                "the server does not offer offline_access to a client that registers itself; ask its administrator for a client \
                 that may use refresh tokens, and set client_id of the provider {name} to it"
            ),
            _ if !is_asked => format!(
                "most servers need the scope offline_access (with prompt=consent, which postkey then sends); add it to scope \
                 of the provider {name}, or allow the client refresh tokens at the provider"
            ),
            Flow::AuthorizationCode if prompt != "consent" => format!(
                "it may give one only after asking for consent: set prompt = \"consent\" in authorization_parameters of the \
                 provider {name}"
            ),
            _ => format!(
                "allow the client {} refresh tokens (offline_access, the grant type refresh_token) at the provider",
                self.registration.client_id
            ),
        }
    }
}

/// The requested scopes that were not granted. If the server names none, it granted all (RFC 6749 section 5.1).
fn missing<'a>(requested: &'a [String], granted: &str) -> Vec<&'a str> {
    let last = |scope: &str| scope.rsplit('/').find(|part| !part.is_empty()).unwrap_or(scope).to_ascii_lowercase();
    let has = |scope: &str| granted.split(' ').any(|one| one.eq_ignore_ascii_case(scope) || last(one) == last(scope));
    let requested = requested.iter().map(String::as_str).filter(|_| !granted.is_empty());
    requested.filter(|scope| !UNNAMED.contains(scope) && !has(scope)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_were_not_granted_are_found() {
        let asked =
            ["https://outlook.office.com/SMTP.Send", "mail", "openid", "https://mail.google.com/"].map(str::to_owned);
        assert!(missing(&asked, "").is_empty(), "the server says nothing");
        assert!(missing(&asked, "SMTP.Send Mail https://mail.google.com/").is_empty());
        assert_eq!(missing(&asked, "mail https://mail.google.com/"), ["https://outlook.office.com/SMTP.Send"]);
    }
}
