"""A PostgreSQL of the tests' own: in a folder of the run, on a free port, as the user that Debian's package has made for it."""

import os
import shutil
import subprocess
from pathlib import Path

from process import Failure, free_port, wait_until

BIN = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
PASSWORD = "pw-of-the-replicas"
LONGEST_START = 30

SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
ssl = on
ssl_cert_file = '{folder}/certificate.pem'
ssl_key_file = '{folder}/key.pem'
fsync = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
update_process_title = off
log_line_prefix = '%m %u %d '
"""


class Database:
    """The server. Its administrator comes through a Unix socket, the replicas by TLS with a password."""

    def __init__(self, run):
        self._run, self.port, self._cpu_before = run, free_port(), 0.0
        self.folder = run.subfolder("postgresql")
        shutil.chown(self.folder, USER, USER)
        for name, source in (("certificate.pem", run.certificate), ("key.pem", run.key)):
            shutil.copy(source, self.folder / name)
            shutil.chown(self.folder / name, USER, USER)
            (self.folder / name).chmod(0o600)
        self._data = self.folder / "data"
        self._execute("initdb", "--pgdata", self._data, "--auth-local", "trust", "--auth-host", "scram-sha-256", "--encoding", "UTF8")
        with open(self._data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(SETTINGS.format(port=self.port, folder=self.folder))
        self.start()
        self.sql(f"create role postkey login password '{PASSWORD}'", database="postgres")
        self.create("postkey")

    def create(self, name):
        """A database that belongs to the replicas' user."""
        self.sql(f"create database {name} owner postkey", database="postgres")

    def start(self):
        """Starts it, and waits until it answers."""
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", BIN / "postgres", "-D", self._data]
        self.process = self._run.start("postgresql", [str(word) for word in command], env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})
        wait_until(self._answers, "PostgreSQL", LONGEST_START)

    def stop(self, how="fast"):
        """Stops it: `fast` ends all connections first, `immediate` is as good as a crash."""
        self._cpu_before = self.cpu_seconds()
        self._execute("pg_ctl", "stop", "--pgdata", self._data, "--mode", how, "--silent")
        self._run.stop(self.process)

    def cpu_seconds(self):
        """The CPU time so far, over all restarts."""
        return self._cpu_before + self.process.cpu_seconds()

    def _answers(self):
        if self.process.child.poll() is not None:
            raise Failure(f"PostgreSQL has ended:\n{self.process.last_lines()}")
        return self._psql("select 1", "postgres").returncode == 0

    def sql(self, text, database="postkey"):
        """What a statement of the administrator gives: its rows as lines, with | between their columns."""
        done = self._psql(text, database)
        if done.returncode != 0:
            raise Failure(f"{text}: {done.stderr}")
        return done.stdout.strip()

    def _psql(self, text, database):
        command = ["psql", "--host", self.folder, "--port", str(self.port), "--username", USER, "--dbname", database, "--no-psqlrc",
                   "--tuples-only", "--no-align", "--quiet", "--command", text]
        return subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *command], capture_output=True, text=True,
                              timeout=30)

    def _execute(self, program, *arguments):
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", BIN / program, *arguments]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", timeout=60)
        if done.returncode != 0:
            raise Failure(f"{program}: {done.stdout}")
