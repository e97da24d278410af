"""email-oauth2-proxy, the program from PyPI: installs it once, configures it, and signs in for it."""

import re
import subprocess
import sys
import threading
from pathlib import Path

from person import Person
from process import Failure, free_port, wait_until, write_private

REQUIREMENTS = Path(__file__).with_name("emailproxy.txt")
ENVIRONMENT = Path(__file__).parents[2] / "target" / "emailproxy"

SERVER = """
[{kind}-{port}]
local_address = 127.0.0.1
server_address = 127.0.0.1
server_port = {server_port}
{more}
"""

ACCOUNT = """
[{address}]
token_url = {issuer}/token
oauth2_scope = openid email offline_access
{more}
"""

# For accounts whose people sign in.
PERSON = """permission_url = {issuer}/auth
redirect_uri = http://127.0.0.1:{port}/
use_pkce = True
"""

SIGN_IN = re.compile(r"visit the following URL to authenticate account (\S+): (https://\S+)")


def install():
    """A virtual environment with exactly what the file pins, kept for the next run."""
    installed = ENVIRONMENT / "installed"
    if installed.exists() and installed.read_text() == REQUIREMENTS.read_text():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
    subprocess.run([ENVIRONMENT / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS],
                   check=True)
    installed.write_text(REQUIREMENTS.read_text())


class Emailproxy:
    """One of it, with a port for each protocol. `accounts` has the lines about the client by address; a person signs in
    unless they name another flow."""

    def __init__(self, world, name, accounts, has_cache=False):
        install()
        self._world, self._run, self.name = world, world.run, name
        self.folder = world.run.subfolder(name)
        self.ports = {protocol: free_port() for protocol in ("imap", "pop3", "smtp")}
        servers = {"IMAP": ("imap", "tls", ""), "POP": ("pop3", "tls", ""), "SMTP": ("smtp", "starttls", "server_starttls = True")}
        text = "[emailproxy]\nencrypt_client_secret_on_first_use = True\n" + "".join(
            SERVER.format(kind=kind, port=self.ports[protocol], server_port=world.ports[protocol, security], more=more)
            for kind, (protocol, security, more) in servers.items())
        for address, client in accounts.items():
            person = "" if "oauth2_flow" in client else PERSON.format(issuer=world.server.issuer, port=free_port())
            text += ACCOUNT.format(address=address, issuer=world.server.issuer, more=person + client)
        self.config = write_private(self.folder / "emailproxy.config", text)
        self.cache = self.folder / "cache.config" if has_cache else None
        self.process = None

    @property
    def files(self):
        """The files that an import names."""
        return [str(path) for path in (self.config, self.cache) if path]

    def start(self):
        """Starts it without a window, so that the page to sign in on is in its log."""
        options = ["--no-gui", "--local-server-auth", "--config-file", self.config]
        if self.cache:
            options += ["--cache-store", self.cache]
        self.process = self._run.start(self.name, [ENVIRONMENT / "bin/python", "-m", "emailproxy", *options],
                                       env={"PATH": "/usr/bin:/bin", "SSL_CERT_FILE": str(self._run.ca), "PYTHONUNBUFFERED": "1"})
        self.process.wait_for_ports(*self.ports.values())

    def stop(self):
        """Stops it, as a user does who is about to leave it."""
        self._run.stop(self.process)

    def restart_with_another_redirect(self):
        """It cannot listen on one port for two redirects within a minute, because of the first one's TIME_WAIT."""
        self.stop()
        text = self.config.read_text()
        self.config.write_text(re.sub(r"(?m)(?<=^redirect_uri = ).*$", lambda _: f"http://127.0.0.1:{free_port()}/", text))
        self.start()

    def sign_in(self, login):
        """Logs in with a mail program, which waits until the person has signed in."""
        seen, outcome = len(self._asked()), []

        def log_in():
            try:
                outcome.append(login())
            except Exception as error:
                outcome.append(error)

        client = threading.Thread(target=log_in, daemon=True)
        client.start()
        asked = wait_until(lambda: self._asked()[seen:], f"a page to sign in on from {self.name}")
        address, url = asked[0]
        Person(address, self._run.ca).authorize_and_return(url)
        client.join(30)
        if not outcome or isinstance(outcome[0], Exception):
            raise Failure(f"the login through {self.name} ends with {outcome}:\n{self.process.last_lines()}")
        return outcome[0]

    def _asked(self):
        """The accounts and pages in its log."""
        return SIGN_IN.findall(self.process.log.read_text("utf-8", "replace"))
