"""The machine of these tests: the servers of tests/real, and a postkey whose ports survive a restart."""

import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "real"))

from person import Person  # noqa: E402
from postkey import HEAD, LISTENER, PROVIDERS, SECURITIES, Postkey, provider  # noqa: E402
from process import free_port, openssl  # noqa: E402
from servers import Servers  # noqa: E402

PROTOCOLS = ("imap", "pop3", "smtp")

STRANGER = "stranger@example.test"

# How long nobody listens when postkey is stopped and started by hand.
GAP = 1.5


class World(Servers):
    """Everything that a test can reach."""

    def __init__(self, run, binary):
        super().__init__(run)
        self.local = {(protocol, security): free_port() for protocol in PROTOCOLS for security in SECURITIES}
        self.postkey = Restarting(self, binary)
        self._settings = {security: Postkey(run, binary, lambda folder: configuration(self, folder, [security]), name=f"settings-{security}")
                          for security in SECURITIES}
        self.certificates = run.subfolder("trusted")
        self.typing = threading.Lock()  # only one program has a wrong password at a time, so that refusals can be counted
        self.accounts = {}

    def start(self):
        """Starts postkey, and trusts the authority that it makes."""
        self.postkey.start()
        trust(self.certificates, self.postkey.command("certificate", "--pem"))

    def authorize(self, addresses):
        """Opens an account for each address, and one for nobody."""
        with ThreadPoolExecutor(4) as pool:
            for account in pool.map(lambda one: self.postkey.authorize(one, Person(one, self.run.ca)), [STRANGER, *addresses]):
                self.accounts[account.address] = account

    @property
    def stranger(self):
        """An account that no program uses."""
        return self.accounts[STRANGER]

    def refusals(self):
        """How many wrong passwords postkey has refused. Its log has only some of them."""
        count = r'^postkey_logins_total\{protocol="\w+",result="credentials"\} ([0-9]+)$'
        return sum(map(int, re.findall(count, self.postkey.command("metrics"), re.MULTILINE)))

    def settings(self, account, program, security):
        """What `postkey settings` shows where postkey has listeners of this security only."""
        return self._settings[security].settings(account, program)


def configuration(world, folder, securities=SECURITIES):
    """The text of postkey.toml: every protocol with each of these securities, on ports that stay the same."""
    listeners = []
    for (protocol, security), port in world.local.items():
        if security in securities:
            listener = LISTENER.format(protocol=protocol, security=security).replace("127.0.0.1:0", f"127.0.0.1:{port}")
            listeners.append(listener + ("" if security == "none" else 'certificate = "own"\n'))
    return HEAD.format(folder=folder) + "".join(listeners) + provider(world, **PROVIDERS[0])


def trust(folder, authority):
    """Makes a folder like /etc/ssl/certs, as `update-ca-certificates` does, with this authority only."""
    for name in ("ca.pem", "ca-certificates.crt"):
        (folder / name).write_text(authority)
    openssl("rehash", folder)
    (folder / "java").mkdir()
    subprocess.run(["keytool", "-importcert", "-noprompt", "-alias", "postkey", "-file", folder / "ca.pem", "-storepass", "changeit",
                    "-storetype", "JKS", "-keystore", folder / "java" / "cacerts"], check=True, capture_output=True)


class Restarting(Postkey):
    """Can be stopped in two ways, and started with sockets that stay open meanwhile."""

    # Takes descriptors from wherever they are to where sd_listen_fds(3) has them.
    TAKE_OVER = 'names=$1; shift; n=3; while [ "$1" != -- ]; do eval "exec $n<&$1"; n=$((n+1)); shift; done; shift; ' \
                'export LISTEN_PID=$$ LISTEN_FDS=$((n-3)) LISTEN_FDNAMES=$names; exec "$@"'

    def __init__(self, world, binary):
        super().__init__(world.run, binary, lambda folder: configuration(world, folder))
        self._world, self._sockets = world, {}

    @property
    def holds_sockets(self):
        """Whether the listening sockets outlive postkey."""
        return bool(self._sockets)

    def hold_sockets(self):
        """From now on this process owns the listening sockets, as systemd does."""
        for (protocol, security), port in self._world.local.items():
            self._sockets[protocol, security] = socket.create_server(("127.0.0.1", port), backlog=128)

    def release_sockets(self):
        """From now on postkey opens its sockets itself."""
        for one in self._sockets.values():
            one.close()
        self._sockets = {}

    def launch(self, command):
        if not self._sockets:
            return super().launch(command)
        numbers = [one.fileno() for one in self._sockets.values()]
        names = ":".join(protocol for protocol, _ in self._sockets)
        shell = ["bash", "-c", self.TAKE_OVER, "-", names, *map(str, numbers), "--", *map(str, command)]
        return self._run.start("postkey", shell, env=self._env, pass_fds=numbers)

    def restart(self, farewell, held):
        """Stops and starts postkey. With a gap and without a farewell it is killed, so that the kernel just ends its connections.

        Returns the time at which it was ready again.
        """
        self.stop() if farewell or held else self.kill()
        if not held:
            time.sleep(GAP)
        self.start()
        return time.monotonic()
