//! The tables of the vault in the database, and their version.
//!
//! They are created in a database that has none of them. After that, only `postkey vault migrate` changes them, because a
//! newer replica may start beside an older one.

use std::collections::BTreeSet;

use super::error::DatabaseError;
use super::session::ServerSession;

/// The version of the tables that this version of postkey uses.
const VERSION: i32 = 1;

/// The key of the advisory lock under which the tables are created or changed.
const LOCK: i64 = 0x706f_7374_6b65_7900;

const CREATE: &str = "
create table postkey_records (
    address text primary key,
    serial bigint not null,
    record bytea not null,
    refreshing text,
    refreshing_since timestamptz
);
create table postkey_deposits (id bytea primary key, sealed bytea not null, expires timestamptz not null);
create table postkey_replicas (replica text primary key, seen timestamptz not null);
create table postkey_schema (version integer not null);
insert into postkey_schema values (1);
";

/// The columns of version 1.
const COLUMNS: [&str; 11] = [
    "postkey_deposits.expires timestamp with time zone",
    "postkey_deposits.id bytea",
    "postkey_deposits.sealed bytea",
    "postkey_records.address text",
    "postkey_records.record bytea",
    "postkey_records.refreshing text",
    "postkey_records.refreshing_since timestamp with time zone",
    "postkey_records.serial bigint",
    "postkey_replicas.replica text",
    "postkey_replicas.seen timestamp with time zone",
    "postkey_schema.version integer",
];

const FIND_COLUMNS: &str = "
select c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, null)
from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.oid in (
    to_regclass('postkey_records'), to_regclass('postkey_replicas'), to_regclass('postkey_deposits'),
    to_regclass('postkey_schema')
)
and a.attnum > 0 and not a.attisdropped";

const FIND_MISSING_PRIVILEGES: &str = "
select p.privilege || ' on ' || p.relation
from (values
    ('postkey_records', 'select'), ('postkey_records', 'insert'), ('postkey_records', 'update'),
    ('postkey_replicas', 'select'), ('postkey_replicas', 'insert'), ('postkey_replicas', 'update'),
    ('postkey_replicas', 'delete'),
    ('postkey_deposits', 'select'), ('postkey_deposits', 'insert'), ('postkey_deposits', 'update'),
    ('postkey_deposits', 'delete')
) as p (relation, privilege)
where not has_table_privilege(p.relation, p.privilege)";

/// What `postkey vault migrate` has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrated {
    /// The tables have been created.
    Created,
    /// They already had this version.
    Unchanged,
}

/// Checks that the tables are those of this version, or creates them if there are none.
pub async fn prepare(session: &ServerSession) -> Result<Migrated, DatabaseError> {
    let client = &session.client;
    session.limited(client.batch_execute(&format!("begin; select pg_advisory_xact_lock({LOCK})"))).await?;
    let prepared = check_or_create(session).await;
    let end = if prepared.is_ok() { "commit" } else { "rollback" };
    session.limited(client.batch_execute(end)).await?;
    prepared
}

async fn check_or_create(session: &ServerSession) -> Result<Migrated, DatabaseError> {
    if !columns(session).await?.is_empty() {
        return check(session).await.map(|()| Migrated::Unchanged);
    }
    match session.limited(session.client.batch_execute(CREATE)).await {
        Ok(()) => Ok(Migrated::Created),
        Err(DatabaseError::Refused(why)) => Err(DatabaseError::Refused(format!(
            "its tables cannot be created: {why}; make the user of the URL the owner of the database"
        ))),
        Err(error) => Err(error),
    }
}

/// Checks that the tables are those of this version.
pub async fn check(session: &ServerSession) -> Result<(), DatabaseError> {
    let found = columns(session).await?;
    check_version(session, &found).await?;
    check_columns(&found)?;
    check_privileges(session).await
}

async fn columns(session: &ServerSession) -> Result<BTreeSet<String>, DatabaseError> {
    let rows = session.limited(session.client.query(FIND_COLUMNS, &[])).await?;
    Ok(rows.iter().filter_map(|row| row.try_get(0).ok()).collect())
}

async fn check_version(session: &ServerSession, found: &BTreeSet<String>) -> Result<(), DatabaseError> {
    // Another version may have other columns, but never another version number.
    if !found.contains("postkey_schema.version integer") {
        return Ok(());
    }
    let rows = session.limited(session.client.query("select version from postkey_schema", &[])).await?;
    let versions: Vec<i32> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    match versions[..] {
        [VERSION] => Ok(()),
        [version] if version > VERSION => Err(DatabaseError::Refused(format!(
            "its tables have version {version}, and this postkey knows only version {VERSION}; install the version of \
             postkey that the other replicas have"
        ))),
        [version] => Err(DatabaseError::Refused(format!(
            "its tables have version {version}, and no postkey has made such tables; name a database of postkey's own"
        ))),
        _ => Err(foreign("postkey_schema")),
    }
}

fn check_columns(found: &BTreeSet<String>) -> Result<(), DatabaseError> {
    let wanted: BTreeSet<String> = COLUMNS.map(str::to_owned).into();
    if *found == wanted {
        return Ok(());
    }
    // A table that is missing says less than one that is there.
    let stray = found.difference(&wanted).next().or_else(|| found.iter().next());
    Err(stray.map_or_else(
        || DatabaseError::Refused("its tables are gone; restore them from a backup".to_owned()),
        |stray| foreign(stray.split('.').next().unwrap_or(stray)),
    ))
}

fn foreign(table: &str) -> DatabaseError {
    DatabaseError::Refused(format!(
        "its table {table} is not one that postkey has made, so postkey leaves it alone; name a database of postkey's own"
    ))
}

async fn check_privileges(session: &ServerSession) -> Result<(), DatabaseError> {
    let rows = session.limited(session.client.query(FIND_MISSING_PRIVILEGES, &[])).await?;
    let missing: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(DatabaseError::Refused(format!("its user lacks a privilege: {missing}; grant it to the user of the URL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_tables_that_are_exactly_ours_are_used() {
        assert!(check_columns(&columns(&COLUMNS)).is_ok());
        for (found, named) in [
            (columns(&["postkey_records.id integer"]), "table postkey_records is"),
            (columns(&COLUMNS[3..8]), "table postkey_records is"),
            (columns(&[&COLUMNS[..], &["postkey_schema.note text"]].concat()), "table postkey_schema is"),
        ] {
            let error = check_columns(&found).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
