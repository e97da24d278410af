"""Logins at real mail servers: direct, through HAProxy as a TLS tunnel, and through postkey.

    python3 servers.py --postkey PATH [--logins NUMBER] [--only TEXT] [--without-spares]

The servers are those of tests/interop/mail. One login follows the other, and each contestant has its turn in each round, so that
what else the machine does hits all of them alike. The table has the median of a login in milliseconds, from the connection to the
server's OK, and the CPU milliseconds of the proxy for one login. `--without-spares` sets `spare_connection = 0`.
"""

import argparse
import base64
import importlib.util
import signal
import socket
import ssl
import statistics
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent
INTEROP = TESTS / "interop/mail"
sys.path[:0] = [str(TESTS / "real"), str(INTEROP)]

from process import Failure, Run, free_port  # noqa: E402

specification = importlib.util.spec_from_file_location("interop_mail", INTEROP / "main.py")
mail = importlib.util.module_from_spec(specification)
specification.loader.exec_module(mail)

# The server's name in tests/interop/mail, and which of its protocols are measured.
SERVERS = [("dovecot23", ("imap", "pop3", "smtp")), ("dovecot24", ("imap", "pop3", "smtp")), ("postfix", ("smtp",)),
           ("exim", ("smtp",)), ("smtpserver", ("smtp",))]

HAPROXY = """
global
  maxconn 1000
defaults
  mode tcp
  timeout connect 10s
  timeout client 1m
  timeout server 1m
"""

TUNNEL = """
listen port{port}
  bind 127.0.0.1:{port}
  server provider 127.0.0.1:{target} ssl verify required ca-file {ca}
"""

GREETING = {"imap": "* OK", "pop3": "+OK", "smtp": "220 "}
HELLO = {"imap": None, "pop3": None, "smtp": ("EHLO client.test", "250 ")}
STARTTLS = {"imap": ("s STARTTLS", "s OK"), "pop3": ("STLS", "+OK"), "smtp": ("STARTTLS", "220 ")}
GOODBYE = {"imap": ("z LOGOUT", "z OK"), "pop3": ("QUIT", "+OK"), "smtp": ("QUIT", "221 ")}


def b64(text):
    """Base64 of a text."""
    return base64.b64encode(text.encode()).decode()


def with_bearer(protocol, address, bearer):
    """The commands of a client that knows the access token, and how their last answers begin."""
    response = b64(f"user={address}\x01auth=Bearer {bearer}\x01\x01")
    return {"imap": [(f"a AUTHENTICATE XOAUTH2 {response}", "a OK")], "pop3": [(f"AUTH XOAUTH2 {response}", "+OK")],
            "smtp": [(f"AUTH XOAUTH2 {response}", "235 ")]}[protocol]


def with_password(protocol, address, password):
    """The same for a client that knows an app password."""
    return {"imap": [(f"a LOGIN {address} {password}", "a OK")],
            "pop3": [(f"USER {address}", "+OK"), (f"PASS {password}", "+OK")],
            "smtp": [(f"AUTH PLAIN {b64(f'{chr(0)}{address}{chr(0)}{password}')}", "235 ")]}[protocol]


class Client:
    """A mail program's connection."""

    def __init__(self, protocol, port):
        self._protocol = protocol
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def start_tls(self, context):
        """Continues with TLS."""
        self._socket = context.wrap_socket(self._socket, server_hostname="127.0.0.1")
        self._reader = self._socket.makefile("rb")

    def expect(self, beginning):
        """Reads lines up to one that begins so."""
        while True:
            line = self._reader.readline().decode()
            if line.startswith(beginning):
                return
            if not line or line[:1] in "45-" or " NO " in line or " BAD " in line:
                raise Failure(f"{self._protocol}: expected {beginning!r}, but the server says {line!r}")

    def ask(self, command):
        """Sends a command and waits for its answer. Does nothing without a command."""
        if command:
            self._socket.sendall(f"{command[0]}\r\n".encode())
            self.expect(command[1])

    def close(self):
        """Says goodbye, and ends the connection."""
        self.ask(GOODBYE[self._protocol])
        self._reader.close()
        self._socket.close()


