//! The statements on the tables, and the pool of connections for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::error::DatabaseError;
use super::session::{Database, LIMIT, ServerSession};

/// How many connections a replica uses for statements at most. It has two more: for its locks, and to listen.
const CONNECTIONS: usize = 8;

const PAGE: &str = "select address, serial, record from postkey_records where address > $1 order by address limit 500";

const SOME: &str = "select address, serial, record from postkey_records where address = any($1)";

const SERIALS: &str = "select address, serial from postkey_records";

/// The notification goes out with the commit.
const INSERT: &str = "
with done as (
    insert into postkey_records (address, serial, record) values ($1, $2, $3)
    on conflict do nothing returning address
)
select pg_notify('postkey_records', $4) from done";

const UPDATE: &str = "
with done as (
    update postkey_records set serial = $2, record = $3,
        refreshing = case when $6 then null else refreshing end,
        refreshing_since = case when $6 then null else refreshing_since end
    where address = $1 and serial = $5 returning address
)
select pg_notify('postkey_records', $4) from done";

const BEGIN_REFRESH: &str = "
update postkey_records set refreshing = $2, refreshing_since = now()
where address = $1 and (refreshing is null or refreshing = $2) returning serial";

const FIND_CLAIM: &str = "
select coalesce(refreshing, ''), coalesce(refreshing_since::text, '') from postkey_records where address = $1";

const TAKE_CLAIM: &str = "
update postkey_records set refreshing = $2, refreshing_since = now()
where address = $1 and refreshing = $3 and refreshing_since::text = $4 returning serial";

const END_REFRESH: &str = "
update postkey_records set refreshing = null, refreshing_since = null where address = $1 and refreshing = $2";

const END_REFRESHES: &str =
    "update postkey_records set refreshing = null, refreshing_since = null where refreshing = $1";

const BEAT: &str = "
insert into postkey_replicas (replica, seen) values ($1, now()) on conflict (replica) do update set seen = now()";

/// Replicas that have been seen within three beats.
const COUNT: &str = "select count(*) from postkey_replicas where seen > now() - interval '15 seconds'";

const LEAVE: &str = "delete from postkey_replicas where replica = $1 or seen < now() - interval '1 day'";

const DEPOSIT: &str = "
insert into postkey_deposits (id, sealed, expires) values ($1, $2, now() + $3 * interval '1 second')
on conflict (id) do update set sealed = excluded.sealed, expires = excluded.expires";

const READ_DEPOSIT: &str = "
select sealed, extract(epoch from expires - now())::float8 from postkey_deposits where id = $1 and expires > now()";

const REMOVE_DEPOSIT: &str = "delete from postkey_deposits where id = $1 and expires > now() returning id";

const REMOVE_OLD_DEPOSITS: &str = "delete from postkey_deposits where expires <= now()";

/// A record in the database.
pub struct RecordRow {
    pub address: String,
    pub serial: u64,
    pub bytes: Vec<u8>,
}

/// The state of a record in the database when a refresh begins.
pub enum RefreshRow {
    /// The intent to refresh is stored. The record has this serial.
    Begun(u64),
    /// Another replica has stored its intent, and neither new tokens nor the end of its attempt.
    Claimed(Claim),
    /// There is no such record.
    Missing,
}

/// The stored intent of a replica to refresh an account's tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Claim {
    pub replica: String,
    /// The time by the database's clock, as it writes it.
    pub since: String,
}

/// The tables in the database.
pub struct Tables {
    pool: Pool<Sessions>,
}

/// Makes the pool's connections.
struct Sessions(Arc<Database>);

/// A connection of the pool, with the statements that have been prepared on it.
struct PooledSession {
    session: ServerSession,
    statements: HashMap<&'static str, Statement>,
}

impl managed::Manager for Sessions {
    type Type = PooledSession;
    type Error = DatabaseError;

    async fn create(&self) -> Result<PooledSession, DatabaseError> {
        Ok(PooledSession { session: self.0.connect(None).await?, statements: HashMap::new() })
    }

    async fn recycle(&self, pooled: &mut PooledSession, _: &Metrics) -> RecycleResult<DatabaseError> {
        if pooled.session.is_alive() { Ok(()) } else { Err(RecycleError::message("the connection is closed")) }
    }
}

impl PooledSession {
    async fn query(&mut self, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, DatabaseError> {
        let Self { session, statements } = self;
        if !statements.contains_key(sql) {
            statements.insert(sql, session.limited(session.client.prepare(sql)).await?);
        }
        match statements.get(sql) {
            Some(statement) => session.limited(session.client.query(statement, values)).await,
            None => Ok(Vec::new()),
        }
    }
}

impl Tables {
    pub fn new(database: &Arc<Database>) -> Result<Self, DatabaseError> {
        let builder = Pool::builder(Sessions(Arc::clone(database))).max_size(CONNECTIONS);
        let pool = builder.runtime(deadpool::Runtime::Tokio1).wait_timeout(Some(LIMIT)).build();
        Ok(Self { pool: pool.map_err(|error| DatabaseError::Away(error.to_string()))? })
    }

    async fn query(&self, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, DatabaseError> {
        let mut pooled: Object<Sessions> = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => DatabaseError::silent(),
            error => DatabaseError::Away(error.to_string()),
        })?;
        pooled.query(sql, values).await
    }

    /// Some of the records after this address, in the order of their addresses; none after the last one.
    pub async fn page(&self, after: &str) -> Result<Vec<RecordRow>, DatabaseError> {
        self.query(PAGE, &[&after]).await?.iter().map(record_row).collect()
    }

