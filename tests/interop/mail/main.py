"""postkey between mail servers and clients that none of us wrote.

    python3 main.py --postkey PATH [--whole] [--only TEXT] [--keep]

Behind postkey: Dovecot 2.3 and 2.4 with their submission services, Postfix, Exim, and npm's smtp-server, all by OAuth only. Before
it: Exim and Postfix as clients with a queue. Each mail has to arrive exactly once. The exit code is 1 if a test fails.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent / "real"), str(HERE)]

import exim  # noqa: E402
import postfixes  # noqa: E402
import sessions  # noqa: E402
from dovecots import Dovecot, Dovecot24  # noqa: E402
from mails import Mails  # noqa: E402
from postkey import Postkey  # noqa: E402
from process import Run, free_port, options, write_private  # noqa: E402
from report import Report  # noqa: E402
from sink import Sink  # noqa: E402
from smtp_server import SmtpServer  # noqa: E402
from tokens import Tokens  # noqa: E402

HEAD = """
state_dir = "{folder}/state"
log = "debug"
"""

LISTENER = """
[[listener]]
protocol = "{protocol}"
address = "127.0.0.1:{port}"
security = "{security}"
"""

PROVIDER = """
[provider.{name}]
domains = ["{name}.test"]
authorization_endpoint = "{token_endpoint}"
token_endpoint = "{token_endpoint}"
scope = ["mail"]
mechanisms = {mechanisms}
ca_file = "{ca}"

[account."ann@{name}.test"]
flow = "client-credentials"
client_id = "ann@{name}.test"
client_secret = {{ file = "{secret}" }}
"""

SERVER = """
[provider.{name}.{protocol}]
host = "127.0.0.1"
port = {port}
security = "{security}"
"""

LISTENERS = [("smtp", "none"), ("smtp", "starttls"), ("smtp", "tls"), ("imap", "none"), ("imap", "tls"), ("pop3", "none")]

# The length of a provider's JWTs, in bytes. Microsoft's have 4 KB; 11 KB are more than Dovecot accepts in one line.
JWT = {"dovecot24jwt": 4000, "dovecot24jwt-starttls": 2000}


class World:
    """All servers, and one postkey for all of them. `servers` has each provider's server by the provider's name."""

    def __init__(self, run, binary, whole):
        self.run, self.whole = run, whole
        self.sink = Sink()
        self.tokens = Tokens(run, {f"{name}.test": size for name, size in JWT.items()})
        dovecot = Dovecot(run, "dovecot23", self.tokens, self.sink)
        servers = [dovecot, Dovecot24(run, "dovecot24", self.tokens, self.sink),
                   Dovecot24(run, "dovecot24jwt", self.tokens, self.sink, jwt=True),
                   Dovecot(run, "limited23", self.tokens, self.sink, limit=1),
                   Dovecot24(run, "limited24", self.tokens, self.sink, limit=1),
                   postfixes.Submission(run, "postfix", dovecot.auth, self.sink),
                   exim.Submission(run, "exim", dovecot.auth, self.sink),
                   SmtpServer(run, "smtpserver", self.tokens, self.sink)]
        self.servers = {server.name + suffix: server for server in servers for suffix in ("", "-starttls")}
        self.postkey = Postkey(run, binary, self._configuration, listeners=len(LISTENERS))
        self.postkey.start()
        self.accounts = {}
        self.mails = Mails(self)

    def account(self, name):
        """The account at a provider, authorized when it is first needed."""
        if name not in self.accounts:
            self.accounts[name] = self.postkey.authorize_alone(f"ann@{name}.test")
        return self.accounts[name]

    def listener(self, protocol, security):
        """A port of postkey's."""
        return self.postkey.listeners()[protocol, security]

    def _configuration(self, folder):
        tls = f'certificate = "{self.run.certificate}"\nkey = "{self.run.key}"\n'
        # Fixed ports, because clients with a queue connect again after a restart.
        listeners = "".join(LISTENER.format(protocol=protocol, security=security, port=free_port()) + ("" if security == "none" else tls)
                            for protocol, security in LISTENERS)
        self._secret = write_private(self.run.folder / "secret", "s\n")
        return HEAD.format(folder=folder) + listeners + "".join(self._provider(name) for name in self.servers)

    def _provider(self, name):
        server, way = self.servers[name], "starttls" if name.endswith("-starttls") else "tls"
        head = PROVIDER.format(name=name, token_endpoint=self.tokens.token_endpoint, ca=self.run.ca, secret=self._secret,
                               mechanisms='["XOAUTH2"]' if way == "tls" or server.name == "smtpserver" else '["OAUTHBEARER"]')
        return head + "".join(SERVER.format(name=name, protocol=protocol, port=port, security=security)
                              for (protocol, security), port in server.ports.items() if security == way)


def main():
    """Sets everything up, runs everything, takes everything down."""
    parser = options(__doc__)
    parser.add_argument("--whole", action="store_true", default="POSTKEY_WHOLE" in os.environ,
                        help="hundreds of mails, and restarts under way")
    arguments = parser.parse_args()
    with Run(arguments.keep) as run:
        world = World(run, arguments.postkey.resolve(), arguments.whole)
        report = Report(arguments.only)
        report.section("Mail from a queue arrives once")
        for name, function, *rest in world.mails.tests():
            report.test(name, function, *rest)
        report.section("Sessions")
        for name, function, *rest in sessions.tests(world):
            report.test(name, function, *rest)
        world.postkey.stop()
    return report.summary()


if __name__ == "__main__":
    sys.exit(main())