class Way:
    """One contestant at one server: where the client connects, whether it does TLS itself, and how it logs in."""

    def __init__(self, name, protocol, port, security, commands, process=None):
        self.name, self.times, self.process = name, [], process
        self._protocol, self._port, self._security, self._commands = protocol, port, security, commands

    def log_in(self, context):
        """Returns the seconds that a login takes."""
        start = time.perf_counter()
        client = Client(self._protocol, self._port)
        if self._security == "tls":
            client.start_tls(context)
        client.expect(GREETING[self._protocol])
        if self._security == "starttls":
            client.ask(HELLO[self._protocol])
            client.ask(STARTTLS[self._protocol])
            client.start_tls(context)
        for command in (HELLO[self._protocol], *self._commands):
            client.ask(command)
        seconds = time.perf_counter() - start
        client.close()
        return seconds

    def cpu(self):
        """The CPU seconds of the proxy so far, once it is at rest. Without a proxy, 0."""
        if self.process is None:
            return 0
        before = None
        while before != (now := self._cpu_now()):
            before = now
            time.sleep(0.1)
        return now

    def _cpu_now(self):
        tasks = Path(f"/proc/{self.process.child.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def ways(world, server, protocol, security, tunnels):
    """Everything that is compared at this port of this server."""
    provider = server if security == "tls" else f"{server}-starttls"
    account, target = world.account(provider), world.servers[provider].ports[protocol, security]
    bearer = with_bearer(protocol, account.address, world.tokens.issue({"client_id": account.address})["access_token"])
    yield Way("direct", protocol, target, security, bearer)
    if security == "tls":
        yield Way("HAProxy", protocol, tunnels.ports[target], "none", bearer, tunnels.process)
    password = with_password(protocol, account.address, account.password)
    yield Way("postkey", protocol, world.listener(protocol, "none").port, "none", password, world.postkey.process)


class Tunnels:
    """HAProxy, with a plain port for each TLS port. `ports` maps the one to the other."""

    def __init__(self, run, targets):
        self.ports = {target: free_port() for target in targets}
        tunnels = "".join(TUNNEL.format(port=port, target=target, ca=run.ca) for target, port in self.ports.items())
        configuration = run.folder / "haproxy.cfg"
        configuration.write_text(HAPROXY + tunnels)
        self.process = run.start("haproxy", ["haproxy", "-db", "-f", str(configuration)])
        self.process.wait_for_ports(*self.ports.values())


def measure(contestants, context, logins):
    """Logs in that often in each way. Returns (milliseconds, CPU milliseconds) of one login by the way's name."""
    for way in contestants:
        for _ in range(3):
            way.log_in(context)  # learns what the next ones know: capabilities, a checked password, a session ticket
    before = {way.name: way.cpu() for way in contestants}
    for _ in range(logins):
        for way in contestants:
            way.times.append(way.log_in(context))
    return {way.name: (statistics.median(way.times) * 1e3, (way.cpu() - before[way.name]) / logins * 1e3) for way in contestants}


def shown(figures, name, index):
    """A figure in the table."""
    return f"{figures[name][index]:.2f}" if name in figures else ""


def main():
    """Sets everything up, measures, takes everything down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postkey", required=True, type=Path, help="the release program")
    parser.add_argument("--logins", type=int, default=200, help="how many logins each contestant makes")
    parser.add_argument("--only", default="", help="only rows that contain this text, such as postfix or imap")
    parser.add_argument("--without-spares", action="store_true", help="no connection is made before it is needed")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    mail.HEAD = mail.HEAD.replace('log = "debug"', 'log = "info"')
    if arguments.without_spares:
        mail.PROVIDER = mail.PROVIDER.replace("\n[account.", "spare_connection = 0\n\n[account.")
    with Run() as run:
        world = mail.World(run, arguments.postkey.resolve(), whole=False)
        targets = [world.servers[server].ports[protocol, "tls"] for server, protocols in SERVERS for protocol in protocols]
        tunnels, context = Tunnels(run, targets), ssl.create_default_context(cafile=run.ca)
        print("| server | direct: ms | HAProxy: ms | postkey: ms | HAProxy: CPU ms | postkey: CPU ms |\n|---|---|---|---|---|---|")
        rows = [(server, protocol, security) for server, protocols in SERVERS for protocol in protocols
                for security in ("tls", "starttls")]
        for row in rows:
            name = f"{row[0]} {row[1].upper()} {row[2].upper()}"
            if arguments.only.lower() not in name.lower():
                continue
            figures = measure(list(ways(world, *row, tunnels)), context, arguments.logins)
            cells = [shown(figures, way, 0) for way in ("direct", "HAProxy", "postkey")]
            cells += [shown(figures, way, 1) for way in ("HAProxy", "postkey")]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        world.postkey.stop()


if __name__ == "__main__":
    main()
