"""`postkey vault migrate`: what it does, what it leaves alone, and what it says of that."""

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from databases import CONFIG, TEMPORARY, tables, url
from process import free_port, wait_until, write_private
from stories import answer, expect, is_open, login, new_account, wait_for_login

CREATED, UNCHANGED = "The tables have been created.\n", "The tables already are those of this version.\n"

COLUMNS = "select table_name, column_name, data_type from information_schema.columns where table_schema = 'public' order by 1, 2"


def migrate(world, database_url, code=0, words=(), vault=None):
    """Runs the command with this database, or with this [vault]. It must end with this exit code, and say all of these words."""
    first = world.replicas[0]
    folder = world.run.subfolder(f"migration-{time.monotonic_ns()}")
    text = first.configuration.read_text().replace(str(first.folder), str(folder))
    text = re.sub(r'postgresql = ".*"', f'postgresql = "{database_url}"', text)
    if vault is not None:
        text = re.sub(r"\[vault\].*?(?=\n\[)", vault, text, flags=re.DOTALL)
    write_private(folder / "client-secret", "s\n")
    file = write_private(folder / "postkey.toml", text)
    return run(first.binary, file, code, words)


def run(binary, configuration, code=0, words=()):
    """The same with a configuration."""
    done = subprocess.run([binary, "--config", configuration, "vault", "migrate"], capture_output=True, text=True, timeout=60, check=False)
    expect(done.returncode == code, f"exit code {code}, but {done.returncode}: {done.stdout}{done.stderr}")
    # What it has done is output, what is wrong is a message, and nothing else is said.
    expect(not (done.stdout if code else done.stderr), f"a silent other side, but {done.stdout!r} and {done.stderr!r}")
    printed = done.stderr if code else done.stdout
    for word in words:
        expect(re.search(word, printed), f"{word!r} in {printed!r}")
    return printed


def everything(world, database):
    """The columns and rows of a database whose tables are small."""
    rows = {table: world.database.sql(f"select * from {table} order by 1", database) for table in tables(world.database, database)}
    return world.database.sql(COLUMNS, database), rows


def refused(world, database, *words):
    """The command must refuse this database for good, and leave it as it is."""
    before = everything(world, database)
    printed = migrate(world, url(world, database), CONFIG, (rf"database {database} at \S+ cannot be used: ", *words))
    expect(everything(world, database) == before, "the database is as it was")
    return printed


def migrated(world, name):
    """A new database with the tables."""
    world.database.create(name)
    expect(migrate(world, url(world, name)) == CREATED, "the tables are created")


def an_empty_database_gets_its_tables_and_a_second_run_changes_nothing(world):
    migrated(world, "migrated")
    before = everything(world, "migrated")
    expect("postkey_records" in before[1], "the table of the records is there")
    expect(migrate(world, url(world, "migrated")) == UNCHANGED, "the second run finds them")
    expect(everything(world, "migrated") == before, "and changes nothing")
    expect(before[0] == world.database.sql(COLUMNS), "a replica makes the same tables")


def tables_with_other_names_are_nobodys_business(world):
    world.database.create("shared_with_others")
    world.database.sql("create table wages (much int); insert into wages values (7)", "shared_with_others")
    expect(migrate(world, url(world, "shared_with_others")) == CREATED, "the tables are created beside them")
    expect(world.database.sql("select * from wages", "shared_with_others") == "7", "they stay")


def several_at_once_create_the_tables_once(world):
    world.database.create("at_once")
    with ThreadPoolExecutor(5) as pool:
        printed = list(pool.map(lambda _: migrate(world, url(world, "at_once")), range(5)))
    expect(sorted(printed) == sorted([CREATED] + 4 * [UNCHANGED]), f"one has created them: {printed}")


