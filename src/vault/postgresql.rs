//! Keeps the records in a PostgreSQL database that several replicas share.
//!
//! Each replica has all records in memory (`memory.rs`) and follows the others' changes (`follow.rs`). A write takes effect
//! only if it replaces the record that this replica knows (`table.rs`), so nothing old is ever written over something newer.
//! One thread has the connections (`session.rs`); callers wait for its answers.

mod error;
mod follow;
mod locks;
mod memory;
mod schema;
mod session;
mod table;
mod tls;
mod turns;

use std::future::Future;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::account::Entry;
use super::error::VaultError;
use super::record::Record;
use super::shared_view::SharedView;
use super::storage::{Purpose, RecordStorage, RecordWrite, WriteOutcome};
use error::DatabaseError;
use follow::Replica;
use memory::Unsaved;
pub use schema::Migrated;
pub use session::{Database, ReadPassword, ReadingPassword};
use table::RecordRow;
use turns::Turns;
pub use turns::{RefreshLock, RefreshTurn};

/// The vault in the database.
pub struct Postgresql {
    replica: Arc<Replica>,
    turns: Arc<Turns>,
    /// Leads to the thread with the connections.
    handle: Handle,
    /// The thread ends when this is dropped.
    _thread: oneshot::Sender<()>,
}

impl Postgresql {
    /// Connects, checks the tables or creates them, reads all records, and follows changes from then on. `replica` is the
    /// name of this one, which it keeps across restarts.
    ///
    /// # Errors
    ///
    /// [`VaultError::Unavailable`] if the database cannot be reached, [`VaultError::Unusable`] if somebody has to act first.
    pub fn open(database: Database, name: String) -> Result<Self, VaultError> {
        let (handle, thread) = start_thread()?;
        let config = database.config.clone();
        let opened = wait(&handle, Replica::open(Arc::new(database), name));
        let replica = opened.unwrap_or_else(|| Err(interrupted())).map_err(|error| error.into_vault(&config))?;
        let replica = Arc::new(replica);
        handle.spawn(follow::run(Arc::clone(&replica)));
        let turns = Arc::new(Turns::new(&replica, handle.clone()));
        Ok(Self { replica, turns, handle, _thread: thread })
    }

    pub fn view(&self) -> Arc<SharedView> {
        Arc::clone(&self.replica.known.view)
    }

    /// How many replicas use the database now, at least 1.
    pub fn replicas(&self) -> u32 {
        self.replica.living()
    }

    /// Waits until this replica may refresh an account's token set of this generation, or finds out why it may not.
    pub async fn begin_refresh(&self, address: &str, generation: u64) -> Result<RefreshTurn, VaultError> {
        let (turns, address) = (Arc::clone(&self.turns), address.to_owned());
        self.ask(async move { turns.begin(&address, generation).await }).await
    }

    /// Leaves sealed bytes for the other replicas, for so long.
    pub async fn deposit(&self, id: &[u8], sealed: Vec<u8>, time: Duration) -> Result<(), VaultError> {
        let (replica, id) = (Arc::clone(&self.replica), id.to_vec());
        self.ask(async move { replica.tables.deposit(&id, &sealed, time).await }).await
    }

    /// Sealed bytes that a replica has left, and how long they will still be there.
    pub async fn read_deposit(&self, id: &[u8]) -> Result<Option<(Vec<u8>, Duration)>, VaultError> {
        let (replica, id) = (Arc::clone(&self.replica), id.to_vec());
        self.ask(async move { replica.tables.read_deposit(&id).await }).await
    }

    /// Removes what a replica has left. Returns whether it was there.
    pub async fn remove_deposit(&self, id: &[u8]) -> Result<bool, VaultError> {
        let (replica, id) = (Arc::clone(&self.replica), id.to_vec());
        self.ask(async move { replica.tables.remove_deposit(&id).await }).await
    }

