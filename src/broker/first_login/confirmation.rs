//! From a consent to the account: a person types the password in the browser in which the consent ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use super::attempt::{Attempt, Consent, ConsentState};
use super::carried::CarriedConsent;
use super::server::AuthorizationServer;
use super::{Authorized, FirstLogins, Refused, away, log_failure, refuse};
use crate::exit::Failed;
use crate::net::peer::Visitor;
use crate::notify::NoticeEvent;
use crate::random;
use crate::token::TokenSet;
use crate::vault::password::Password;
use crate::vault::{Authorization, Vault};

/// The name of the first app password.
const SLOT: &str = "main";

/// How long a provider may take to revoke unused tokens.
const REVOCATION: Duration = Duration::from_secs(20);

impl FirstLogins {
    /// Keeps a consent until a person types the password. Returns the key for that.
    pub(super) async fn keep(&self, consent: &Arc<Consent>) -> Result<String, String> {
        let key = random::name();
        if let Some(carried) = consent.carried().await {
            let left = self.handover.leave_consent(&key, &carried, consent.left()).await;
            left.map_err(|error| error.to_string())?;
        }
        if !self.attempts.add_consent(&key, consent) {
            let _expires = self.handover.take_consent(&key).await;
            return Err("too many others wait for a password".to_owned());
        }
        Ok(key)
    }

    /// Creates the account, if the key is that of a consent, and the mail program has tried this password.
    ///
    /// # Errors
    ///
    /// The account was not created.
    pub async fn confirm(
        self: &Arc<Self>,
        key: &str,
        password: Password,
        visitor: Visitor,
    ) -> Result<Authorized, Refused> {
        let consent = match self.attempts.consent(key) {
            Some(consent) => consent,
            None => self.consent_elsewhere(key).await?,
        };
        if !consent.attempt.is_for(visitor) {
            return Err(Refused::OtherUser);
        }
        let (first_logins, key) = (Arc::clone(self), key.to_owned());
        // In a task, so that a browser that disconnects does not leave the account half created.
        let decided = tokio::spawn(async move { first_logins.decide(&consent, &key, &password).await });
        decided.await.unwrap_or(Err(Refused::Failed))
    }

    /// The consent that another replica has got.
    async fn consent_elsewhere(&self, key: &str) -> Result<Arc<Consent>, Refused> {
        let found = self.handover.consent(key).await.map_err(|error| away(&error))?;
        let (CarriedConsent { attempt, tokens, end }, left) = found.ok_or(Refused::NotAwaited)?;
        let attempt = self.attempts.adopt(Attempt::continued(attempt));
        let server = self.server(&attempt.address).await.map_err(|failed| refuse(&attempt, &failed))?;
        let consent = Arc::new(Consent::continued(attempt, server, tokens, end, left));
        self.attempts.add_consent(key, &consent);
        Ok(consent)
    }

    /// If the page is posted twice, the second post waits, and gets the result of the first.
    async fn decide(
        self: &Arc<Self>,
        consent: &Consent,
        key: &str,
        password: &Password,
    ) -> Result<Authorized, Refused> {
        let authorized = if consent.end.is_none() { Authorized::Lasting } else { Authorized::Ending };
        let attempt = &consent.attempt;
        let mut state = consent.state.lock().await;
        let is_open = matches!(*state, ConsentState::Open { .. });
        let is_tried = is_open && self.has_tried(attempt, password).await?;
        let tokens = match &mut *state {
            ConsentState::Authorized => return Ok(authorized),
            ConsentState::Closed => return Err(Refused::NotAwaited),
            ConsentState::Open { tokens, .. } if is_tried => tokens.clone(),
            ConsentState::Open { tries_left, .. } if *tries_left > 1 => {
                *tries_left -= 1;
                return Err(Refused::WrongPassword(attempt.address.clone()));
            }
            ConsentState::Open { .. } => {
                log_failure(&attempt.address, "the person typed too many wrong passwords");
                self.attempts.end(attempt);
                self.handover.remove_attempt(attempt).await;
                return Err(self.close(consent, key, &mut state, Refused::TooManyWrong).await);
            }
        };
        if self.context.config().domain_of(&attempt.address).is_none() {
            return Err(self.close(consent, key, &mut state, Refused::NotAwaited).await);
        }
        self.use_consent(consent, key, tokens, password.clone(), &mut state).await?;
        self.attempts.end_all_of(&attempt.address);
        self.handover.remove_attempt(attempt).await;
        let mut reason = format!("{} is authorized; its mail program can log in.", attempt.address);
        if let Some(end) = &consent.end {
            reason = format!("{reason} But {end}.");
        }
        self.notify(NoticeEvent::Settled, &attempt.address, reason, None);
        Ok(authorized)
    }