def tables_of_a_newer_postkey_are_left_alone(world):
    migrated(world, "newer_tables")
    world.database.sql("update postkey_schema set version = 1000", "newer_tables")
    refused(world, "newer_tables", "version 1000", "install the version")
    # A later version may have other columns.
    world.database.sql("alter table postkey_records add column later text", "newer_tables")
    refused(world, "newer_tables", "version 1000", "install the version")


def tables_older_than_any_are_left_alone(world):
    migrated(world, "older_tables")
    world.database.sql("update postkey_schema set version = 0", "older_tables")
    refused(world, "older_tables", "version 0")


def the_tables_of_somebody_else_are_left_alone(world):
    world.database.create("foreign_records")
    world.database.sql("create table postkey_records (id int, wages text); insert into postkey_records values (1, 'much');"
                       "alter table postkey_records owner to postkey", "foreign_records")
    refused(world, "foreign_records", "postkey_records", "of postkey's own")
    migrated(world, "foreign_column")
    world.database.sql("alter table postkey_replicas add column wages text", "foreign_column")
    refused(world, "foreign_column", "postkey_replicas", "of postkey's own")
    migrated(world, "no_version")
    world.database.sql("delete from postkey_schema", "no_version")
    refused(world, "no_version", "postkey_schema", "of postkey's own")


def a_missing_privilege_is_named(world):
    world.database.sql("create database of_somebody_else", "postgres")
    refused(world, "of_somebody_else", "cannot be created", "permission denied", "make the user of the URL the owner")
    migrated(world, "without_update")
    world.database.sql("alter table postkey_records owner to postgres; grant select, insert on postkey_records to postkey", "without_update")
    printed = refused(world, "without_update", "privilege: update on postkey_records", "grant it")
    expect("insert on" not in printed, f"only what is missing is named: {printed}")
    world.database.sql("revoke select on postkey_records from postkey", "without_update")
    refused(world, "without_update", "permission denied|privilege: select on postkey_records")


def a_database_that_is_away_may_be_tried_again(world):
    migrate(world, world.url(free_port()), TEMPORARY, ("cannot be used", "try again later"))
    replica = world.replicas[0]
    replica.network.cut()
    try:
        run(replica.binary, replica.configuration, TEMPORARY, ("cannot be used", "try again later"))
    finally:
        replica.network.restore()
    wait_until(lambda: replica.metric("postkey_vault_degraded") == 0, "the end of the replica's trouble", 30)


def a_wrong_url_has_to_be_corrected(world):
    migrate(world, url(world, "missing"), CONFIG, ('database "missing" does not exist',))
    migrate(world, url(world).replace("postkey@", "nobody@"), CONFIG, ("password authentication failed",))


def without_postgresql_in_the_configuration_there_is_nothing_to_do(world):
    migrate(world, "", CONFIG, (r"no \[vault\]",), vault="")


def replicas_that_are_running_do_not_notice(world):
    account = new_account(world, "migrating")
    for replica in world.replicas:
        wait_for_login(replica, account)
    session = login(world.replicas[0], account)
    for replica in world.replicas:
        expect(run(replica.binary, replica.configuration) == UNCHANGED, f"with the configuration of {replica.name}")
    expect([answer(replica, account) for replica in world.replicas] == 3 * ["ok"], "logins go on")
    expect(is_open(session), "so does a session")
    session.logout()
    for replica in world.replicas:
        expect(replica.metric("postkey_vault_degraded") == 0, f"{replica.name} has no trouble")


TESTS = [
    an_empty_database_gets_its_tables_and_a_second_run_changes_nothing, tables_with_other_names_are_nobodys_business,
    several_at_once_create_the_tables_once, tables_of_a_newer_postkey_are_left_alone, tables_older_than_any_are_left_alone,
    the_tables_of_somebody_else_are_left_alone, a_missing_privilege_is_named, a_database_that_is_away_may_be_tried_again,
    a_wrong_url_has_to_be_corrected, without_postgresql_in_the_configuration_there_is_nothing_to_do, replicas_that_are_running_do_not_notice,
]
