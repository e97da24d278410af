"""The cluster: PostgreSQL, three replicas of postkey, HAProxy before them, and a provider behind them."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "real"), str(HERE)]

from consents import ConsentProcess  # noqa: E402
from database import PASSWORD, Database  # noqa: E402
from forwarder import Forwarder  # noqa: E402
from postkey import Account, Postkey  # noqa: E402
from process import Failure, free_port, wait_until, write_private  # noqa: E402
from tokens import PROTOCOLS  # noqa: E402

REPLICAS = ("one", "two", "three")
LIFE = 60
SECRET = "signs access tokens"
PAUSE = 0.02  # how long the authorization server takes for an answer

CONFIGURATION = """
state_dir = "{folder}/state"
log = "info"
metrics = "127.0.0.1:{metrics}"

[provider.test]
domains = ["example.test"]
authorization_endpoint = "{endpoint}"
token_endpoint = "{endpoint}"
scope = ["mail"]
client_id = "cluster"
client_secret = {{ file = "{secret}" }}
mechanisms = ["XOAUTH2"]
ca_file = "{ca}"
concurrent_refreshes = 64
"""

VAULT = """
[vault]
postgresql = "{url}"
password = {{ file = "{password}" }}
ca_file = "{ca}"
"""

LISTENER = """
[[listener]]
protocol = "{protocol}"
address = "127.0.0.1:{port}"
security = "none"
"""

BEHIND_HAPROXY = LISTENER + """proxy_protocol = ["127.0.0.1"]
allow_uids = [{uid}]
"""

SERVER = """
[provider.test.{protocol}]
host = "127.0.0.1"
port = {port}
"""

# The file that the guide shows, up to its listeners.
HAPROXY = (HERE.parent.parent / "packaging/cluster/haproxy.cfg").read_text("utf-8").partition("\nlisten ")[0]

# The mail programs of the load say themselves where they are, so that they are not all one source.
BALANCED = """
listen {protocol}
  bind 127.0.0.1:{port} accept-proxy
  option tcp-check
  tcp-check expect rstring {greeting}
