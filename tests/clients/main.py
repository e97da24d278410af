"""Mail programs, for real: each through postkey, with the settings that `postkey settings` prints.

    python3 main.py --postkey PATH [--whole] [--only TEXT] [--keep]

Everything runs on loopback. The table of programs is printed, and written to target/clients.md. The exit code is 1 if a
test fails.
"""

import itertools
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from world import World  # its imports find tests/real  # isort: skip
import claws  # noqa: E402
import commands  # noqa: E402
import libraries  # noqa: E402
import terminal  # noqa: E402
import thunderbird  # noqa: E402
from case import Case, new_home  # noqa: E402
from message import new_message  # noqa: E402
from process import Failure, Run, options  # noqa: E402
from postkey import SECURITIES  # noqa: E402
from program import WORDS, Fetch  # noqa: E402
from restarts import KINDS, Hotel  # noqa: E402
from table import Table  # noqa: E402

PROGRAMS = [*libraries.PROGRAMS, *commands.PROGRAMS, *terminal.PROGRAMS, *thunderbird.PROGRAMS, *claws.PROGRAMS]


def matches(arrived, message, compare):
    """Fails with the first difference."""
    if not compare(arrived, message):
        pairs = itertools.zip_longest(arrived.splitlines(), message.content.splitlines())
        at, line = next(((n, a) for n, (a, e) in enumerate(pairs, 1) if a != e), (0, b"line ends only"))
        raise Failure(f"{len(arrived)} bytes and not {len(message.content)}; line {at} has changed to {line[:200]!r}")


def empty(mailbox):
    """Removes all messages, and what Dovecot remembers of them, because its POP3 server would still offer them."""
    mailbox.clear()
    for path in mailbox.folder.glob("dovecot*"):
        path.unlink()


def act(case, one, mailbox, megabytes):
    """One message in or out. Returns what was done, in words."""
    message = new_message(case.account.address, case.account.address, kilobytes=megabytes * 1024)
    empty(mailbox)
    if isinstance(one, Fetch):
        mailbox.put(message.content)
        arrived = one.act(case).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    else:
        one.act(case, message)
        arrived = mailbox.wait_for(message.mark, 60)
    matches(arrived, message, one.compare)
    return f"{megabytes} MB {one.what} ({WORDS.get(one.compare, 'byte for byte')})"


def is_refused(case, one, mailbox):
    """The same with a wrong password, which must reach no mailbox."""
    mistyped, is_fetch, why = case.mistyped(), isinstance(one, Fetch), ""
    message = new_message(case.account.address, case.account.address, kilobytes=1)
    empty(mailbox)
    with case.world.typing:
        before = case.world.refusals()
        try:
            arrived = one.act(mistyped) if is_fetch else one.act(mistyped, message)
        except Failure as failure:
            arrived, why = None, str(failure)
        if case.world.refusals() == before:
            raise Failure(f"the wrong password has not been tried:\n{why}")
    if arrived or (not is_fetch and mailbox.find(message.mark)):
        raise Failure("the wrong password is good enough")


def story(world, program, protocol, security, folder, megabytes, done):
    """Everything that a program does with one protocol on one listener, noted in words."""
    account = world.accounts[program.address]
    mailbox = world.dovecot.mailbox(account.address)
    acts = [one for one in program.acts if one.protocol == protocol]
    for number, one in enumerate(acts):
        case = Case(world, security, account, new_home(world.run.folder / f"{folder}-{number}"))
        if one.mistypes and number == 0:
            is_refused(case, one, mailbox)
            done.append("a wrong password, then the right one")
        done.append(act(case, one, mailbox, megabytes))


def stories(world, table, programs, whole):
    """All programs, two at once; each has its own account."""
    securities, megabytes = (SECURITIES, 5) if whole else (("none",), 1)

    def tell(numbered):
        number, program = numbered
        for protocol, security in itertools.product(program.protocols(whole), securities):
            if security in program.securities:
                start = time.monotonic()
                where = f"{protocol.upper()}, {security}"
                done = []
                try:
                    story(world, program, protocol, security, f"{number}-{protocol}-{security}", megabytes, done)
                except Exception as error:
                    table.failed(program, where, ", ".join(done), error, time.monotonic() - start)
                else:
                    table.passed(program, where, ", ".join(done), "ok")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tell, enumerate(programs)))


def main():
    """Sets everything up, runs everything, takes everything down."""
    parser = options(__doc__)
    parser.add_argument("--whole", action="store_true", help="every program on every listener, and every kind of restart")
    arguments = parser.parse_args()
    programs = [program for program in PROGRAMS if arguments.only.lower() in program.name.lower()]
    table = Table()
    with Run(arguments.keep) as run:
        world = World(run, arguments.postkey.resolve())
        world.start()
        world.authorize([program.address for program in programs])
        stories(world, table, programs, arguments.whole)
        for security in ("none", "tls") if arguments.whole else ("none",):
            hotel = Hotel(world, table, programs, security, arguments.whole)
            for kind in KINDS if arguments.whole else KINDS[:1]:
                hotel.restart(*kind)
            hotel.leave(hotel.guests)
        world.postkey.stop()
    return table.finish()


if __name__ == "__main__":
    sys.exit(main())
