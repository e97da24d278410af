//! This replica's part in the database: follows what other replicas change, and notes that this one is alive.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until};

use super::error::DatabaseError;
use super::memory::{KnownRecords, Unsaved};
use super::schema;
use super::session::Database;
use super::table::Tables;

/// The pause before the next try to connect.
const PAUSE: Duration = Duration::from_secs(1);

/// How often this replica notes that it is alive, and checks that its connections are.
const BEAT: Duration = Duration::from_secs(5);

/// After so many beats, all serials are compared, in case a notification was lost.
const BEATS_UNTIL_COMPARED: u32 = 12;

/// How many beats all serials are compared after a write without an answer, because it may still arrive at the server.
const BEATS_IN_DOUBT: u32 = 3;

/// How many records are read at a time.
const BATCH: usize = 500;

/// A write starts again so often.
const TRIES: usize = 5;

pub struct Replica {
    pub database: Arc<Database>,
    pub tables: Tables,
    pub known: KnownRecords,
    /// Its name in the database.
    pub name: String,
    living: AtomicU32,
    /// For how many beats a write without an answer may still take effect.
    doubts: AtomicU32,
}

impl Replica {
    /// Checks or creates the tables, and reads all records.
    pub async fn open(database: Arc<Database>, name: String) -> Result<Self, DatabaseError> {
        schema::prepare(&database.connect(None).await?).await?;
        let tables = Tables::new(&database)?;
        // The process that has left them has ended, so it will not store new tokens any more.
        tables.end_refreshes(&name).await?;
        let mut rows = Vec::new();
        loop {
            let after = rows.last().map(|row: &super::table::RecordRow| row.address.clone()).unwrap_or_default();
            let page = tables.page(&after).await?;
            if page.is_empty() {
                break;
            }
            rows.extend(page);
        }
        let known = KnownRecords::new(rows);
        Ok(Self { database, tables, known, name, living: AtomicU32::new(1), doubts: AtomicU32::new(0) })
    }

    /// How many replicas are alive, at least 1.
    pub fn living(&self) -> u32 {
        self.living.load(Ordering::Relaxed).max(1)
    }

    pub async fn leave(&self) -> Result<(), DatabaseError> {
        self.tables.leave(&self.name).await
    }

    /// A write has had no answer, so it may take effect later.
    pub fn doubt(&self) {
        self.doubts.store(BEATS_IN_DOUBT, Ordering::Relaxed);
    }

    /// Reads a record that is no longer the one with the serial `expected`.
    pub async fn read_instead_of(&self, address: &str, expected: Option<u64>) -> Result<(), DatabaseError> {
        match self.tables.some(&[address.to_owned()]).await?.first() {
            Some(row) => self.known.take(row, expected),
            None => self.known.gone(address),
        }
        Ok(())
    }

    /// Writes new tokens that could not be written before.
    pub async fn save(&self, address: &str) -> Result<(), DatabaseError> {
        for _ in 0..TRIES {
            let Some(Unsaved { row, expected }) = self.known.unsaved_of(address) else { return Ok(()) };
            if self.tables.write(&row, Some(expected), true, &self.name).await? {
                self.known.saved(address, row.serial);
                return Ok(());
            }
            self.read_instead_of(address, Some(expected)).await?;
        }
        Err(DatabaseError::Away(format!("others keep changing the record of {address}")))
    }

    /// Follows the others' changes until the connection for that ends.
    async fn follow(&self) -> Result<Infallible, DatabaseError> {
        let (sender, mut payloads) = unbounded_channel();
        let session = self.database.connect(Some(sender)).await?;
        session.limited(session.client.batch_execute("listen postkey_records")).await?;
        schema::check(&session).await?;
        // The first notification is only about later changes.
        self.catch_up().await?;
        let (mut next, mut beats) = (Instant::now(), 0);
        loop {
            tokio::select! {
                payload = payloads.recv() => match payload {
                    Some(payload) => self.take(payload, &mut payloads).await?,
                    None => return Err(DatabaseError::Away("the connection was closed".to_owned())),
                },
                () = sleep_until(next) => {
                    // Somebody may have taken a privilege away, or changed the tables.
                    schema::check(&session).await?;
                    beats += 1;
                    self.beat(beats).await?;
                    next = Instant::now() + BEAT;
                }
            }
        }
    }

