"""Logins at a steady rate while everything fails that can fail, one after the other; and what must be true afterwards."""

import itertools
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from process import Failure
from world import HERE, LIFE

# How long a login may be refused temporarily after a failure has ended: a replica that died may have been about to store tokens,
# so the others wait for 15 seconds before they use the old refresh token.
SETTLED = 20

# How long after an answer of the authorization server a killed replica may have had it without having stored it.
STORING = 0.5


@dataclass
class Shape:
    """How large the load is. `events` has what happens when, in seconds after the start."""

    accounts: int
    rate: int
    seconds: int
    events: list = field(default_factory=list)


SHORT = Shape(accounts=200, rate=20, seconds=60, events=[
    (8, "suspend", 15), (28, "restart_database", "fast"), (32, "cut", 12), (47, "upgrade"),
])

WHOLE = Shape(accounts=10_000, rate=200, seconds=600, events=[
    (50, "suspend", 60), (140, "restart_database", "fast"), (170, "cut", 45), (240, "cut_all", 20), (290, "restart_database", "immediate"),
    (330, "suspend", 60), (420, "database_away", 15), (460, "upgrade"), (530, "cut", 45),
])

KILLS = 10  # seconds between two


class Disturbances:
    """The failures. Each replica has a lock, so that only one thing happens to it at a time."""

    def __init__(self, world, shape):
        self.world, self.shape = world, shape
        self.kills, self.failures, self.errors = [], [], []
        self._locks = {replica.name: threading.Lock() for replica in world.replicas}
        self._turns = itertools.cycle(world.replicas)
        self._database = threading.Lock()

    def run(self):
        """Everything, when it is due, until the end of the load."""
        kills = [(at, "kill") for at in range(KILLS // 2, self.shape.seconds, KILLS)]
        begun = time.monotonic()
        with ThreadPoolExecutor() as pool:
            for at, name, *arguments in sorted([*kills, *self.shape.events]):
                time.sleep(max(0, begun + at - time.monotonic()))
                pool.submit(self._carry_out, name, arguments)

    def _carry_out(self, name, arguments):
        try:
            getattr(self, name)(*arguments)
        except Exception as error:
            self.errors.append(f"{name}: {error}")

    @contextmanager
    def _failing(self, what):
        begun = time.time()
        try:
            yield
        finally:
            self.failures.append((begun, time.time(), what))

    @contextmanager
    def _some_replica(self):
        """The next one to which nothing else happens."""
        for replica in self._turns:
            if self._locks[replica.name].acquire(blocking=False):
                try:
                    yield replica
                finally:
                    self._locks[replica.name].release()
                return

    def kill(self):
        """Kills a replica in the middle of everything, and starts it again."""
        with self._some_replica() as replica, self._failing(f"{replica.name} killed"):
            self.kills.append((time.time(), replica.name))
            replica.kill()
            replica.start()

    def suspend(self, seconds):
        """Stops a replica's process for so long."""
        with self._some_replica() as replica, self._failing(f"{replica.name} stopped"):
            replica.suspend()
            time.sleep(seconds)
            replica.resume()

    def cut(self, seconds):
        """Cuts a replica's network to the database."""
        with self._some_replica() as replica, self._failing(f"network of {replica.name} cut"):
            replica.network.cut()
            time.sleep(seconds)
            replica.network.restore()

    def cut_all(self, seconds):
        """Cuts the network to the database for everybody."""
        with self._failing("all networks cut"):
            for replica in self.world.replicas:
                replica.network.cut()
            time.sleep(seconds)
            for replica in self.world.replicas:
                replica.network.restore()

    def restart_database(self, how):
        """Restarts PostgreSQL."""
        self.database_away(0, how)

    def database_away(self, seconds, how="fast"):
        """Stops PostgreSQL for so long."""
        with self._database, self._failing("PostgreSQL stopped"):
            self.world.database.stop(how)
            time.sleep(seconds)
            self.world.database.start()

    def upgrade(self):
        """Stops and starts the replicas one by one, as for a new version."""
        for replica in self.world.replicas:
            with self._locks[replica.name], self._failing(f"{replica.name} upgraded"):
                replica.stop()
                replica.start()


class Load:
    """The mail programs, in a process of their own."""

    def __init__(self, world, accounts, rate, seconds, name, at_once=None):
        self._result = world.run.folder / f"{name}.json"
        settings = world.run.write_json(f"{name}-settings.json", {
            "ports": world.balanced, "accounts": [(account.address, account.password) for account in accounts], "rate": rate,
            "seconds": seconds, "at_once": at_once, "result": str(self._result),
        })
        self._process = world.run.start(name, [sys.executable, str(HERE / "load.py"), str(settings)])

    def logins(self, seconds):
        """What came of the logins."""
        if self._process.child.wait(seconds) != 0:
            raise Failure(f"the load has ended:\n{self._process.last_lines()}")
        return json.loads(self._result.read_text())


def in_flight(report, kills):
    """The accounts whose answer was on its way to a replica when that was killed, each with how long before the kill the server answered,
    in ms. Nobody can prevent their loss. Negative is after the kill."""
    found = {}
    for entry in report["twice"]:
        use = entry["first"]
        for at, name in kills:
            if use["answered"] and name == use["replica"] and use["begun"] <= at <= use["answered"] + STORING:
                found[entry["address"]] = round((at - use["answered"]) * 1000)
    return found


def tries_that(logins, outcome):
    """All tries with this outcome, each with its login."""
    return [(login, one) for login in logins for one in login["tries"] if one["outcome"] == outcome]


def is_late(login, failures):
    """Whether a login took longer than the failures explain that happened meanwhile."""
    tries = login["tries"]
    begun, ended = tries[0]["at"], tries[-1]["at"]
    excused = sum(end - max(start, begun) for start, end, _ in failures if end > begun and start < ended)
    return ended - begun > SETTLED + excused


def percentile(values, share):
    """The value below which this share of the values lies."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def tell(logins, report, disturbances, lost_in_flight):
    """Prints the figures."""
    first = [login["tries"][0]["seconds"] for login in logins if login["tries"][0]["outcome"] == "ok"]
    counts = {outcome: len(tries_that(logins, outcome)) for outcome in ("ok", "temporary", "cut", "permanent")}
    again = [login for login in logins if len(login["tries"]) > 1]
    right = sum(len(login["tries"]) == 2 and login["tries"][1]["outcome"] == "ok" for login in again)
    print(f"    {len(logins)} logins at {disturbances.shape.rate} a second, {sum(report['refreshes'].values())} refreshes, {len(disturbances.kills)} kills")
    print(f"    a login that worked at once: median {percentile(first, 0.5) * 1000:.0f} ms, p99 {percentile(first, 0.99) * 1000:.0f} ms")
    print(f"    tries: {counts['ok']} ok, {counts['temporary']} refused temporarily, {counts['cut']} cut, {counts['permanent']} refused for good")
    print(f"    {len(again)} logins tried again: {right} were right at the next try, the others later")
    print(f"    tokens used twice: {len(report['twice'])}, of these {len(lost_in_flight)} with the answer on the wire at a kill", flush=True)
    for address, milliseconds in lost_in_flight.items():
        refused = sum(login["address"] == address for login, _ in tries_that(logins, "permanent"))
        print(f"    {address}: answered {milliseconds} ms before the kill; {refused} logins refused for good", flush=True)


def judge(logins, report, disturbances):
    """What is wrong after the load, in words. Prints the figures first."""
    excused = in_flight(report, disturbances.kills)
    tell(logins, report, disturbances, excused)
    wrong = list(disturbances.errors)
    others = [entry for entry in report["twice"] if entry["address"] not in excused]
    wrong += [f"used twice: {entry}" for entry in others[:5]]
    if report["unknown"]:
        wrong.append(f"{report['unknown']} refresh tokens that were never issued")
    permanent = [(login, one) for login, one in tries_that(logins, "permanent") if login["address"] not in excused]
    wrong += [f"refused for good: {login['protocol']} {login['address']}: {one['words']}" for login, one in permanent[:5]]
    for words, holds in (("never worked", lambda login: login["tries"][-1]["outcome"] != "ok"),
                         ("worked too late", lambda login: is_late(login, disturbances.failures))):
        bad = [login for login in logins if holds(login) and login["address"] not in excused]
        wrong += [f"{words} ({len(bad)}): {login}" for login in bad[:3]]
    return wrong


def expect_nothing(wrong):
    """Fails with all that is wrong."""
    if wrong:
        raise Failure("\n".join(wrong))


def failures_under_load_lose_no_token_and_refuse_no_login_for_good(world, shape):
    """The load and the failures together."""
    accounts = load_accounts(world, shape)
    load, disturbances = Load(world, accounts, shape.rate, shape.seconds, "load"), Disturbances(world, shape)
    disturbances.run()
    world.kills = disturbances.kills
    logins = load.logins(shape.seconds + 300)
    world.load_ended = time.monotonic()
    expect_nothing(judge(logins, world.provider.report(), disturbances))


def load_accounts(world, shape):
    """The accounts that the mail programs use."""
    return [world.accounts[f"a{number}@example.test"] for number in range(shape.accounts)]


def afterwards_every_refresh_token_is_good(world, shape):
    """Each account logs in once with a token that it has to get now. What was lost would be seen here."""
    time.sleep(max(0, world.load_ended + LIFE / 2 + 1 - time.monotonic()))
    before = world.provider.report()
    accounts = [account for account in load_accounts(world, shape) if account.address not in before["ended"]]
    rate = max(50, shape.rate)
    logins = Load(world, accounts, rate, len(accounts) / rate, "after").logins(300)
    report = world.provider.report()
    bad = [login for login in logins if login["tries"][-1]["outcome"] != "ok" or any(one["outcome"] == "permanent" for one in login["tries"])]
    wrong = [f"lost ({len(bad)}): {login}" for login in bad[:3]]
    wrong += [f"used twice: {entry}" for entry in report["twice"][len(before["twice"]):]]
    refreshed = sum(report["refreshes"].values()) - sum(before["refreshes"].values())
    if refreshed < len(accounts):
        wrong.append(f"{refreshed} refreshes for {len(accounts)} accounts")
    unexplained = set(before["ended"]) - set(in_flight(before, world.kills))
    wrong += [f"grants ended: {sorted(unexplained)[:5]}"] if unexplained else []
    print(f"    lost: {len(bad) + len(unexplained)}; lost with the answer on the wire at a kill: {len(before['ended']) - len(unexplained)}", flush=True)
    expect_nothing(wrong)
