//! Whether a new authorization lasts longer than its first access token, and opens all that was asked for. It is found out while
//! the person is still there who can do something about it.

use std::collections::BTreeMap;

use super::grant::GrantRequest;
use super::{Failure, Http, Registration, TemporaryCause};
use crate::clock::Clock;
use crate::config::flow::Flow;
use crate::exit::Failed;
use crate::token::TokenSet;

/// Scopes that servers leave out of their answers although they have granted them (OpenID Connect Core 1.0 sections 5.4, 11).
const QUIET: [&str; 6] = ["openid", "email", "profile", "offline_access", "address", "phone"];

/// What a new authorization was asked for.
pub struct LastingRequest<'a> {
    /// Whose mailbox it opens.
    pub address: &'a str,
    /// The grant.
    pub ask: GrantRequest<'a>,
    /// As whom.
    pub registration: &'a Registration,
    /// Parameters of the authorization request beside the standard ones.
    pub parameters: &'a BTreeMap<String, String>,
}

impl LastingRequest<'_> {
    /// Uses a new refresh token once, so that a person learns now, and not after an hour, that it does not work. Returns the
    /// tokens to keep, and why it is not known whether they last, if so.
    ///
    /// # Errors
    ///
    /// Why the authorization would end with its first access token.
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
        // The one second try that the daemon makes as well: the server may have replaced the token.
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
                    "the sign-in was right, but its refresh token does not work, so that it would end with its first access \
                     token: {failure}. If this provider refuses a refresh only so early, set first_refresh = false for it"
                ),
            )),
        }
    }

    /// What the server has not granted, if so.
    pub fn left_out(&self, tokens: &TokenSet) -> Option<String> {
        let lacking = lacking(self.ask.scope, &tokens.scope);
        (!lacking.is_empty()).then(|| {
            format!(
                "the provider granted less than was asked for: it left out {}. If mail needs that, allow it for the client {} \
                 at the provider, and run `postkey authorize {}` again",
                lacking.join(", "),
                self.registration.client_id,
                self.address
            )
        })
    }

    /// Why mail stops when the access token expires, and what this server needs to give a refresh token. None if it does not.
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
                "the server does not offer offline_access to a client that registers itself; have its administrator make a \
                 client that may use refresh tokens, and set client_id of the provider {name} to it"
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

/// What was asked for and is not among what was granted. Where the server says nothing, all was (RFC 6749 section 5.1).
fn lacking<'a>(asked: &'a [String], granted: &str) -> Vec<&'a str> {
    let last = |scope: &str| scope.rsplit('/').find(|part| !part.is_empty()).unwrap_or(scope).to_ascii_lowercase();
    let has = |scope: &str| granted.split(' ').any(|one| one.eq_ignore_ascii_case(scope) || last(one) == last(scope));
    let asked = asked.iter().map(String::as_str).filter(|_| !granted.is_empty());
    asked.filter(|scope| !QUIET.contains(scope) && !has(scope)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_granted_is_found() {
        let asked =
            ["https://outlook.office.com/SMTP.Send", "mail", "openid", "https://mail.google.com/"].map(str::to_owned);
        assert!(lacking(&asked, "").is_empty(), "the server says nothing");
        assert!(lacking(&asked, "SMTP.Send Mail https://mail.google.com/").is_empty());
        assert_eq!(lacking(&asked, "mail https://mail.google.com/"), ["https://outlook.office.com/SMTP.Send"]);
    }
}