    /// The records of these addresses.
    pub async fn some(&self, addresses: &[String]) -> Result<Vec<RecordRow>, DatabaseError> {
        self.query(SOME, &[&addresses]).await?.iter().map(record_row).collect()
    }

    /// The serials of all records, by address.
    pub async fn serials(&self) -> Result<Vec<(String, u64)>, DatabaseError> {
        let read = |row: &Row| Ok((column(row, 0)?, serial(column(row, 1)?)));
        self.query(SERIALS, &[]).await?.iter().map(read).collect()
    }

    /// Writes a record in the place of the one with the serial `expected`. Returns whether that one was there.
    /// `ends_refresh` is whether there is another token set, so that nobody refreshes the old one any more.
    pub async fn write(
        &self,
        RecordRow { address, serial, bytes }: &RecordRow,
        expected: Option<u64>,
        ends_refresh: bool,
        replica: &str,
    ) -> Result<bool, DatabaseError> {
        let payload = format!("{serial} {replica} {address}");
        let serial = signed(*serial);
        let rows = match expected.map(signed) {
            None => self.query(INSERT, &[address, &serial, bytes, &payload]).await?,
            Some(expected) => {
                self.query(UPDATE, &[address, &serial, bytes, &payload, &expected, &ends_refresh]).await?
            }
        };
        Ok(!rows.is_empty())
    }

    /// Stores the intent to refresh an account, unless another replica's is there.
    pub async fn begin_refresh(&self, address: &str, replica: &str) -> Result<RefreshRow, DatabaseError> {
        if let Some(row) = self.query(BEGIN_REFRESH, &[&address, &replica]).await?.first() {
            return Ok(RefreshRow::Begun(serial(column(row, 0)?)));
        }
        match self.query(FIND_CLAIM, &[&address]).await?.first() {
            Some(row) => Ok(RefreshRow::Claimed(Claim { replica: column(row, 0)?, since: column(row, 1)? })),
            None => Ok(RefreshRow::Missing),
        }
    }

    /// Puts this replica's intent in the place of another's. Returns the record's serial, or None if that other intent is
    /// no longer there.
    pub async fn take_claim(&self, address: &str, replica: &str, claim: &Claim) -> Result<Option<u64>, DatabaseError> {
        let rows = self.query(TAKE_CLAIM, &[&address, &replica, &claim.replica, &claim.since]).await?;
        rows.first().map(|row| column(row, 0).map(serial)).transpose()
    }

    /// Removes this replica's intent to refresh an account.
    pub async fn end_refresh(&self, address: &str, replica: &str) -> Result<(), DatabaseError> {
        self.query(END_REFRESH, &[&address, &replica]).await.map(drop)
    }

    /// Removes all intents of this replica.
    pub async fn end_refreshes(&self, replica: &str) -> Result<(), DatabaseError> {
        self.query(END_REFRESHES, &[&replica]).await.map(drop)
    }

    /// Notes that this replica is alive, and returns how many are.
    pub async fn beat(&self, replica: &str) -> Result<u32, DatabaseError> {
        self.query(BEAT, &[&replica]).await?;
        let rows = self.query(COUNT, &[]).await?;
        let count: i64 = rows.first().map_or(Ok(1), |row| column(row, 0))?;
        Ok(u32::try_from(count).unwrap_or(1).max(1))
    }

    /// Notes that this replica ends, and removes those that nobody has seen for a day.
    pub async fn leave(&self, replica: &str) -> Result<(), DatabaseError> {
        self.query(LEAVE, &[&replica]).await.map(drop)
    }

    /// Leaves sealed bytes for the other replicas, in place of those that were there.
    pub async fn deposit(&self, id: &[u8], sealed: &[u8], time: Duration) -> Result<(), DatabaseError> {
        self.query(DEPOSIT, &[&id, &sealed, &time.as_secs_f64()]).await.map(drop)
    }

    /// Sealed bytes that a replica has left, and how long they will still be there.
    pub async fn read_deposit(&self, id: &[u8]) -> Result<Option<(Vec<u8>, Duration)>, DatabaseError> {
        let rows = self.query(READ_DEPOSIT, &[&id]).await?;
        let left = |row| column(row, 1).map(|left| Duration::try_from_secs_f64(left).unwrap_or_default());
        rows.first().map(|row| Ok((column(row, 0)?, left(row)?))).transpose()
    }

    /// Removes what a replica has left. Returns whether it was there.
    pub async fn remove_deposit(&self, id: &[u8]) -> Result<bool, DatabaseError> {
        Ok(!self.query(REMOVE_DEPOSIT, &[&id]).await?.is_empty())
    }

    /// Removes what replicas have left and nobody has fetched in time.
    pub async fn remove_old_deposits(&self) -> Result<(), DatabaseError> {
        self.query(REMOVE_OLD_DEPOSITS, &[]).await.map(drop)
    }
}

fn record_row(row: &Row) -> Result<RecordRow, DatabaseError> {
    Ok(RecordRow { address: column(row, 0)?, serial: serial(column(row, 1)?), bytes: column(row, 2)? })
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, DatabaseError> {
    row.try_get(index).map_err(|error| DatabaseError::of(&error))
}

/// PostgreSQL has no unsigned numbers. A serial grows by one with each write, and begins with a time in seconds.
fn signed(serial: u64) -> i64 {
    i64::try_from(serial).unwrap_or(i64::MAX)
}

fn serial(signed: i64) -> u64 {
    u64::try_from(signed).unwrap_or_default()
}
