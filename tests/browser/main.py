"""The page of `postkey web` in a real Chromium.

    python3 main.py --postkey PATH [--only TEXT] [--guide] [--keep]

Starts the servers of tests/real, and then the tests in JavaScript, which start postkey and Chromium. For a network namespace
of its own, so that no browser and no provider can reach anything else.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "real"))

from authorization_server import AuthorizationServer  # noqa: E402
from dovecot import Dovecot  # noqa: E402
from message import new_message  # noqa: E402
from postfix import Submission  # noqa: E402
from postkey import DISCOVERED, HEAD, LISTENER, PROVIDER, provider  # noqa: E402
from process import Run  # noqa: E402

TARGET, GUIDE = HERE.parents[1] / "target" / "browser", HERE.parents[1] / "docs" / "guide"

# The newcomers whose mail is read at the end.
READERS = ("newcomer@example.test", "newcomer@registered.test", "newcomer@discovered.test")


class World:
    """The provider's servers."""

    def __init__(self, run):
        self.run = run
        self.server = AuthorizationServer(run)
        self.dovecot = Dovecot(run, self.server.introspection_url)
        self.ports = {**self.dovecot.ports, **Submission(run, self.dovecot).ports}

    def describe(self, binary):
        """All that the tests need to know, as JSON."""
        return {
            "folder": str(self.run.subfolder("browser")),
            "postkey": str(binary),
            "configuration": configuration(self),
            "administration": f"http://127.0.0.1:{self.server.http_port}/admin",
            "clientSecret": self.server.client_secret,
            "marks": {reader: self.put_message(reader) for reader in READERS},
            "pictures": str(TARGET),
        }

    def put_message(self, address):
        """Delivers a message. Returns the text by which it is recognized."""
        message = new_message("somebody@example.test", address, kilobytes=1)
        self.dovecot.mailbox(address).put(message.content)
        return message.mark.decode()


def configuration(world):
    """The text of postkey.toml for a folder `FOLDER`, with a provider of each kind that a newcomer meets."""
    known = {"name": "known", "domain": "example.test"}
    # Nothing tells it to whom it could register itself.
    unregistered = PROVIDER.replace('client_id = "native"\n', "").replace('issuer = "{issuer}"\n', "", 1)
    registered = {"name": "registered", "domain": "registered.test", "head": unregistered}
    discovered = {"name": "discovered", "domain": "discovered.test", "head": DISCOVERED}
    listeners = [LISTENER.format(protocol=protocol, security="none") for protocol in ("imap", "pop3", "smtp")]
    providers = [provider(world, security="tls", mechanisms=["OAUTHBEARER", "XOAUTH2"], **each)
                 for each in (known, registered, discovered)]
    return HEAD.format(folder="FOLDER") + "".join(listeners + providers)


def main():
    """Starts everything, runs the tests, ends everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postkey", required=True, type=Path, help="the binary to test")
    parser.add_argument("--only", default="", help="run only the tests whose name contains this text")
    parser.add_argument("--guide", action="store_true", help="also write the pictures of docs/guide")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    TARGET.mkdir(parents=True, exist_ok=True)
    with Run(arguments.keep) as run:
        described = World(run).describe(arguments.postkey.resolve()) | {"guide": str(GUIDE) if arguments.guide else None}
        environment = {**os.environ, "WORLD": str(run.write_json("world.json", described)), "FONTCONFIG_FILE": str(HERE / "fonts.conf")}
        command = ["node", "--test", "--test-reporter=spec", "--test-concurrency=2", "--test-timeout=1200000"]
        if arguments.only:
            command += ["--test-name-pattern", arguments.only]
        # A file in which nothing matches would start a browser for nothing.
        files = [str(file) for file in sorted(HERE.glob("*.test.mjs")) if re.search(arguments.only, file.read_text())]
        return subprocess.run(command + files, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
