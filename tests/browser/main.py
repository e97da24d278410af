"""The page of `postkey web` in a real Chromium.

    python3 main.py --postkey PATH [--only TEXT] [--guide] [--keep]

Starts the servers of tests/real, and then the tests in JavaScript, which start postkey and Chromium. For a network namespace
of its own, so that no browser and no provider can reach anything else.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "real"))

from authorization_server import ASSERTING  # noqa: E402
from message import new_message  # noqa: E402
from postkey import DISCOVERED, HEAD, LISTENER, PROVIDER, provider  # noqa: E402
from process import Run, options  # noqa: E402
from servers import Servers  # noqa: E402

TARGET, GUIDE = HERE.parents[1] / "target" / "browser", HERE.parents[1] / "docs" / "guide"

# The newcomers whose mail is read at the end.
READERS = ("newcomer@example.test", "newcomer@registered.test", "newcomer@discovered.test")


class World(Servers):
    """The provider's servers."""

    def describe(self, binary):
        """All that the tests need to know, as JSON."""
        return {
            "folder": str(self.run.subfolder("browser")),
            "postkey": str(binary),
            "configuration": configuration(self),
            "held": held(self),
            "submissionPort": self.ports["smtp", "tls"],
            "administration": f"http://127.0.0.1:{self.server.http_port}/admin",
            "clientSecret": self.server.client_secret,
            "serviceAccount": self.service_account(),
            "marks": {reader: self.put_message(reader) for reader in READERS},
            "pictures": str(TARGET),
        }

    def service_account(self):
        """The key file of a service account, as Google makes it."""
        key = {"client_email": ASSERTING, "private_key": self.server.key.read_text(), "token_uri": f"{self.server.issuer}/token"}
        return json.dumps({"type": "service_account", **key})

    def put_message(self, address):
        """Delivers a message. Returns the text by which it is recognized."""
        message = new_message("somebody@example.test", address, kilobytes=1)
        self.dovecot.mailbox(address).put(message.content)
        return message.mark.decode()


def described(world, name, head):
    """The part of postkey.toml about a provider with a domain of its name."""
    return provider(world, name=name, domain=f"{name}.test", head=head, security="tls", mechanisms=["OAUTHBEARER", "XOAUTH2"])


# The service account comes from the page.
KNOWN = "".join(line for line in PROVIDER.splitlines(True) if not line.startswith("assertion"))


def configuration(world):
    """The text of postkey.toml for a folder `FOLDER`, with a provider of each kind that a newcomer meets."""
    # Nothing tells it to whom it could register itself.
    unregistered = KNOWN.replace('client_id = "native"\n', "").replace('issuer = "{issuer}"\n', "", 1)
    heads = {"known": KNOWN.replace("{domain}", "example.test"), "registered": unregistered, "robots": unregistered,
             "discovered": DISCOVERED}
    listeners = [LISTENER.format(protocol=protocol, security="none") for protocol in ("imap", "pop3", "smtp")]
    return HEAD.format(folder="FOLDER") + "".join(listeners + [described(world, *each) for each in heads.items()])


def held(world):
    """One more provider, whose submission server is at `PORT`."""
    return described(world, "held", KNOWN).replace(f"port = {world.ports['smtp', 'tls']}\n", "port = PORT\n")


def main():
    """Starts everything, runs the tests, ends everything."""
    parser = options(__doc__)
    parser.add_argument("--guide", action="store_true", help="also write the pictures of docs/guide")
    arguments = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    TARGET.mkdir(parents=True, exist_ok=True)
    with Run(arguments.keep) as run:
        world = World(run).describe(arguments.postkey.resolve()) | {"guide": str(GUIDE) if arguments.guide else None}
        environment = {**os.environ, "WORLD": str(run.write_json("world.json", world)), "FONTCONFIG_FILE": str(HERE / "fonts.conf")}
        command = ["node", "--test", "--test-reporter=spec", "--test-concurrency=2", "--test-timeout=1200000"]
        if arguments.only:
            command += ["--test-name-pattern", arguments.only]
        # A file in which nothing matches would start a browser for nothing.
        files = [str(file) for file in sorted(HERE.glob("*.test.mjs")) if re.search(arguments.only, file.read_text())]
        return subprocess.run(command + files, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