    /// Does work on the thread with the connections, and waits for it without blocking this one.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DatabaseError>> + Send + 'static,
    ) -> Result<T, VaultError> {
        let (answer, answered) = oneshot::channel();
        self.handle.spawn(async move { answer.send(work.await).map_err(drop) });
        answered.await.unwrap_or_else(|_| Err(interrupted())).map_err(|error| self.troubled(error))
    }

    /// Ends the membership of this replica, because its process ends.
    pub fn leave(&self) -> Result<(), VaultError> {
        let replica = Arc::clone(&self.replica);
        self.wait(async move { replica.leave().await })
    }

    /// A record as the database has it now.
    pub fn read_again(&self, address: &str) -> Result<Option<Vec<u8>>, VaultError> {
        let (replica, address) = (Arc::clone(&self.replica), address.to_owned());
        let rows = self.wait(async move { replica.tables.some(&[address]).await })?;
        Ok(rows.into_iter().next().map(|row| row.bytes))
    }

    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DatabaseError>> + Send + 'static,
    ) -> Result<T, VaultError> {
        wait(&self.handle, work).unwrap_or_else(|| Err(interrupted())).map_err(|error| self.troubled(error))
    }

    /// Notes that the database cannot be used, and returns the error for whoever wanted to use it.
    fn troubled(&self, error: DatabaseError) -> VaultError {
        let database = &self.replica.database.config;
        self.replica.known.begin_trouble(&error.of_database(database));
        error.into_vault(database)
    }

    /// Writes a record. Returns whether it has replaced the one with the serial `expected`.
    fn write(&self, row: RecordRow, expected: Option<u64>, ends_refresh: bool) -> Result<bool, VaultError> {
        let replica = Arc::clone(&self.replica);
        self.wait(async move {
            let written = replica.tables.write(&row, expected, ends_refresh, &replica.name).await;
            let is_written = written.inspect_err(|_| replica.doubt())?;
            if !is_written {
                replica.read_instead_of(&row.address, expected).await?;
            }
            Ok(is_written)
        })
    }

    /// Writes new tokens of this account that could not be written before.
    fn save(&self, address: &str) -> Result<(), VaultError> {
        if self.replica.known.unsaved_of(address).is_none() {
            return Ok(());
        }
        let (replica, address) = (Arc::clone(&self.replica), address.to_owned());
        self.wait(async move { replica.save(&address).await })
    }
}

impl RecordStorage for Postgresql {
    fn serial(&self, address: &str) -> Option<u64> {
        self.replica.known.serial(address)
    }

    fn entry(&self, address: &str) -> Option<Entry> {
        self.replica.known.entry(address)
    }

    fn record(&self, address: &str) -> Option<Record> {
        self.replica.known.record(address)
    }

    fn addresses(&self) -> Vec<String> {
        self.replica.known.addresses()
    }

    /// Nothing is changed in memory before the database has stored it, except that new tokens are kept and stored later.
    fn put(
        &self,
        RecordWrite { address, entry, expected, seen, purpose }: RecordWrite<'_>,
    ) -> Result<WriteOutcome, VaultError> {
        let known = &self.replica.known;
        self.save(address)?;
        if known.serial(address) != expected {
            return Ok(WriteOutcome::Conflict);
        }
        let ends_refresh = known.generation(address) != Some(entry.generation());
        let record = known.make(entry, expected, seen);
        let (serial, bytes) = (record.serial, record.to_bytes(address));
        let row = RecordRow { address: address.to_owned(), serial, bytes };
        match (self.write(row, expected, ends_refresh), expected, purpose) {
            (Ok(true), ..) => known.written(address, record),
            (Ok(false), ..) => return Ok(WriteOutcome::Conflict),
            (Err(VaultError::Unavailable(_)), Some(expected), Purpose::Tokens) => known.hold(address, record, expected),
            (Err(error), ..) => return Err(error),
        }
        Ok(WriteOutcome::Written)
    }

    /// Tries to store tokens that are only in memory. The rest heals by itself.
    fn heal(&self) -> Vec<String> {
        for Unsaved { row, .. } in self.replica.known.unsaved() {
            if self.save(&row.address).is_err() {
                break;
            }
        }
        Vec::new()
    }

    fn has_unsaved(&self) -> bool {
        self.replica.known.has_unsaved()
    }

    /// Nothing waits for the database while it holds anything that others need.
    fn is_free(&self) -> bool {
        true
    }
}

/// Checks the tables, or creates them if there are none.
///
/// # Errors
///
/// As [`Postgresql::open`].
pub fn migrate(database: Database) -> Result<Migrated, VaultError> {
    let config = database.config.clone();
    let (handle, _thread) = start_thread()?;
    let migrated = wait(&handle, async move { schema::prepare(&database.connect(None).await?).await });
    migrated.unwrap_or_else(|| Err(interrupted())).map_err(|error| error.into_vault(&config))
}

/// Starts the thread for the connections. It ends when the sender is dropped.
fn start_thread() -> Result<(Handle, oneshot::Sender<()>), VaultError> {
    let (sender, ended) = oneshot::channel::<()>();
    let (to_caller, handle) = mpsc::sync_channel(1);
    let serve = move || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        let _gone = to_caller.send(runtime.handle().clone());
        runtime.block_on(async { drop(ended.await) });
        runtime.shutdown_background();
    };
    let started = thread::Builder::new().name("database".to_owned()).spawn(serve);
    let handle = started.ok().and_then(|_| handle.recv().ok());
    Ok((handle.ok_or(VaultError::Interrupted)?, sender))
}

/// Waits for work on the thread with the connections. None if that thread has ended.
fn wait<T: Send + 'static>(handle: &Handle, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let (answer, answered) = mpsc::sync_channel(1);
    handle.spawn(async move { answer.send(work.await).map_err(drop) });
    answered.recv().ok()
}

fn interrupted() -> DatabaseError {
    DatabaseError::Away("postkey is about to end".to_owned())
}
