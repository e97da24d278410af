"""Three replicas of postkey on one PostgreSQL, behind HAProxy, while everything fails that can fail.

    python3 main.py --postkey PATH [--whole] [--only TEXT] [--keep]

A token that was used twice or lost fails the test, and so does a login that was refused for good, or temporarily without a reason. The
exit code is 1 if a test fails.
"""

import sys
import time
from dataclasses import replace

from world import World  # its imports find tests/real  # isort: skip
import databases  # noqa: E402
import failures  # noqa: E402
import first_logins  # noqa: E402
import guesses  # noqa: E402
import judge_tests  # noqa: E402
import migrations  # noqa: E402
import stories  # noqa: E402
from process import Run, options  # noqa: E402
from report import Report, name_of  # noqa: E402


def run_all(world, report, shape):
    """The load first. Its accounts need half a minute until their tokens are too old, which the other tests use."""
    start = time.monotonic()
    world.authorize([f"a{number}@example.test" for number in range(shape.accounts)])
    print(f"{shape.accounts} accounts are authorized after {time.monotonic() - start:.0f} s", flush=True)
    run_tests(report, "Failures under load", [failures.failures_under_load_lose_no_token_and_refuse_no_login_for_good], world, shape)
    stories.prepare(world)
    run_tests(report, "What one replica changes, the others know", stories.KNOWLEDGE, world)
    run_tests(report, "First logins", first_logins.TESTS, world)
    run_tests(report, "Databases", databases.TESTS, world)
    run_tests(report, "Migrations", migrations.TESTS, world)
    run_tests(report, "Guesses", guesses.TESTS, world)
    run_tests(report, "After the load", [failures.afterwards_every_refresh_token_is_good], world, shape)
    run_tests(report, "Interrupted refreshes", stories.INTERRUPTIONS, world)


def run_tests(report, title, tests, *arguments):
    """Tests that all get these arguments."""
    report.section(title)
    for test in tests:
        report.test(name_of(test), test, *arguments)


def shape_of(arguments):
    """How large the load is: one of two, of which each number can be another one."""
    shape = failures.WHOLE if arguments.whole else failures.SHORT
    numbers = {name: value for name in ("accounts", "rate", "seconds") if (value := getattr(arguments, name))}
    shape = replace(shape, **numbers)
    return replace(shape, events=[event for event in shape.events if event[0] < shape.seconds])


def main():
    """Sets everything up, runs everything, takes everything down."""
    parser = options(__doc__)
    parser.add_argument("--whole", action="store_true", help="10,000 accounts, 200 logins a second, ten minutes")
    for name in ("accounts", "rate", "seconds"):
        parser.add_argument(f"--{name}", type=int, help="of the load, in place of the usual number")
    arguments = parser.parse_args()
    report = Report(arguments.only)
    run_tests(report, "The judge", judge_tests.TESTS)
    with Run(arguments.keep) as run:
        world = World(run, arguments.postkey.resolve())
        world.start()
        run_all(world, report, shape_of(arguments))
        world.stop()
    return report.summary()


if __name__ == "__main__":
    sys.exit(main())
