//! Forgetting an account, and withdrawing its authorization at the provider where that can be done.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{info, warn};

use super::account::Account;
use super::{Broker, blocking};
use crate::exit::Failed;
use crate::oauth::revocation::revoke;

/// How long a provider may take to revoke both tokens; the person waits.
const REVOCATION: Duration = Duration::from_secs(20);

/// What became of the authorization at the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Withdrawal {
    /// It is revoked.
    Done,
    /// It still stands, for the provider has no way to revoke it by a program.
    Unsupported,
    /// It still stands, for its tokens are sealed, and no app password was given.
    Sealed,
    /// It still stands; why.
    Failed(String),
}

impl Broker {
    /// Forgets an account and everything that is known of it. `opened` is the account where a password has just opened it;
    /// otherwise what is open is taken.
    ///
    /// Here first, and then, with the tokens that are still in memory, at the provider: a failure there is told, and stops
    /// nothing.
    pub async fn forget_account(&self, address: &str, opened: Option<Arc<Account>>) -> Result<Withdrawal, Failed> {
        let account = opened.or_else(|| self.open_owners().remove(address));
        // A refresh that is under way may bring the token that is to be revoked.
        let refreshing = match &account {
            Some(account) => Some(account.tokens.refreshing.lock().await),
            None => None,
        };
        let (vault, of) = (Arc::clone(&self.vault), address.to_owned());
        let is_supported = self.can_revoke(address);
        let done = blocking(move || vault.forget(&of)).await;
        self.forget(address);
        done?;
        let withdrawal = match &account {
            _ if !is_supported => Withdrawal::Unsupported,
            None => Withdrawal::Sealed,
            Some(account) => self.withdraw_at_provider(account).await,
        };
        drop(refreshing);
        info!(account = address, withdrawal = ?withdrawal, "forgotten");
        Ok(withdrawal)
    }

    /// Whether the provider of an account has a revocation endpoint, as far as is known.
    fn can_revoke(&self, address: &str) -> bool {
        let Some(record) = self.vault.account(address) else { return false };
        let discovered = record.discovered.as_ref().is_some_and(|found| found.endpoints.revocation.is_some());
        let config = self.config();
        discovered || config.providers.get(&record.provider).is_some_and(|one| one.endpoints.revocation.is_some())
    }

    async fn withdraw_at_provider(&self, account: &Account) -> Withdrawal {
        let Some(endpoint) = &account.endpoints.revocation else { return Withdrawal::Unsupported };
        let (held, http) = (account.held(), &account.reach.http);
        let revoked = async {
            let registration = self.registration(account, &held).await?;
            revoke(http, &registration, endpoint, &held.tokens, &self.clock).await
        };
        match timeout(REVOCATION, revoked).await {
            Ok(Ok(())) => Withdrawal::Done,
            Ok(Err(failure)) => {
                warn!(account = account.address, %failure, "the authorization could not be revoked");
                Withdrawal::Failed(failure.to_string())
            }
            Err(_) => Withdrawal::Failed(format!("the provider has not answered within {} s", REVOCATION.as_secs())),
        }
    }
}
