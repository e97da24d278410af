"""Three replicas of postkey on one PostgreSQL, behind HAProxy, while everything fails that can fail.

    python3 main.py --postkey PATH [--whole] [--only TEXT] [--keep]

A token that was used twice or lost fails the test, and so does a login that was refused for good, or temporarily without a reason. The
exit code is 1 if a test fails.
"""

import sys
import time
import traceback

from world import World  # its imports find tests/real  # isort: skip
import databases  # noqa: E402
import stories  # noqa: E402
import failures  # noqa: E402
import guesses  # noqa: E402
import migrations  # noqa: E402
from process import Failure, Run, options  # noqa: E402


class Report:
    """Runs tests, one line each, and remembers which have failed."""

    def __init__(self, only):
        self.only, self.passed, self.failed = only, 0, []

    def section(self, title, tests, *arguments):
        """Runs tests with these arguments. Whatever one raises makes it fail, and only it."""
        print(f"\n{title}", flush=True)
        for test in tests:
            name = test.__name__.replace("_", " ")
            if self.only in name:
                self._test(name, test, arguments)

    def _test(self, name, test, arguments):
        start = time.monotonic()
        try:
            test(*arguments)
        except Exception as error:
            self.failed.append(name)
            text = str(error) if isinstance(error, Failure) else "".join(traceback.format_exception(error))
            print(f"  FAILED {time.monotonic() - start:5.1f} s  {name}", flush=True)
            print("\n".join(f"         | {line}" for line in text.splitlines()), flush=True)
        else:
            self.passed += 1
            print(f"  ok     {time.monotonic() - start:5.1f} s  {name}", flush=True)


def run_all(world, report, shape):
    """The load first. Its accounts need half a minute until their tokens are too old, which the other tests use."""
    start = time.monotonic()
    world.authorize([f"a{number}@example.test" for number in range(shape.accounts)])
    print(f"{shape.accounts} accounts are authorized after {time.monotonic() - start:.0f} s", flush=True)
    report.section("Failures under load", [failures.failures_under_load_lose_no_token_and_refuse_no_login_for_good], world, shape)
    stories.prepare(world)
    report.section("What one replica changes, the others know", stories.KNOWLEDGE, world)
    report.section("Databases", databases.TESTS, world)
    report.section("Migrations", migrations.TESTS, world)
    report.section("Guesses", guesses.TESTS, world)
    report.section("After the load", [failures.afterwards_every_refresh_token_is_good], world, shape)
    report.section("Interrupted refreshes", stories.INTERRUPTIONS, world)


def main():
    """Sets everything up, runs everything, takes everything down."""
    parser = options(__doc__)
    parser.add_argument("--whole", action="store_true", help="10,000 accounts, 200 logins a second, ten minutes")
    arguments = parser.parse_args()
    report = Report(arguments.only)
    with Run(arguments.keep) as run:
        world = World(run, arguments.postkey.resolve())
        world.start()
        run_all(world, report, failures.WHOLE if arguments.whole else failures.SHORT)
        world.stop()
    print(f"\n{report.passed} passed, {len(report.failed)} failed")
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
