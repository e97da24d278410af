"""What several machines cost: a login with a known password beside the vault in files, and how refreshes grow with the replicas.

    python3 measure.py --postkey PATH [--accounts NUMBER]

Everything shares this machine, so the refreshes a second only say something beside each other. The CPU time of a login is that of the
replicas alone, and needs an idle machine.
"""

import sys
import time

from world import World  # its imports find tests/real  # isort: skip
from process import Run, options  # noqa: E402
from failures import Load  # noqa: E402
from judge import percentile  # noqa: E402

RATE, SECONDS = 100, 10
AT_ONCE = 32
HOUR = 3600

# The replicas, and whether they share a database.
CLUSTERS = [(1, False), (1, True), (2, True), (3, True)]


def cpu(world):
    """The CPU time of the replicas so far, in ms."""
    return sum(replica.cpu_seconds() for replica in world.replicas) * 1000


def known(world, accounts):
    """The CPU time of a login with a known password and a good token, in ms."""
    for _ in world.replicas:
        Load(world, accounts, RATE, len(accounts) * 3 / RATE, f"warm-{time.monotonic_ns()}").logins(300)
    at_rest = idle(world)
    begun = cpu(world)
    logins = Load(world, accounts, RATE, SECONDS, f"known-{time.monotonic_ns()}").logins(60)
    assert all(login["tries"][0]["outcome"] == "ok" for login in logins)
    return (cpu(world) - begun - at_rest * SECONDS) / len(logins)


def idle(world):
    """The CPU time that the replicas use in a second by themselves, in ms."""
    begun = cpu(world)
    time.sleep(5)
    return (cpu(world) - begun) / 5


def refreshing(world, accounts):
    """How many refreshes a second there are if each login needs one, and how long such a login takes, in ms: median and p99."""
    before = world.provider.refreshes()
    logins = Load(world, accounts, None, None, f"refreshing-{time.monotonic_ns()}", at_once=AT_ONCE).logins(300)
    tries = [one for login in logins for one in login["tries"]]
    seconds = max(one["at"] + one["seconds"] for one in tries) - min(one["at"] for one in tries)
    took = [login["tries"][0]["seconds"] * 1000 for login in logins if login["tries"][0]["outcome"] == "ok"]
    return (world.provider.refreshes() - before) / seconds, percentile(took, 0.5), percentile(took, 0.99)


def row(arguments, replicas, is_shared):
    """One line of the table."""
    with Run() as run:
        world = World(run, arguments.postkey.resolve(), replicas=replicas, is_shared=is_shared)
        world.start()
        world.provider.ask("life", seconds=2)
        accounts = list(world.authorize([f"a{number}@example.test" for number in range(arguments.accounts)]).values())
        time.sleep(2)
        world.provider.ask("life", seconds=HOUR)
        rate, median, p99 = refreshing(world, accounts)
        milliseconds = known(world, accounts[:100])
        world.stop()
    place = "PostgreSQL" if is_shared else "files"
    print(f"| {replicas}, {place} | {milliseconds:.2f} | {rate:.0f} | {median:.0f} | {p99:.0f} |", flush=True)


def main():
    """Prints the table."""
    parser = options(__doc__)
    parser.add_argument("--accounts", type=int, default=1000, help="how many refreshes are measured")
    arguments = parser.parse_args()
    print("| replicas, vault | CPU ms of a login | refreshes a second | ms of such a login, median | p99 |\n|---|---|---|---|---|", flush=True)
    for replicas, is_shared in CLUSTERS:
        row(arguments, replicas, is_shared)


if __name__ == "__main__":
    sys.exit(main())
