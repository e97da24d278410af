"""postkey on the machine: its unit, its configuration, its commands."""

import imaplib
import poplib
import shlex
import smtplib

import postkey as real
from person import Person
from process import Failure, write_private

UNIT = "postkey.service"
ANN, BOB = "ann@example.test", "bob@example.test"
SYSTEM = "/etc/postkey/postkey.toml"

PROVIDER = """
[provider.test]
domains = ["example.test"]
issuer = "{issuer}"
authorization_endpoint = "{issuer}/auth"
token_endpoint = "{issuer}/token"
scope = ["openid", "email", "offline_access"]
client_id = "native"
mechanisms = ["XOAUTH2"]
ca_file = "{folder}/ca.pem"
"""

WRAPPER = """#!/bin/sh
exec {inside} postkey "$@"
"""


def expect(truth, what):
    """Fails with what should have been so."""
    if not truth:
        raise Failure(f"not so: {what}")


class Postkey(real.Postkey):
    """postkey as the machine's service, or as that of a user. Commands are given by the same user."""

    def __init__(self, world, configuration, user=None):
        self._run, self._machine, self._user = world.run, world.machine, user
        self.configuration, self._env = configuration, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.printed, self.authorized = [], []
        self._world = world

    @property
    def binary(self):
        """A program outside that is postkey inside, as long as the machine is not booted again."""
        inside = shlex.join(self._machine.inside(*([] if self._user else ["env", "HOME=/root"]), user=self._user))
        wrapper = write_private(self._run.folder / f"postkey-of-{self._user or 'root'}", WRAPPER.format(inside=inside))
        wrapper.chmod(0o700)
        return wrapper

    def configure(self, *additions, ports=None):
        """Writes the configuration: that of the package or one with these ports, the provider of the tests, and additions."""
        folder = self.configuration.rpartition("/")[0]
        head = self._machine.read("/usr/share/postkey-tests/default.toml") if ports is None else "".join(
            f'[[listener]]\nprotocol = "{protocol}"\naddress = "127.0.0.1:{port}"\nsecurity = "none"\n'
            for protocol, port in ports.items())
        provider = PROVIDER.format(issuer=self._world.server.issuer, folder=folder) + "".join(
            real.SERVER.format(name="test", protocol=protocol, port=self._world.ports[protocol, "tls"], security="tls")
            for protocol in ("imap", "pop3", "smtp"))
        self._machine.write(f"{folder}/ca.pem", self._run.ca.read_text())
        self._machine.write(self.configuration, head + provider + "".join(additions))

    def authorize(self, address, *options, line=None):
        """Authorizes an account with a browser on this machine."""
        return super().authorize(address, Person(address, self._run.ca), *options, line=line)

    def log_size(self):
        """How many lines of it the journal has so far."""
        return len(self._lines())

    def log_after(self, size):
        """The lines since."""
        return self._lines()[size:]

    def _lines(self):
        return self._machine.journal("--identifier=postkey", "--identifier=systemd").splitlines() if self._machine.is_up() else []


def login(account, port=1143):
    """One IMAP login; imaplib raises if it is refused."""
    imap = imaplib.IMAP4("127.0.0.1", port, timeout=60)
    imap.login(account.address, account.password)
    return imap


def every_protocol(account, ports=None):
    """Logs in with each protocol."""
    ports = ports or {"imap": 1143, "pop3": 1110, "smtp": 1587}
    login(account, ports["imap"]).logout()
    pop3 = poplib.POP3("127.0.0.1", ports["pop3"], timeout=60)
    pop3.user(account.address)
    pop3.pass_(account.password)
    pop3.quit()
    smtp = smtplib.SMTP("127.0.0.1", ports["smtp"], timeout=60)
    smtp.login(account.address, account.password)
    smtp.quit()


def drop_in(machine, unit, text):
    """Changes a unit as `systemctl edit` does; returns what takes it back."""
    path = f"/etc/systemd/system/{unit}.d/test.conf"
    machine.write(path, text)
    machine.execute("systemctl", "daemon-reload")

    def take_back():
        (machine.root / path.lstrip("/")).unlink()
        machine.execute("systemctl", "daemon-reload")

    return take_back


def restart(machine):
    """Restarts the service. A test restarts it more often than the unit allows."""
    machine.execute("systemctl", "reset-failed", UNIT, code=None)
    machine.execute("systemctl", "restart", UNIT)


def main_process(machine):
    """The process id of the service, inside the machine."""
    pid = int(machine.property(UNIT, "MainPID"))
    expect(pid, "the service runs")
    return pid
