"""postkey and authorization servers that none of us wrote, each by the same stories.

    python3 main.py --postkey PATH [--server NAME] [--only TEXT] [--keep]

Behind each authorization server there is a Dovecot that asks it whose a token is. Everything runs on loopback, in one folder
that is removed at the end. Each test prints a line; the exit code is 1 if one fails.
"""

import imaplib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent / "real"), str(HERE)]

import stories  # noqa: E402
from canaille_server import Canaille  # noqa: E402
from django_toolkit import DjangoToolkit  # noqa: E402
from glewlwyd import Glewlwyd  # noqa: E402
from lemonldap import LemonLdap  # noqa: E402
from mail_server import MailServer  # noqa: E402
from postkey import Postkey  # noqa: E402
from process import Failure, Run, openssl, options  # noqa: E402
from provider import OidcProvider  # noqa: E402
from report import Report, name_of  # noqa: E402

SERVERS = [Glewlwyd, Canaille, DjangoToolkit, OidcProvider]
ON_REQUEST = [LemonLdap]  # needs many packages, and installs them itself
PEOPLE = ["ann", "ben", "cleo", "dora", "emil", "fay", "gus"]

HEAD = """
state_dir = "{folder}/state"
log = "debug"

[[listener]]
protocol = "imap"
address = "127.0.0.1:0"
security = "none"
"""

# What is known of a provider: its issuer. Everything else postkey finds out.
PROVIDER = """
[provider.{name}]
domains = ["{domain}"]
issuer = "{issuer}"
scope = {scope}
ca_file = "{ca}"
{more}
[provider.{name}.imap]
host = "127.0.0.1"
port = {port}
security = "tls"
"""


class World:
    """The servers, and one postkey for all of them."""

    def __init__(self, run, binary, names):
        make_rsa_key(run)
        self.run, self.binary = run, binary
        self.servers = [server(run, people_of(server)) for server in chosen(names)]
        self.mail = {server.name: MailServer(run, server) for server in self.servers}
        self.postkey = Postkey(run, binary, self._configuration, listeners=1)

    def _configuration(self, folder):
        return HEAD.format(folder=folder) + "".join(self._provider(server, suffix, more) for server in self.servers
                                                    for suffix, more in stories.variants(server))

    def _provider(self, server, suffix, more):
        scope = more.pop("scope", server.scope)
        more = {key: server.issuer + value if key.endswith("_endpoint") else value for key, value in more.items()}
        text = "".join(f"{key} = {json.dumps(value) if not isinstance(value, dict) else table(value)}\n"
                       for key, value in more.items())
        return PROVIDER.format(name=f"{server.name}-{suffix}", domain=f"{suffix}.{server.name}.test", issuer=server.issuer,
                               scope=json.dumps(scope), ca=self.run.ca, more=text, port=self.mail[server.name].port)


def chosen(names):
    """The servers with these names. Without names, all except those that only run on request."""
    return [server for server in SERVERS + ON_REQUEST if server.name in names] if names else SERVERS


def table(value):
    """A dictionary as TOML."""
    return "{ " + ", ".join(f"{key} = {json.dumps(entry)}" for key, entry in value.items()) + " }"


def people_of(server):
    """The addresses that can sign in: everybody in every variant's domain."""
    return [f"{person}@{suffix}.{server.name}.test" for suffix, _ in stories.variants(server) for person in PEOPLE]


def make_rsa_key(run):
    """A key with which servers sign."""
    folder = run.subfolder("rsa")
    run.rsa_key = folder / "key.pem"
    openssl("genrsa", "-out", run.rsa_key, "2048")
    openssl("rsa", "-in", run.rsa_key, "-pubout", "-out", folder / "public.pem")
    run.rsa_public_key = (folder / "public.pem").read_text()


def main():
    """Sets everything up, runs everything, takes everything down."""
    parser = options(__doc__)
    parser.add_argument("--server", action="append", choices=[server.name for server in SERVERS + ON_REQUEST],
                        help="only this server; may be repeated. Without it: all but lemonldap, which installs many packages")
    arguments = parser.parse_args()
    with Run(arguments.keep) as run:
        world = World(run, arguments.postkey.resolve(), arguments.server)
        world.postkey.start()
        report = Report(arguments.only, world.postkey, known=(Failure, imaplib.IMAP4.error))
        for server in world.servers:
            report.section(server.title)
            for story in stories.of(server):
                report.test(f"{server.title}: {name_of(story)}", story, world, server)
        world.postkey.stop()
    return report.summary()


if __name__ == "__main__":
    sys.exit(main())