"""

GREETINGS = {"imap": r"^\*\ OK", "pop3": r"^\+OK", "smtp": "^220"}


class Replica(Postkey):
    """One postkey, with a network to the database that can be cut."""

    def __init__(self, world, name, binary):
        self.network = Forwarder(world.run, name, world.database.port)
        self.secret = f"secret of {name}"
        self.ports, self.metrics_port = {protocol: free_port() for protocol in PROTOCOLS}, free_port()
        self.browser_port = free_port()  # where browsers return
        self.balanced = {protocol: free_port() for protocol in PROTOCOLS}
        self._cpu_before, self._most_memory = 0.0, 0.0
        super().__init__(world.run, binary, lambda folder: world.configuration(folder, self), listeners=2 * len(PROTOCOLS), name=name)

    @property
    def name(self):
        """The name that the provider's report has."""
        return self._name

    def signal(self, number):
        """Sends a signal to the daemon."""
        self.process.child.send_signal(number)

    def suspend(self):
        """Stops the process, as a machine does that is suspended."""
        self.signal(signal.SIGSTOP)

    def resume(self):
        """Lets it go on."""
        self.signal(signal.SIGCONT)

    def kill(self):
        self._note_costs()
        super().kill()

    def stop(self):
        self._note_costs()
        super().stop()

    def _note_costs(self):
        """Remembers what this process has used, because it ends."""
        self._cpu_before, self._most_memory = self.cpu_seconds(), self.most_memory()

    def cpu_seconds(self):
        """The CPU time so far, over all restarts."""
        return self._cpu_before + self.process.cpu_seconds()

    def most_memory(self):
        """The most memory that it has had, in MB, over all restarts."""
        return max(self._most_memory, self.process.memory("VmHWM"))

    def metric(self, name):
        """The value of a metric without labels."""
        lines = self.command("metrics").splitlines()
        found = [line.split()[1] for line in lines if line.split(" ")[0] == name]
        if not found:
            raise Failure(f"there is no metric {name}")
        return float(found[0])

    def health(self):
        """The text of `/health`, whose status is 200."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/health", timeout=10) as response:
            return response.read().decode()


class World:
    """Everything that a test can reach."""

    def __init__(self, run, binary, replicas=len(REPLICAS), is_shared=True):
        self.run, self.binary, self._is_shared = run, binary, is_shared
        self.database = Database(run)
        self.provider, self.consents = ProviderProcesses(run), ConsentProcess(run, SECRET)
        self._password = write_private(run.folder / "database-password", f"{PASSWORD}\n")
        self.replicas = [Replica(self, name, binary) for name in REPLICAS[:replicas]]
        self.balanced = {protocol: free_port() for protocol in PROTOCOLS}
        self.accounts = {}
        self.kills, self.load_ended = [], 0.0  # of failures.py

    def start(self):
        """Starts the replicas one after the other, because the first one makes the tables, and then HAProxy."""
        for replica in self.replicas:
            replica.start()
        text = HAPROXY + "".join(self._balanced(protocol) for protocol in PROTOCOLS) + self.consents.haproxy(self.replicas)
        file = write_private(self.run.folder / "haproxy.cfg", text)
        self.balancer = self.run.start("haproxy", ["/usr/sbin/haproxy", "-db", "-f", str(file)])
        self.balancer.wait_for_ports(*self.balanced.values(), self.consents.balanced)

    def stop(self):
        """Ends the replicas, and then what they need."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda replica: replica.stop(), self.replicas))
        self.database.stop("immediate")

    def _balanced(self, protocol):
        servers = "".join(f"  server {replica.name} 127.0.0.1:{replica.balanced[protocol]}\n" for replica in self.replicas)
        return BALANCED.format(protocol=protocol, port=self.balanced[protocol], greeting=GREETINGS[protocol]) + servers

    def url(self, port, database="postkey"):
        """Where the database is, through a port of this machine."""
        return f"postgresql://postkey@127.0.0.1:{port}/{database}?sslmode=verify-full"

    def configuration(self, folder, replica):
        """The text of a replica's postkey.toml."""
        secret = write_private(folder / "client-secret", f"{replica.secret}\n")
        head = CONFIGURATION.format(folder=folder, metrics=replica.metrics_port, ca=self.run.ca,
                                    endpoint=self.provider.endpoint, secret=secret)
        if self._is_shared:
            head += VAULT.format(url=self.url(replica.network.port), password=self._password, ca=self.run.ca)
        listeners = "".join(LISTENER.format(protocol=protocol, port=port) for protocol, port in replica.ports.items())
        listeners += "".join(BEHIND_HAPROXY.format(protocol=protocol, port=port, uid=os.getuid()) for protocol, port in replica.balanced.items())
        servers = "".join(SERVER.format(protocol=protocol, port=port) for protocol, port in self.provider.ports.items())
        return head + servers + self.consents.configuration(replica, self.provider.ports) + listeners

    def authorize(self, addresses):
        """Authorizes accounts at the first replica; each gets one app password. Returns them by address."""
        granted = self.provider.ask("grant", addresses=addresses)
        file = self.run.folder / "granted"
        file.unlink(missing_ok=True)
        write_private(file, "".join(f"{address} {token}\n" for address, token in granted.items()))
        first = self.replicas[0]
        done = subprocess.run([first.binary, "--config", first.configuration, "authorize", "--from", file], capture_output=True, text=True,
                              env={"PATH": os.environ["PATH"], "HOME": str(first.folder)}, check=False)
        if done.returncode != 0:
            raise Failure(f"authorize --from: exit code {done.returncode}\n{done.stderr[-3000:]}")
        new = {address: Account(address, password) for address, password in map(str.split, done.stdout.splitlines())}
        self.accounts.update(new)
        self.wait_until_known(addresses)
        return new

    def wait_until_known(self, addresses):
        """Returns when every replica has heard of the accounts."""
        for replica in self.replicas:
            wait_until(lambda: set(addresses) <= {entry["address"] for entry in replica.status()["accounts"]},
                       f"{len(addresses)} accounts at {replica.name}", 60)


class ProviderProcesses:
    """The provider, which provider.py and mail_servers.py describe."""

    def __init__(self, run):
        port, self._driver = free_port(), free_port()
        self.endpoint, self._admin = f"http://127.0.0.1:{port}/token", f"http://127.0.0.1:{port}/admin/"
        self.ports = {protocol: free_port() for protocol in PROTOCOLS}
        settings = run.write_json("provider.json", {
            "port": port, "ports": self.ports, "driver": self._driver, "certificate": str(run.certificate), "key": str(run.key),
            "secrets": {f"secret of {name}": name for name in REPLICAS}, "secret": SECRET, "seconds": LIFE, "pause": PAUSE,
        })
        self.authorization, self.mail = (run.start(name, [sys.executable, str(HERE / f"{name}.py"), str(settings)])
                                         for name in ("provider", "mail_servers"))
        self.authorization.wait_for_ports(port)
        self.mail.wait_for_ports(*self.ports.values(), self._driver)

    def ask(self, what, **fields):
        """Asks one of the driver's routes."""
        request = urllib.request.Request(self._admin + what, json.dumps(fields).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def report(self):
        """What has happened so far."""
        return self.ask("report")

    def used(self, numbers):
        """When each of these access tokens has opened a mailbox first, or None."""
        with socket.create_connection(("127.0.0.1", self._driver), timeout=30) as connection:
            connection.sendall(json.dumps(numbers).encode() + b"\n")
            return json.loads(b"".join(iter(lambda: connection.recv(1 << 20), b"")))

    def refreshes(self):
        """How many refreshes were answered so far."""
        return sum(self.report()["refreshes"].values())