    /// Whether the mail program has tried this password, here or at another replica.
    async fn has_tried(&self, attempt: &Attempt, password: &Password) -> Result<bool, Refused> {
        if attempt.has_password(password) || !self.handover.is_shared() {
            return Ok(attempt.has_password(password));
        }
        // A person with the key may type only a few, so this needs no turn.
        let key = self.handover.key_of_password(&attempt.address, attempt.source, password, None).await;
        let found = match key {
            Ok(key) => self.handover.is_tried(&key).await,
            Err(error) => Err(error),
        };
        found.map_err(|error| away(&error))
    }

    /// Creates the account with a consent's tokens, unless another replica has taken the consent.
    async fn use_consent(
        self: &Arc<Self>,
        consent: &Consent,
        key: &str,
        tokens: TokenSet,
        password: Password,
        state: &mut ConsentState,
    ) -> Result<(), Refused> {
        let address = &consent.attempt.address;
        if !self.handover.take_consent(key).await.map_err(|error| away(&error))? {
            *state = ConsentState::Closed;
            return Err(if self.context.vault.knows(address) { Refused::Exists } else { Refused::NotAwaited });
        }
        let carried = consent.carried_with(&tokens);
        let created = self.create_account(consent.server.authorization(address, tokens), password).await;
        let Err(failed) = created else {
            *state = ConsentState::Authorized;
            return Ok(());
        };
        log_failure(address, &failed.message);
        if self.context.vault.knows(address) {
            return Err(self.close(consent, key, state, Refused::Exists).await);
        }
        // The person may try again. If this fails, they have to begin again.
        let _lost = self.handover.leave_consent(key, &carried, consent.left()).await;
        Err(Refused::Failed)
    }

    /// Stores a new account. An existing one stays as it is.
    async fn create_account(&self, authorization: Authorization, password: Password) -> Result<(), Failed> {
        let now = self.context.now();
        let begin = move |vault: &Arc<Vault>| {
            vault.begin(&authorization, (SLOT, &password), now).map(|generation| (authorization, generation))
        };
        let (authorization, generation) = self.context.in_vault(begin).await?;
        let account = self.passwords.open_authorized(authorization, generation)?;
        self.notices.review(&account.owner);
        Ok(())
    }

    /// Closes a consent that will not be used.
    async fn close(self: &Arc<Self>, consent: &Consent, key: &str, state: &mut ConsentState, why: Refused) -> Refused {
        self.attempts.drop_consent(key);
        let is_ours = self.handover.take_consent(key).await.unwrap_or(false);
        match std::mem::replace(state, ConsentState::Closed) {
            ConsentState::Open { tokens, .. } if is_ours => {
                self.revoke_later(consent.server.clone(), consent.attempt.address.clone(), tokens);
            }
            _ => {}
        }
        why
    }

    /// Revokes unused tokens in the background.
    pub(super) fn revoke_later(self: &Arc<Self>, server: AuthorizationServer, whose: String, tokens: TokenSet) {
        let first_logins = Arc::clone(self);
        tokio::spawn(async move { first_logins.revoke_unused(&server, &whose, &tokens).await });
    }

    /// Revokes unused tokens, unless the person has another authorization here, because some providers revoke all together.
    pub(super) async fn revoke_unused(&self, server: &AuthorizationServer, whose: &str, tokens: &TokenSet) {
        if self.context.vault.knows(whose) || self.attempts.has_consent_of(whose) {
            return;
        }
        let revoked = timeout(REVOCATION, server.revoke(tokens, &self.context.clock)).await;
        let why = match revoked {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("the provider did not answer within {} s", REVOCATION.as_secs()),
        };
        warn!(account = whose, why, "cannot revoke an unused authorization of {whose}: {why}");
    }

    /// Revokes the consents that no other replica has taken.
    pub(super) async fn revoke_all(self: &Arc<Self>, consents: Vec<(String, Arc<Consent>)>) {
        let mut all = JoinSet::new();
        for (key, consent) in consents {
            let first_logins = Arc::clone(self);
            all.spawn(async move {
                // First, because a password may just be checked.
                let mut state = consent.state.lock().await;
                if first_logins.handover.take_consent(&key).await.unwrap_or(false) {
                    first_logins.revoke_consent(&consent, &mut state).await;
                }
            });
        }
        while all.join_next().await.is_some() {}
    }

    pub(super) async fn revoke_consent(&self, consent: &Consent, state: &mut ConsentState) {
        if let ConsentState::Open { tokens, .. } = std::mem::replace(state, ConsentState::Closed) {
            self.revoke_unused(&consent.server, &consent.attempt.address, &tokens).await;
        }
    }
}
