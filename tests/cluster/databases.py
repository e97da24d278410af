"""Databases that a replica must not use: each is refused at the start, and nothing in it is overwritten. And the copy of a vault."""

import re
import subprocess
import time

from process import Failure, free_port, wait_until, write_private
from stories import answer, expect, new_account, wait_for_login

TEMPORARY, CONFIG = 75, 78  # sysexits.h; systemd does not restart after 78

# All but the first line, which has the number of the write. A forgotten account is not copied.
RECORDS = r"select address, md5(substring(record from position('\x0a'::bytea in record))) from postkey_records " \
          "where address <> 'forgotten@example.test' order by address"


def start_fails(world, url, code, *words):
    """Starts a postkey of its own with this vault, which must end with this exit code and say all of these words."""
    folder = world.run.folder / f"refused-{time.monotonic_ns()}"
    folder.mkdir()
    first = world.replicas[0]
    text = first.configuration.read_text().replace(str(first.folder), str(folder))
    text = re.sub(r'postgresql = ".*"', f'postgresql = "{url}"', text).replace(f":{first.metrics_port}", f":{free_port()}")
    for port in first.ports.values():
        text = text.replace(f":{port}", f":{free_port()}")
    write_private(folder / "client-secret", "s\n")
    file = write_private(folder / "postkey.toml", text)
    done = subprocess.run([first.binary, "--config", file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    expect(done.returncode == code, f"exit code {code}, but {done.returncode}: {done.stdout[-1000:]}")
    for word in words:
        expect(re.search(word, done.stdout, re.IGNORECASE), f"{word!r} in {done.stdout[-1000:]}")


def url(world, database="postkey"):
    """The database without a forwarder."""
    return world.url(world.database.port, database)


def a_schema_of_another_version_is_refused(world):
    refused_and_unchanged(world, "newer", "postkey_schema", "version int", "1000", "1000")


def the_tables_of_somebody_else_are_refused(world):
    refused_and_unchanged(world, "foreign_tables", "postkey_records", "id int, wages text", "1, 'much'", "postkey_records")


def refused_and_unchanged(world, name, table, columns, values, word):
    """Makes a database with one table and one row in it. postkey must refuse it with this word, and leave it as it is."""
    database = world.database
    database.create(name)
    database.sql(f"create table {table} ({columns}); insert into {table} values ({values}); alter table {table} owner to postkey", name)
    before = database.sql(f"select * from {table}", name)
    start_fails(world, url(world, name), CONFIG, word)
    expect(database.sql(f"select * from {table}", name) == before, "the table is as it was")
    expect(tables(database, name) == [table], "there is no other table")


def tables(database, name):
    """The names of the tables."""
    return database.sql("select tablename from pg_tables where schemaname = 'public' order by 1", name).splitlines()


def a_wrong_url_is_refused_with_what_to_do(world):
    start_fails(world, world.url(free_port()), TEMPORARY, "cannot be used")
    start_fails(world, url(world, "missing"), CONFIG, "missing")
    start_fails(world, url(world).replace("postkey@", "nobody@"), CONFIG, "nobody|password")
    start_fails(world, url(world).replace("postkey@", "postkey:secret@"), CONFIG, "password")
    start_fails(world, url(world).replace("verify-full", "disable").replace("127.0.0.1", "192.0.2.1"), CONFIG, "sslmode")


def a_lost_privilege_is_told_and_nothing_is_lost(world):
    database, replica = world.database, world.replicas[0]
    account = new_account(world, "privilege")
    phone = replica.add_password(account, "phone")
    wait_for_login(replica, account)
    database.sql("alter table postkey_records owner to postgres")
    try:
        printed = replica.command("password", "remove", account.address, "phone", fails=True)
        expect(re.search("permission|privilege", printed), f"the command says why: {printed}")
        expect(answer(replica, account) == answer(replica, phone) == "ok", "nothing has changed")
        start_fails(world, url(world), CONFIG, "permission|privilege")
    finally:
        database.sql("alter table postkey_records owner to postkey")
    replica.command("password", "remove", account.address, "phone")
    expect(answer(replica, phone) != "ok", "it works again")


def two_daemons_on_one_state_folder_are_impossible(world):
    first = world.replicas[0]
    done = subprocess.run([first.binary, "--config", first.configuration], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, check=False)
    expect(done.returncode != 0, f"the second one ends: {done.stdout[-500:]}")
    expect(first.status()["listeners"], "the first one goes on")


def a_vault_is_copied_to_postgresql_and_back(world):
    database = world.database
    database.create("copied")
    folder = world.run.subfolder("copied")
    file = write_private(folder / "postkey.toml", re.sub(
        r'postgresql = ".*"', f'postgresql = "{url(world, "copied")}"', world.replicas[0].configuration.read_text())
        .replace(f'{world.replicas[0].folder}/state', f"{folder}/own-state"))
    there, back = folder / "there", folder / "back"
    # From the replicas' database into a folder, from there into another database, and into another folder.
    first = world.replicas[0]
    copied(first, first.configuration, "--to", there)
    copied(first, file, "--from", there)
    expect(database.sql(RECORDS, "copied") == database.sql(RECORDS), "both databases have the same records")
    before = database.sql(RECORDS, "copied")
    copied(first, file, "--from", there)
    expect(database.sql(RECORDS, "copied") == before, "a second copy changes nothing")
    copied(first, file, "--to", back)
    names = [sorted(path.name for path in each.rglob("*") if path.is_file() and "accounts" in str(path)) for each in (there, back)]
    expect(names[0] == names[1], f"both folders have the same files: {names}")


def copied(first, configuration, direction, folder):
    """Runs `postkey vault copy`."""
    done = subprocess.run([first.binary, "--config", configuration, "vault", "copy", direction, folder], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise Failure(f"vault copy {direction}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


TESTS = [
    a_wrong_url_is_refused_with_what_to_do, a_schema_of_another_version_is_refused, the_tables_of_somebody_else_are_refused,
    a_lost_privilege_is_told_and_nothing_is_lost, two_daemons_on_one_state_folder_are_impossible,
    a_vault_is_copied_to_postgresql_and_back,
]
