"""Logins at a steady rate while everything fails that can fail, one after the other; and what must be true afterwards."""

import itertools
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from costs import Costs
from judge import Disturbance, Kill, in_flight, judge, percentile
from process import Failure, wait_until
from world import HERE, LIFE


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
RECOVERY = 15  # seconds within which a replica connects again and stores what it has
MOST_SHOWN = 12  # of what is wrong
SHARES = {"median": 0.5, "p99": 0.99, "p99.9": 0.999, "longest": 1}


class Disturbances:
    """The failures. Each replica has a lock, so that only one thing happens to it at a time."""

    def __init__(self, world, shape):
        self.world, self.shape = world, shape
        self.kills, self.all, self.errors = [], [], []
        self._locks = {replica.name: threading.Lock() for replica in world.replicas}
        self._turns = itertools.cycle(world.replicas)

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
    def _failing(self, kind):
        begun = time.time()
        try:
            yield
        finally:
            self.all.append(Disturbance(kind, begun, time.time()))

    @contextmanager
    def _some_replica(self):
        """The next one to which nothing else happens; None if there is none."""
        for replica in itertools.islice(self._turns, len(self._locks)):
            if self._locks[replica.name].acquire(blocking=False):
                try:
                    yield replica
                finally:
                    self._locks[replica.name].release()
                return
        yield None

    @contextmanager
    def _all_replicas(self):
        """All, for what happens to the database. Nobody should kill a replica with tokens that it could not store."""
        with ExitStack() as stack:
            for lock in self._locks.values():
                stack.enter_context(lock)
            yield self.world.replicas

    def kill(self):
        """Kills a replica in the middle of everything, and starts it again."""
        with self._some_replica() as replica:
            if replica:
                with self._failing("kill"):
                    sent = time.time()
                    replica.kill()
                    self.kills.append(Kill(replica.name, sent, time.time()))
                    replica.start()

    def suspend(self, seconds):
        """Stops a replica's process for so long."""
        with self._some_replica() as replica, self._failing("suspend"):
            replica.suspend()
            time.sleep(seconds)
            replica.resume()
            recovered([replica])

    def cut(self, seconds):
        """Cuts a replica's network to the database."""
        with self._some_replica() as replica, self._failing("cut"):
            replica.network.cut()
            time.sleep(seconds)
            replica.network.restore()
            recovered([replica])

    def cut_all(self, seconds):
        """Cuts the network to the database for everybody."""
        with self._all_replicas() as replicas, self._failing("database"):
            for replica in replicas:
                replica.network.cut()
            time.sleep(seconds)
            for replica in replicas:
                replica.network.restore()
            recovered(replicas)

    def restart_database(self, how):
        """Restarts PostgreSQL."""
        self.database_away(0, how)

    def database_away(self, seconds, how="fast"):
        """Stops PostgreSQL for so long."""
        with self._all_replicas() as replicas, self._failing("database"):
            self.world.database.stop(how)
            time.sleep(seconds)
            self.world.database.start()
            recovered(replicas)

    def upgrade(self):
        """Stops and starts the replicas one by one, as for a new version."""
        for replica in self.world.replicas:
            with self._locks[replica.name], self._failing("upgrade"):
                replica.stop()
                replica.start()


def recovered(replicas):
    """Returns when these replicas have a database and have stored everything. They promise that within seconds."""
    for replica in replicas:
        wait_until(lambda: is_well(replica), f"{replica.name} without trouble", RECOVERY)


def is_well(replica):
    """Whether it has a database now. Takes a moment, because asking costs what the load needs."""
    time.sleep(0.2)
    return replica.metric("postkey_vault_degraded") == 0


class Load:
    """The mail programs, in a process of their own."""

    def __init__(self, world, accounts, rate, seconds, name, at_once=None):
        self._result = world.run.folder / f"{name}.json"
        settings = world.run.write_json(f"{name}-settings.json", {
            "ports": world.balanced, "accounts": [(account.address, account.password) for account in accounts], "rate": rate,
            "seconds": seconds, "at_once": at_once, "result": str(self._result),
        })
        self.process = world.run.start(name, [sys.executable, str(HERE / "load.py"), str(settings)])

    def logins(self, seconds):
        """What came of the logins."""
        if self.process.child.wait(seconds) != 0:
            raise Failure(f"the load has ended:\n{self.process.last_lines()}")
        return json.loads(self._result.read_text())


def expect_nothing(wrong):
    """Fails with what is wrong; the first of it is enough."""
    if wrong:
        raise Failure("\n".join([f"{len(wrong)} things are wrong", *wrong[:MOST_SHOWN]]))


def failures_under_load_lose_no_token_and_refuse_no_login_for_good(world, shape):
    """The load and the failures together."""
    accounts = load_accounts(world, shape)
    costs, refreshes = Costs(world), world.provider.refreshes()
    load, disturbances = Load(world, accounts, shape.rate, shape.seconds, "load"), Disturbances(world, shape)
    costs.parts["load"] = load.process
    disturbances.run()
    world.kills = disturbances.kills
    costs.tell(shape.seconds)
    logins = load.logins(shape.seconds + 300)
    world.load_ended = time.monotonic()
    world.run.write_json("disturbances.json", [vars(each) for each in [*disturbances.all, *disturbances.kills]])
    print(f"    {len(world.kills)} kills, {len(disturbances.all) - len(world.kills)} other failures", flush=True)
    print(f"    from the answer of the authorization server to the first use of its token: {storing(world, refreshes)}", flush=True)
    expect_nothing(disturbances.errors + judged(world, logins, world.provider.report(), disturbances.all))


def judged(world, logins, report, disturbances):
    """What is wrong after a load."""
    numbers = [entry["first"]["number"] for entry in report["twice"]]
    used = {number for number, when in zip(numbers, world.provider.used(numbers)) if when}
    return judge(logins, report, disturbances, world.kills, used)


def storing(world, before):
    """How long after the authorization server's answer a token was used first, which is after it has been stored; without the first
    refreshes, so many."""
    answered = world.provider.ask("answers")
    used = world.provider.used(list(range(len(answered))))
    took = [1000 * (then - at) for at, then in list(zip(answered, used))[before:] if at and then]
    return ", ".join(f"{name} {percentile(took, share):.0f} ms" for name, share in SHARES.items()) + f", of {len(took)}"


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
    report["twice"] = report["twice"][len(before["twice"]):]
    report["refreshes"] = {name: count - before["refreshes"].get(name, 0) for name, count in report["refreshes"].items()}
    wrong = judged(world, logins, report, [])
    if (refreshed := sum(report["refreshes"].values())) < len(accounts):
        wrong.append(f"{refreshed} refreshes for {len(accounts)} accounts")
    lost = set(before["ended"]) & {account.address for account in load_accounts(world, shape)}
    unknown = lost - set(in_flight(before, world.kills))
    wrong += [f"grants ended: {sorted(unknown)[:5]}"] if unknown else []
    print(f"    lost with the answer on the wire at a kill: {len(lost) - len(unknown)}; otherwise: {len(unknown)}", flush=True)
    expect_nothing(wrong)
