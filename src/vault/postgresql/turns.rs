//! Which replica refreshes an account: the one that has its lock, one at a time.
//!
//! Before it sends the request, a replica stores its intent under the lock. If another replica finds an intent, the one that
//! stored it has lost its lock before it could store new tokens: its process has ended, or its connection. It may have used
//! the refresh token. So the other one waits, in case that replica can still store what it got, before it uses the token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use super::error::DatabaseError;
use super::follow::Replica;
use super::locks::{HeldLock, RefreshLocks};
use super::table::{Claim, RefreshRow};
use crate::mutex::lock;
use crate::vault::error::VaultError;

/// How long a replica that has lost its lock has time to store its tokens. It notices the loss in 10 s and connects again in
/// some more.
const TIME_TO_STORE: Duration = Duration::from_secs(15);

/// Whether this replica may refresh an account.
pub enum RefreshTurn {
    /// It may, until this is dropped.
    Granted(RefreshLock),
    /// Another replica refreshes it now.
    Busy,
    /// Another replica has begun to refresh it and has lost its lock since. It may still store its tokens.
    Unsettled,
    /// The record has another token set by now, or there is no account any more.
    Changed,
}

/// The right to refresh an account.
pub struct RefreshLock(Option<GrantedLock>);

struct GrantedLock {
    turns: Arc<Turns>,
    held: Option<HeldLock>,
    address: String,
    generation: u64,
}

/// The turns of this replica.
pub struct Turns {
    replica: Arc<Replica>,
    locks: RefreshLocks,
    /// The intents of others that were found under a lock, by address, and when each was found first.
    claims: Mutex<HashMap<String, (Claim, Instant)>>,
    handle: Handle,
}

impl Turns {
    pub fn new(replica: &Arc<Replica>, handle: Handle) -> Self {
        let locks = RefreshLocks::new(&replica.database, handle.clone());
        Self { replica: Arc::clone(replica), locks, claims: Mutex::default(), handle }
    }

    /// Takes the lock of an account, reads its record again, and stores the intent to refresh this generation.
    pub async fn begin(self: &Arc<Self>, address: &str, generation: u64) -> Result<RefreshTurn, DatabaseError> {
        let known = &self.replica.known;
        self.replica.save(address).await?;
        let Some(held) = self.locks.try_lock(address).await? else { return Ok(RefreshTurn::Busy) };
        let before = known.serial(address);
        let (serial, turn) = match self.replica.tables.begin_refresh(address, &self.replica.name).await? {
            RefreshRow::Begun(serial) => (Some(serial), None),
            RefreshRow::Claimed(claim) => (self.take_old(address, &claim).await?, Some(RefreshTurn::Unsettled)),
            RefreshRow::Missing => (None, Some(RefreshTurn::Changed)),
        };
        if serial != before || serial.is_none() {
            self.replica.read_instead_of(address, before).await?;
        }
        let is_same = known.generation(address) == Some(generation);
        if serial.is_none() {
            return Ok(turn.filter(|_| is_same).unwrap_or(RefreshTurn::Changed));
        }
        lock(&self.claims).remove(address);
        if !is_same {
            self.replica.tables.end_refresh(address, &self.replica.name).await?;
            return Ok(RefreshTurn::Changed);
        }
        let (turns, address) = (Arc::clone(self), address.to_owned());
        Ok(RefreshTurn::Granted(RefreshLock(Some(GrantedLock { turns, held: Some(held), address, generation }))))
    }

    /// Takes over the intent of another replica that has had its time. Returns the record's serial then.
    async fn take_old(&self, address: &str, claim: &Claim) -> Result<Option<u64>, DatabaseError> {
        let found = {
            let mut claims = lock(&self.claims);
            let (seen, since) = claims.entry(address.to_owned()).or_insert_with(|| (claim.clone(), Instant::now()));
            if seen != claim {
                (*seen, *since) = (claim.clone(), Instant::now());
            }
            *since
        };
        if found.elapsed() < TIME_TO_STORE {
            return Ok(None);
        }
        let serial = self.replica.tables.take_claim(address, &self.replica.name, claim).await?;
        if serial.is_some() {
            warn!(
                account = address,
                "another replica has ended while it refreshed the tokens of {address}; the old refresh token is used, \
                 which may be invalid now"
            );
        }
        Ok(serial)
    }

    /// Ends a turn. If it has brought no new tokens, the intent is still there.
    async fn end(&self, address: &str, generation: u64, held: HeldLock) {
        if self.replica.known.generation(address) == Some(generation) {
            // If this fails, the next refresh of any replica deals with it.
            let _ended = self.replica.tables.end_refresh(address, &self.replica.name).await;
        }
        drop(held);
    }
}

impl RefreshLock {
    /// For a vault that no other process uses.
    pub const fn alone() -> Self {
        Self(None)
    }

    /// Checks that no other replica can have the lock, although this process may have been stopped for a while.
    ///
    /// # Errors
    ///
    /// The lock is lost, or the database does not answer.
    pub async fn verify(&self) -> Result<(), VaultError> {
        let Some(GrantedLock { turns, held: Some(held), .. }) = &self.0 else { return Ok(()) };
        let (check, (answer, answered)) = (held.check(), oneshot::channel());
        turns.handle.spawn(async move { answer.send(check.await).map_err(drop) });
        let verified = answered.await.unwrap_or_else(|_| Err(DatabaseError::silent()));
        verified.map_err(|error| error.into_vault(&turns.replica.database.config))
    }
}

impl Drop for GrantedLock {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let (turns, address, generation) =
            (Arc::clone(&self.turns), std::mem::take(&mut self.address), self.generation);
        self.turns.handle.spawn(async move { turns.end(&address, generation, held).await });
    }
}
