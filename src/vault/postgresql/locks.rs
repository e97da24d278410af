//! The locks under which accounts are refreshed: advisory locks of the database, all on one session of this replica. They
//! end with the session, however this process or the network ends.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::error::DatabaseError;
use super::session::{Database, ServerSession};
use crate::mutex::lock;

/// The locks of this replica.
pub struct RefreshLocks {
    database: Arc<Database>,
    /// Also locked while it is opened, so that there is one.
    session: tokio::sync::Mutex<LastSession>,
    handle: Handle,
}

/// The outcome of the last attempt to open a session.
#[derive(Default)]
enum LastSession {
    #[default]
    None,
    Open(Arc<LockSession>),
    /// When it failed, and why.
    Failed(Instant, DatabaseError),
}

struct LockSession {
    session: ServerSession,
    /// The keys that are locked, or are about to be. The database would lock one twice in the same session.
    keys: Mutex<BTreeSet<i64>>,
}

/// A lock. It is held as long as [`HeldLock::check`] succeeds, and until this is dropped.
pub struct HeldLock {
    session: Arc<LockSession>,
    key: i64,
    handle: Handle,
}

impl RefreshLocks {
    pub fn new(database: &Arc<Database>, handle: Handle) -> Self {
        Self { database: Arc::clone(database), session: tokio::sync::Mutex::default(), handle }
    }

    /// Locks the refresh of an account, or returns None if another replica or another task has locked it.
    pub async fn try_lock(&self, address: &str) -> Result<Option<HeldLock>, DatabaseError> {
        let (session, key) = (self.session().await?, key(address));
        if !lock(&session.keys).insert(key) {
            return Ok(None);
        }
        match session.query_flag(&format!("select pg_try_advisory_lock({key})")).await {
            Ok(true) => Ok(Some(HeldLock { session, key, handle: self.handle.clone() })),
            Ok(false) => {
                lock(&session.keys).remove(&key);
                Ok(None)
            }
            Err(error) => {
                // Nobody knows whether it is locked. Without its session, it is not.
                session.session.give_up();
                Err(error)
            }
        }
    }

    async fn session(&self) -> Result<Arc<LockSession>, DatabaseError> {
        let asked = Instant::now();
        let mut last = self.session.lock().await;
        match &*last {
            LastSession::Open(session) if session.session.is_alive() => return Ok(Arc::clone(session)),
            // Whoever waited for this attempt does not make another one, which could take as long again.
            LastSession::Failed(at, error) if *at >= asked => return Err(error.clone()),
            _ => {}
        }
        let connected = self.database.connect(None).await;
        let opened = connected.map(|session| Arc::new(LockSession { session, keys: Mutex::default() }));
        *last = match &opened {
            Ok(session) => LastSession::Open(Arc::clone(session)),
            Err(error) => LastSession::Failed(Instant::now(), error.clone()),
        };
        opened
    }
}

impl LockSession {
    async fn query_flag(&self, sql: &str) -> Result<bool, DatabaseError> {
        let rows = self.session.limited(self.session.client.query(sql, &[])).await?;
        Ok(rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false))
    }

    async fn unlock(&self, key: i64) {
        if !self.query_flag(&format!("select pg_advisory_unlock({key})")).await.unwrap_or(false) {
            // Other refreshes lose their locks with the session, and notice it.
            self.session.give_up();
        }
        lock(&self.keys).remove(&key);
    }
}

impl HeldLock {
    /// Checks that the database still has the lock.
    pub fn check(&self) -> impl Future<Output = Result<(), DatabaseError>> + Send + use<> {
        let session = Arc::clone(&self.session);
        async move { session.session.verify().await }
    }
}

/// Unlocks.
impl Drop for HeldLock {
    fn drop(&mut self) {
        let (session, key) = (Arc::clone(&self.session), self.key);
        self.handle.spawn(async move { session.unlock(key).await });
    }
}

/// The key of an account's lock. Two accounts with the same key would only wait for each other.
fn key(address: &str) -> i64 {
    let hash = Sha256::new().chain_update("postkey refresh ").chain_update(address).finalize();
    hash.iter().take(8).fold(0, |key, byte| key << 8 | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_always_the_same_and_differ_by_account() {
        assert_eq!(key("ann@example.test"), key("ann@example.test"));
        assert_ne!(key("ann@example.test"), key("ben@example.test"));
        assert!(["a", "b", "c", "d", "e", "f", "g"].iter().any(|address| key(address) < 0), "all 64 bits are used");
    }
}
