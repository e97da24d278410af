"""Real servers and real clients around postkey.

    python3 main.py --postkey PATH [--only TEXT] [--keep]

Everything runs on loopback, in one folder that is removed at the end. Each test prints a line; the exit code is 1 if one fails.
"""

import itertools
import sys

import accounts
import direct
import grants
import leaks
import life
import moving_in
import proxies
from clients import CLIENTS, client_test
from postkey import SECURITIES, Postkey, configuration
from process import Run, options
from report import Report, name_of
from servers import Servers


class World(Servers):
    """Everything that a test can reach: the provider's servers, and postkey."""

    def __init__(self, run, binary):
        super().__init__(run)
        self.tokens = direct.Tokens(run, self.server)
        self.postkey = Postkey(run, binary, lambda folder: configuration(self, folder))
        self.accounts = {}
        self._chosen = {}

    def with_password(self, account, password):
        """The account with this app password, which is added once."""
        key = account.address, password
        if key not in self._chosen:
            self._chosen[key] = self.postkey.add_password(account, f"chosen {len(self._chosen)}", password)
        return self._chosen[key]


def client_tests(world, report):
    """Every client on every listener of its protocol, with a provider on TLS and one on STARTTLS."""
    listeners = world.postkey.listeners()
    numbers = itertools.count(1)
    for client, security, account in itertools.product(CLIENTS, SECURITIES, life.clients_accounts(world)):
        if security not in client.securities:
            continue
        name = f"{client.protocol} {security:8} {account.address:17} {client.name}"
        listener = listeners[client.protocol, security]
        report.test(name, client_test, world, client, listener, account, f"clients/{next(numbers)}")


def run_all(world, report, watch):
    """The whole story, in the order in which a user lives it."""
    report.section("The servers by themselves")
    for check in direct.CHECKS:
        report.test(name_of(check), check, world)
    report.section("Authorization")
    for test in life.AUTHORIZATION:
        report.test(name_of(test), test, world, always=True)  # nothing below works without accounts
    report.section("Clients")
    client_tests(world, report)
    for title, tests in (
        ("Tokens and outages", life.TOKENS),
        ("Grants", grants.TESTS),
        ("Proxies", proxies.TESTS),
        ("Shared mailboxes and whole domains", accounts.TESTS),
        ("Moving in from email-oauth2-proxy", moving_in.TESTS),
    ):
        report.section(title)
        for test in tests:
            report.test(name_of(test), test, world)
    report.section("Secrets")
    world.postkey.stop()
    for test in leaks.TESTS:
        report.test(name_of(test), test, world, watch)


def main():
    """Sets everything up, runs everything, takes everything down."""
    arguments = options(__doc__).parse_args()
    with Run(arguments.keep) as run, leaks.Watch(run) as watch:
        world = World(run, arguments.postkey.resolve())
        report = Report(arguments.only, world.postkey)
        run_all(world, report, watch)
        return report.summary()


if __name__ == "__main__":
    sys.exit(main())
