//! What another replica needs to continue a first login that began here.
//!
//! Each step is left as a deposit, which only the secret of the next step opens: the ticket of the page, the state with which
//! the browser returns, the key in the form, or the password if the mail program tries it again. Whoever takes an answer or
//! a key first owns it, because a code can be used only once, and tokens must not be revoked after an account has them. An
//! embedded vault has no other replicas; then nothing is left, and everything here is this process's own.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::attempt::Attempt;
use super::carried::{CarriedAttempt, CarriedConsent};
use crate::broker::context::Context;
use crate::broker::guesses::Check;
use crate::net::peer::Source;
use crate::oauth::authorization_code::{CarriedAuthorization, PendingAuthorization};
use crate::vault::password::Password;
use crate::vault::{DepositKey, VaultError};

/// The purposes of the secrets.
const TICKET: &str = "ticket of a first login";
const STATE: &str = "state of a first login";
const FORM: &str = "form of a first login";

/// How much longer than its consent a deposit exists, so that the one who finds the consent expired can still take it, and
/// revoke its tokens.
const GRACE: Duration = Duration::from_secs(180);

pub struct Handover {
    context: Arc<Context>,
}

#[derive(Serialize, Deserialize)]
struct CarriedRequest {
    attempt: CarriedAttempt,
    pending: CarriedAuthorization,
}

impl Handover {
    pub fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context) }
    }

    /// Whether another replica can continue what this one has begun.
    pub fn has_others(&self) -> bool {
        self.context.vault.replicas() > 1
    }

    /// Whether another replica may ever continue it.
    pub fn is_shared(&self) -> bool {
        self.context.vault.is_shared()
    }

    /// The key of a password that a mail program has tried from this source. It takes 100 ms, which `check` allows.
    pub async fn key_of_password(
        &self,
        address: &str,
        source: Source,
        password: &Password,
        check: Option<Check>,
    ) -> Result<DepositKey, VaultError> {
        let (whose, password) = (format!("{address} from {source}"), password.clone());
        let derive = move |_: &_| {
            let key = DepositKey::of_password(&password, &whose);
            drop(check);
            key
        };
        self.context.in_vault(derive).await
    }

    /// Leaves an attempt for whoever has its ticket or tries the password again.
    pub async fn leave_attempt(&self, attempt: &Attempt, password: &DepositKey) -> Result<(), VaultError> {
        let ticket = DepositKey::of_secret(&attempt.ticket, TICKET)?;
        self.leave(&ticket, &attempt.carried(), attempt.left()).await?;
        self.leave(password, &attempt.ticket, attempt.left()).await
    }

    /// Finds an attempt by its ticket.
    pub async fn attempt_by_ticket(&self, ticket: &str) -> Result<Option<Attempt>, VaultError> {
        let found = self.find(&DepositKey::of_secret(ticket, TICKET)?).await?;
        Ok(found.map(|(carried, _)| Attempt::continued(carried)))
    }

    /// Finds the attempt whose mail program has tried a password.
    pub async fn attempt_with(&self, password: &DepositKey) -> Result<Option<Attempt>, VaultError> {
        match self.find::<String>(password).await? {
            Some((ticket, _)) => self.attempt_by_ticket(&ticket).await,
            None => Ok(None),
        }
    }

    /// Whether a mail program has tried a password.
    pub async fn is_tried(&self, password: &DepositKey) -> Result<bool, VaultError> {
        Ok(self.find::<String>(password).await?.is_some())
    }

    /// Removes an attempt that has ended. If this fails, it expires.
    pub async fn remove_attempt(&self, attempt: &Attempt) {
        if let Ok(key) = DepositKey::of_secret(&attempt.ticket, TICKET) {
            let _expires = self.context.vault.remove_deposit(&key).await;
        }
    }

    /// Leaves a request for whoever brings the provider's answer.
    pub async fn leave_request(&self, attempt: &Attempt, pending: &PendingAuthorization) -> Result<(), VaultError> {
        let carried = CarriedRequest { attempt: attempt.carried(), pending: pending.carried() };
        self.leave(&DepositKey::of_secret(&pending.state(), STATE)?, &carried, attempt.left()).await
    }

    /// Finds a request by the state in an answer.
    pub async fn request(&self, state: &str) -> Result<Option<(Attempt, PendingAuthorization)>, VaultError> {
        let found = self.find::<CarriedRequest>(&DepositKey::of_secret(state, STATE)?).await?;
        Ok(found.map(|(carried, _)| (Attempt::continued(carried.attempt), carried.pending.into())))
    }

    /// Takes a request away, so that nobody else exchanges its code. Returns whether this replica may.
    pub async fn take_request(&self, state: &str) -> Result<bool, VaultError> {
        self.take(&DepositKey::of_secret(state, STATE)?).await
    }

    /// Leaves a consent for whoever has the key in its form.
    pub async fn leave_consent(&self, key: &str, consent: &CarriedConsent, left: Duration) -> Result<(), VaultError> {
        self.leave(&DepositKey::of_secret(key, FORM)?, consent, left + GRACE).await
    }

    /// Finds a consent by the key in its form, and how long a person still has.
    pub async fn consent(&self, key: &str) -> Result<Option<(CarriedConsent, Duration)>, VaultError> {
        let found = self.find(&DepositKey::of_secret(key, FORM)?).await?;
        Ok(found.and_then(|(consent, left)| Some((consent, left.checked_sub(GRACE)?))))
    }

    /// Takes a consent away, so that nobody else uses or revokes its tokens. Returns whether this replica may.
    pub async fn take_consent(&self, key: &str) -> Result<bool, VaultError> {
        self.take(&DepositKey::of_secret(key, FORM)?).await
    }

    async fn leave(&self, key: &DepositKey, value: &impl Serialize, time: Duration) -> Result<(), VaultError> {
        let content = Zeroizing::new(serde_json::to_vec(value).map_err(|_| VaultError::Interrupted)?);
        self.context.vault.deposit(key, &content, time).await
    }

    async fn find<T: DeserializeOwned>(&self, key: &DepositKey) -> Result<Option<(T, Duration)>, VaultError> {
        let found = self.context.vault.read_deposit(key).await?;
        // A replica of another version may have left something else.
        Ok(found.and_then(|deposit| Some((serde_json::from_slice(&deposit.content).ok()?, deposit.left))))
    }

    async fn take(&self, key: &DepositKey) -> Result<bool, VaultError> {
        Ok(!self.is_shared() || self.context.vault.remove_deposit(key).await?)
    }
}
