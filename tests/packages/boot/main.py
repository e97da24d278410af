"""postkey's package in a Debian that boots with its own systemd, and what its administrator sees.

    unshare --net python3 main.py --root FOLDER --package DEB --previous DEB [--only TEXT]

The folder is a clean Debian with systemd. The mail servers and the authorization server are those of tests/real; they run outside of
the container, on its loopback. Each test prints a line; the exit code is 1 if one fails.
"""

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "real"))

import everyday
import failures
import sockets
import versions
from machine import Machine
from process import Run
from report import Report, name_of
from servers import Servers
from service import SYSTEM, Postkey


class World(Servers):
    """Everything that a test can reach: the provider's servers, the machine, and postkey on it."""

    def __init__(self, run, arguments):
        super().__init__(run)
        self.machine = Machine(run, arguments.root)
        shutil.copy(arguments.package, arguments.root / "root/new.deb")
        shutil.copy(arguments.previous, arguments.root / "root/previous.deb")
        self.machine.boot()
        self.postkey = Postkey(self, SYSTEM)
        self.accounts = {}


SECTIONS = (
    ("Everyday life", everyday.TESTS),
    ("Failures", failures.TESTS),
    ("Socket units and credentials", sockets.TESTS),
    ("Upgrade and removal", versions.TESTS),
)


def main():
    """Sets everything up, runs everything, takes everything down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, type=Path, help="the folder of the clean Debian; it is changed")
    parser.add_argument("--package", required=True, type=Path, help="the package to test")
    parser.add_argument("--previous", required=True, type=Path, help="an older package, which is installed first")
    parser.add_argument("--only", default="", help="run only the tests whose name contains this text")
    parser.add_argument("--keep", action="store_true", help="keep the run's folder")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with Run(arguments.keep) as run:
        world = World(run, arguments)
        report = Report(arguments.only, world.postkey)
        try:
            for title, tests in SECTIONS:
                report.section(title)
                for test in tests:
                    report.test(name_of(test), test, world, always=test in everyday.PREPARATION)
        finally:
            world.machine.power_off()
        return report.summary()


if __name__ == "__main__":
    sys.exit(main())
