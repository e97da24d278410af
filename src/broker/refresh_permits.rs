//! How many refreshes an authorization server gets at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::account::OpenAccount;
use crate::mutex::lock;

/// The permits for refreshes at one authorization server.
pub struct RefreshPermits {
    /// Each refresh takes one of these.
    pub all: Semaphore,
    /// A refresh ahead of expiry needs one of these first. There are half as many, so that a login that needs a new token does
    /// not wait for refreshes for which nobody waits.
    pub ahead: Semaphore,
}

/// The permits at each authorization server, by its token endpoint and its limit, because a reload may change the limit.
#[derive(Default)]
pub struct ServerPermits(Mutex<HashMap<(String, usize), Arc<RefreshPermits>>>);

impl ServerPermits {
    /// The permits at the authorization server of this account.
    pub fn of(&self, account: &OpenAccount) -> Arc<RefreshPermits> {
        let most = account.connector.provider.concurrent_refreshes;
        let endpoint = account.endpoints.token.as_ref().map(ToString::to_string).unwrap_or_default();
        let new = || Arc::new(RefreshPermits { all: Semaphore::new(most), ahead: Semaphore::new((most / 2).max(1)) });
        Arc::clone(lock(&self.0).entry((endpoint, most)).or_insert_with(new))
    }
}
