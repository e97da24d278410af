"""The program under test, in normal use: its configuration, its daemon, its commands."""

import json
import os
import pty
import re
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass

from authorization_server import ASSERTING, SCOPE
from process import Failure, wait_until, write_private

SECURITIES = ("none", "starttls", "tls")

HEAD = """
state_dir = "{folder}/state"
log = "trace"
"""

LISTENER = """
[[listener]]
protocol = "{protocol}"
address = ["127.0.0.1:0"]
security = "{security}"
"""

CERTIFICATE = """certificate = "{certificate}"
key = "{key}"
"""

PROVIDER = """
[provider.{name}]
domains = ["{domain}"]
authorization_endpoint = "{issuer}/auth"
token_endpoint = "{issuer}/token"
revocation_endpoint = "{issuer}/token/revocation"
issuer = "{issuer}"
scope = {scope}
client_id = "native"
authorization_parameters = {{ prompt = "consent" }}
redirect_uri = "http://127.0.0.1/"
mechanisms = {mechanisms}
ca_file = "{ca}"
device_authorization_endpoint = "{issuer}/device/auth"
assertion = {{ issuer = "{asserting}", key = {{ command = {from_pkcs12} }} }}
"""

# The accounts that need no browser, which grants.py tests, and those with a client of their own.
GRANTS = """
[account."device@example.test"]
flow = "device-code"

[account."secret@example.test"]
flow = "client-credentials"
client_id = "service-secret"
client_secret = {{ command = ["/bin/cat", "{secret}"] }}

[account."key@example.test"]
flow = "client-credentials"
client_id = "service-key"
client_key = {{ file = "{key}" }}
client_certificate = "{certificate}"

[account."assertion@example.test"]
flow = "jwt-bearer"

[account."password@example.test"]
flow = "password"
legacy = true

[account."office@example.test"]
delegate = "ann@example.test"

[account."mia@example.test"]
client_id = "lasting"

[account."*@whole.test"]
provider = "test"
"""

SERVER = """
[provider.{name}.{protocol}]
host = "127.0.0.1"
port = {port}
security = "{security}"
"""

# One of which nothing is known but the issuer: postkey finds out the endpoints, and registers itself.
DISCOVERED = """
[provider.{name}]
domains = ["{domain}"]
issuer = "{issuer}"
scope = {scope}
authorization_parameters = {{ prompt = "consent" }}
mechanisms = {mechanisms}
ca_file = "{ca}"
"""

# Between them the first two cover TLS and STARTTLS, and both mechanisms.
PROVIDERS = [
    {"name": "test", "domain": "example.test", "security": "tls", "mechanisms": ["OAUTHBEARER", "XOAUTH2"]},
    {"name": "starttls", "domain": "starttls.test", "security": "starttls", "mechanisms": ["XOAUTH2"]},
    {"name": "discovered", "domain": "discovered.test", "security": "tls", "mechanisms": ["OAUTHBEARER"], "head": DISCOVERED},
]

# A mailbox that Ann may open, and a domain whose addresses nobody has to set up beforehand.
# The one line with a password, which is meant to be seen.
SHOWN_PASSWORD = re.compile(r"^\s+password\s+([0-9a-z-]{20,})\b.*$", re.MULTILINE)


@dataclass(frozen=True)
class Listener:
    """A local port of the daemon."""

    protocol: str
    security: str
    port: int


@dataclass(frozen=True)
class Account:
    """What a client needs: a user name and an app password."""

    address: str
    password: str