    async fn beat(&self, beats: u32) -> Result<(), DatabaseError> {
        self.living.store(self.tables.beat(&self.name).await?, Ordering::Relaxed);
        if beats.is_multiple_of(BEATS_UNTIL_COMPARED) {
            self.tables.remove_old_deposits().await?;
        }
        let doubts = self.doubts.load(Ordering::Relaxed);
        if doubts > 0 || beats.is_multiple_of(BEATS_UNTIL_COMPARED) {
            self.doubts.store(doubts.saturating_sub(1), Ordering::Relaxed);
            return self.catch_up().await;
        }
        self.settle().await
    }

    /// Takes the record that a notification names, and those that others have named since.
    async fn take(&self, first: String, others: &mut UnboundedReceiver<String>) -> Result<(), DatabaseError> {
        let mut payloads = vec![first];
        while let (true, Ok(payload)) = (payloads.len() < BATCH, others.try_recv()) {
            payloads.push(payload);
        }
        let addresses: BTreeSet<&str> = payloads.iter().filter_map(|payload| self.news(payload)).collect();
        let addresses: Vec<String> = addresses.into_iter().map(str::to_owned).collect();
        self.read(&addresses).await
    }

    /// The address of a record that another replica has written and this one does not have.
    fn news<'a>(&self, payload: &'a str) -> Option<&'a str> {
        let mut words = payload.splitn(3, ' ');
        let (serial, replica, address) = (words.next()?.parse::<u64>().ok()?, words.next()?, words.next()?);
        let is_known = replica == self.name || self.known.serial(address).is_some_and(|known| known >= serial);
        (!is_known).then_some(address)
    }

    async fn read(&self, addresses: &[String]) -> Result<(), DatabaseError> {
        for batch in addresses.chunks(BATCH) {
            for row in self.tables.some(batch).await? {
                self.known.take(&row, None);
            }
        }
        Ok(())
    }

    /// Compares all serials, and reads the records that differ.
    async fn catch_up(&self) -> Result<(), DatabaseError> {
        let before = self.known.addresses();
        let serials = self.tables.serials().await?;
        let present: BTreeSet<&str> = serials.iter().map(|(address, _)| address.as_str()).collect();
        for address in before.iter().filter(|address| !present.contains(address.as_str())) {
            self.known.gone(address);
        }
        let mut newer = Vec::new();
        for (address, serial) in serials {
            let known = self.known.serial(&address);
            if known == Some(serial) || self.known.unsaved_of(&address).is_some() {
                continue;
            }
            if known.is_none_or(|known| known < serial) {
                newer.push(address);
            } else {
                // An older one means that the database itself has been restored to an earlier state.
                self.read_instead_of(&address, known).await?;
            }
        }
        // Together, because thousands can have changed while the network was away.
        self.read(&newer).await?;
        self.settle().await
    }

    /// Stores what is only in memory. If nothing is left, there is no trouble any more.
    async fn settle(&self) -> Result<(), DatabaseError> {
        for Unsaved { row, .. } in self.known.unsaved() {
            self.save(&row.address).await?;
        }
        if !self.known.has_unsaved() {
            self.known.end_trouble();
        }
        Ok(())
    }
}

/// Follows the others' changes, and connects again whenever the connection ends. Never returns.
pub async fn run(replica: Arc<Replica>) {
    loop {
        let Err(error) = replica.follow().await;
        replica.known.begin_trouble(&error.of_database(&replica.database.config));
        sleep(PAUSE).await;
    }
}
