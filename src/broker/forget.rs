//! Forgetting an account, and withdrawing its authorization at the provider where that can be done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{info, warn};

use super::account::OpenAccount;
use super::accounts::Accounts;
use super::context::Context;
use super::passwords::Passwords;
use crate::clock::Clock;
use crate::exit::Failed;
use crate::oauth::revocation::revoke;

/// How long a provider may take to revoke both tokens; the person waits.
const REVOCATION: Duration = Duration::from_secs(20);

/// What became of the authorization at the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Withdrawal {
    /// It is revoked.
    Done,
    /// It is still valid, because the provider has no revocation endpoint.
    Unsupported,
    /// It is still valid, because its tokens are sealed and no app password was given.
    Sealed,
    /// It is still valid; why.
    Failed(String),
}

impl fmt::Display for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("is revoked"),
            Self::Unsupported => {
                f.write_str("is still valid, because its provider has no way to revoke it by a program")
            }
            Self::Sealed => f.write_str("is still valid, because no app password opened its tokens"),
            Self::Failed(why) => write!(f, "is still valid: {why}"),
        }
    }
}

/// Forgets an account and everything that is known of it. `opened` is the account where a password has just opened it;
/// otherwise what is open is taken.
///
/// Here first, and then, with the tokens that are still in memory, at the provider: a failure there is reported, and stops
/// nothing.
pub(super) async fn forget(
    context: &Context,
    accounts: &Accounts,
    passwords: &Passwords,
    address: &str,
    opened: Option<Arc<OpenAccount>>,
) -> Result<Withdrawal, Failed> {
    let account = opened.or_else(|| accounts.by_owner().remove(address));
    // A refresh that is under way may bring the token that is to be revoked.
    let refreshing = match &account {
        Some(account) => Some(account.tokens.alone().await),
        None => None,
    };
    let (is_supported, of) = (can_revoke(context, address), address.to_owned());
    let done = context.in_vault(move |vault| vault.forget(&of)).await;
    passwords.close(address);
    done?;
    let withdrawal = match &account {
        _ if !is_supported => Withdrawal::Unsupported,
        None => Withdrawal::Sealed,
        Some(account) => revoke_at_provider(account, &context.clock).await,
    };
    drop(refreshing);
    info!(account = address, ?withdrawal, "{address} forgotten; its authorization at the provider {withdrawal}");
    Ok(withdrawal)
}

/// Whether the provider of an account has a revocation endpoint, as far as is known.
fn can_revoke(context: &Context, address: &str) -> bool {
    let Some(record) = context.vault.account(address) else { return false };
    let discovered = record.discovered.as_ref().is_some_and(|found| found.endpoints.revocation.is_some());
    let config = context.config();
    discovered || config.providers.get(&record.provider).is_some_and(|one| one.endpoints.revocation.is_some())
}

async fn revoke_at_provider(account: &OpenAccount, clock: &Clock) -> Withdrawal {
    let Some(endpoint) = &account.endpoints.revocation else { return Withdrawal::Unsupported };
    let (held, http) = (account.held(), &account.connector.http);
    let revoked = async {
        let registration = account.registration(&held).await?;
        revoke(http, &registration, endpoint, &held.tokens, clock).await
    };
    match timeout(REVOCATION, revoked).await {
        Ok(Ok(())) => Withdrawal::Done,
        Ok(Err(failure)) => {
            warn!(account = account.address, %failure, "cannot revoke the authorization of {}: {failure}", account.address);
            Withdrawal::Failed(failure.to_string())
        }
        Err(_) => Withdrawal::Failed(format!("the provider has not answered within {} s", REVOCATION.as_secs())),
    }
}