class Postkey:
    """One configuration, and the daemon that serves it. Remembers the output of commands and the accounts."""

    def __init__(self, run, binary, configuration, listeners=3 * len(SECURITIES), name="postkey", env=None):
        """`configuration` has the text for a folder; `listeners` says how many ports it opens, `env` what else is set."""
        self._run, self.binary, self._listeners, self._name = run, binary, listeners, name
        self.folder = run.subfolder(name)
        self.state = self.folder / "state"
        self.configuration = write_private(self.folder / "postkey.toml", configuration(self.folder))
        self._env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **(env or {})}
        self.printed, self.authorized = [], []
        self.process = None

    @property
    def log(self):
        """The daemon's log, over all restarts."""
        return self._run.folder / f"{self._name}.log"

    def log_size(self):
        """The size of the log so far, in bytes."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_after(self, size):
        """The lines of the log after this size."""
        if not self.log.exists():
            return []
        with open(self.log, "rb") as file:  # it can be long, and is read again and again
            file.seek(size)
            return file.read().decode("utf-8", "replace").splitlines()

    def start(self):
        """Starts the daemon, and waits until it listens. It reads the log, because a command could keep the vault busy."""
        log_size = self.log_size()
        self.process = self.launch([self.binary, "--config", self.configuration])

        def is_ready():
            if self.process.child.poll() is not None:
                raise Failure(f"postkey has ended by itself:\n{self.process.last_lines()}")
            return sum(": listening on " in line for line in self.log_after(log_size)) == self._listeners

        wait_until(is_ready, "all listeners in the daemon's log")

    def launch(self, command):
        """Starts the daemon's process."""
        return self._run.start(self._name, command, env=self._env)

    def stop(self):
        """Stops the daemon with SIGTERM, and checks its exit code."""
        self._run.stop(self.process)
        if self.process.child.returncode != 0:
            raise Failure(f"postkey ended with {self.process.child.returncode}")

    @contextmanager
    def configured(self, head):
        """Meanwhile, the daemon's configuration has these lines at its top."""
        text = self.configuration.read_text()
        self.configuration.write_text(head + text)
        self.command("reload")
        try:
            yield
        finally:
            self.configuration.write_text(text)
            self.command("reload")

    def kill(self):
        """Kills the daemon, which then can clean up nothing."""
        self.process.child.kill()
        self.process.child.wait()
        self._run.stop(self.process)

    def command(self, *arguments, line=None, fails=False, code=0):
        """Runs a command and returns what it prints. `line` is what it reads from standard input."""
        done = self._execute(arguments, line)
        if (done.returncode == 0 if fails else done.returncode != code):
            raise Failure(f"postkey {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def _execute(self, arguments, line=None, note=True):
        done = subprocess.run([self.binary, "--config", self.configuration, *arguments], env=self._env, timeout=60,
                              input=None if line is None else f"{line}\n", stdin=subprocess.DEVNULL if line is None else None,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if note:
            self.printed.append(done.stdout)
        return done

    def status(self):
        """The answer of `postkey status --json`."""
        return json.loads(self.command("status", "--json"))

    def settings(self, account, program):
        """The settings of an account for a program, with its password, which is not noted with the rest that is printed."""
        command = [self.binary, "--config", self.configuration, "settings", account.address, "--for", program, "--password-stdin"]
        done = subprocess.run(command, env=self._env, timeout=60, input=f"{account.password}\n", stdout=subprocess.PIPE,
                              check=True, stderr=subprocess.DEVNULL, text=True)
        return done.stdout

    def listeners(self):
        """The daemon's ports by (protocol, security)."""
        found = [Listener(entry["protocol"], entry["security"], int(entry["address"].rpartition(":")[2]))
                 for entry in self.status()["listeners"]]
        return {(listener.protocol, listener.security): listener for listener in found}

    def authorize(self, address, person, *options, paste=False, line=None):
        """Authorizes an account, with the browser on this machine or, with `paste`, on another one.

        `person` may be several, who try one after the other.
        `line` is a password of the user's own choice. Returns the account with it or with the generated one that the
        command has shown; None if it has shown none, because the account has one.
        """
        command = [self.binary, "--config", self.configuration, "authorize", address, "--timeout", "60s",
                   "--no-browser", *options]
        child = subprocess.Popen(command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)
        watchdog = threading.Timer(90, child.kill)
        watchdog.start()
        try:
            output = self._converse(child, person, paste, line)
        finally:
            watchdog.cancel()
            child.kill()
            child.wait()
        for protocol in ("IMAP", "POP3", "SMTP"):
            if not re.search(rf"^\s*{protocol}\s.*\bok$", output, re.MULTILINE):
                raise Failure(f"authorize {address} does not say that {protocol} works:\n{output}")
        return self._note(address, output, line)

    def authorize_alone(self, address, *options, line=None, act=None):
        """Authorizes an account without a browser here; returns it. `line` is what the command reads; `act` sees each line
        that it prints, until it says that it has acted."""
        command = [self.binary, "--config", self.configuration, "authorize", address, "--timeout", "60s", *options]
        child = subprocess.Popen(command, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)
        watchdog = threading.Timer(90, child.kill)
        watchdog.start()
        try:
            child.stdin.write("" if line is None else f"{line}\n")
            child.stdin.close()
            output = ""
            for printed in child.stdout:
                output += printed
                if act and act(printed, child):
                    act = None
            if child.wait(30) != 0:
                raise Failure(f"authorize {address} failed with {child.returncode}:\n{output}")
        finally:
            watchdog.cancel()
            child.kill()
            child.wait()
        return self._note(address, output, None)

    def import_alone(self, address, *arguments):
        """Imports an account from a file whose program has no passwords. Returns the account with the password that it shows."""
        done = self._execute(["import", *arguments], None, note=False)
        if done.returncode != 0:
            raise Failure(f"import: exit code {done.returncode}\n{done.stdout}")
        return self._note(address, done.stdout, None)

    def choose_provider(self, address, answer):
        """Answers the question for an address's provider on a terminal. Returns the output up to the authorization URL."""
        terminal, end = pty.openpty()
        command = [self.binary, "--config", self.configuration, "authorize", address, "--no-browser", "--timeout", "20s"]
        child = subprocess.Popen(command, env=self._env, stdin=end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            os.write(terminal, f"{answer}\n".encode())
            output = ""
            for line in child.stdout:
                output += line
                if "https://" in line:
                    break
            return output
        finally:
            child.kill()
            child.wait()
            os.close(terminal)
            os.close(end)

    def _note(self, address, output, chosen):
        """Remembers the output of a command, except the line that shows a password. Returns the account with that password."""
        shown = SHOWN_PASSWORD.search(output)
        self.printed.append(SHOWN_PASSWORD.sub("", output))
        password = chosen or (shown and shown[1])
        if not password:
            return None
        self.authorized.append(Account(address, password))
        return self.authorized[-1]

    def add_password(self, account, name, choice=None):
        """Adds an app password to an account, a chosen or a generated one. Returns the account with it."""
        answers = [account.password] + ([choice] if choice else [])
        options = ["--choose"] if choice else []
        done = self._execute(["password", "add", account.address, name, *options], "\n".join(answers), note=False)
        if done.returncode != 0:
            raise Failure(f"password add: exit code {done.returncode}\n{done.stdout}")
        return self._note(account.address, done.stdout, choice)

    def _converse(self, child, person, paste, line):
        """Acts as the person at the terminal. Returns the whole output."""
        if line is not None:
            child.stdin.write(f"{line}\n")
            child.stdin.flush()
        output = ""
        for one in person if isinstance(person, list) else [person]:
            url = None
            while url is None:
                printed = child.stdout.readline()
                output += printed
                if not printed:
                    raise Failure(f"authorize ended without an authorization URL:\n{output}")
                url = re.fullmatch(r"\s+(https://\S+)\n", printed)
            if paste:
                child.stdin.write(one.authorize(url[1]) + "\n")
                child.stdin.flush()
            else:
                one.authorize_and_return(url[1])
        output += child.stdout.read()
        if child.wait(30) != 0:
            raise Failure(f"authorize failed with {child.returncode}:\n{output}")
        return output


def configuration(world, folder):
    """The text of postkey.toml: every protocol with every security, all providers."""
    listeners = [LISTENER.format(protocol=protocol, security=security)
                 + ("" if security == "none" else CERTIFICATE.format(certificate=world.run.certificate, key=world.run.key))
                 for protocol in ("imap", "pop3", "smtp") for security in SECURITIES]
    return HEAD.format(folder=folder) + "".join(listeners) + "".join(provider(world, **each) for each in PROVIDERS) \
        + accounts(world)


def accounts(world):
    """The accounts' part of the configuration."""
    secret = write_private(world.run.folder / "service-secret", world.server.client_secret + "\n")
    return GRANTS.format(secret=secret, key=world.server.key, certificate=world.server.signing_certificate)


def from_pkcs12(file):
    """The command that prints a key from a PKCS#12 file as PEM."""
    return ["/usr/bin/openssl", "pkcs12", "-in", str(file), "-nocerts", "-nodes", "-passin", "pass:notasecret"]


def provider(world, name, domain, security, mechanisms, head=PROVIDER):
    """One provider's part of the configuration."""
    head = head.format(name=name, domain=domain, issuer=world.server.issuer, ca=world.run.ca,
                           asserting=ASSERTING, from_pkcs12=json.dumps(from_pkcs12(world.server.pkcs12)),
                           scope=json.dumps(SCOPE.split()), mechanisms=json.dumps(mechanisms))
    return head + "".join(SERVER.format(name=name, protocol=protocol, port=world.ports[protocol, security], security=security)
                          for protocol in ("imap", "pop3", "smtp"))
