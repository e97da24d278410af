//! This replica's turn to refresh an account, if others use the same vault. Otherwise it is always its turn.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::account::OpenAccount;
use super::context::Context;
use super::passwords::Passwords;
use crate::vault::{RefreshLock, RefreshTurn};

/// How long to wait while another replica refreshes the account. Clients give up after half a minute.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often to try again meanwhile. A refresh takes some tenths of a second.
const POLL: Duration = Duration::from_millis(100);

/// Whose turn it is to refresh an account.
pub enum TurnOutcome {
    /// This replica's, until the lock is dropped.
    Own(RefreshLock),
    /// Another replica has refreshed it, and its tokens are in use here by now.
    Replaced,
    /// Nobody's, for now; why.
    Postponed(String),
}

/// Waits until this replica may refresh the token set of this generation, or another replica has.
pub(super) async fn wait(
    context: &Arc<Context>,
    passwords: &Passwords,
    account: &OpenAccount,
    generation: u64,
) -> TurnOutcome {
    let begun = Instant::now();
    loop {
        let turn = context.vault.begin_refresh(&account.owner, generation).await;
        if account.generation() != generation {
            return TurnOutcome::Replaced;
        }
        return match turn {
            Ok(RefreshTurn::Granted(lock)) => TurnOutcome::Own(lock),
            Ok(RefreshTurn::Busy) if begun.elapsed() < PATIENCE => {
                sleep(POLL).await;
                continue;
            }
            Ok(RefreshTurn::Busy) => TurnOutcome::Postponed("another replica is refreshing the tokens".to_owned()),
            Ok(RefreshTurn::Unsettled) => TurnOutcome::Postponed(
                "another replica was interrupted while it refreshed the tokens, and may still store them".to_owned(),
            ),
            Ok(RefreshTurn::Changed) => {
                let is_open = passwords.follow_tokens(&account.owner);
                match is_open && account.generation() != generation {
                    true => TurnOutcome::Replaced,
                    false => TurnOutcome::Postponed("another replica has changed the account".to_owned()),
                }
            }
            Err(error) => TurnOutcome::Postponed(error.to_string()),
        };
    }
}
