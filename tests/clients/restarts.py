"""Programs that stay connected: a new mail appears without a poll, and they survive a restart of postkey."""

import threading
import time
from dataclasses import dataclass

from case import Case, new_home
from message import new_message
from process import Failure

# How long a program may take to show a mail while it waits, and to show one after a restart.
SHOWN, BACK = 60, 60

# How long to wait for a program that is known not to come back, or only at times. This only shows whether a newer version does,
# so the short form hardly waits.
FOR_NOTHING, HARDLY = 20, 2

# With a farewell or without, with a gap or without. With sockets that stay open, postkey itself closes without one.
KINDS = [(False, True), (False, False), (True, False)]


def words(farewell, held):
    """A kind of restart, for the table."""
    return f"{'BYE' if farewell else 'plain close'}, {'no gap' if held else 'gap of 1.5 s'}"


@dataclass
class Guest:
    """A program that stays."""

    program: object
    case: Case
    running: object = None

    def start(self):
        """Starts the program, on an empty mailbox, and waits until a new mail appears."""
        self.mailbox.clear()
        self.running = self.program.stay.start(self.case)
        shown = self.mail(SHOWN)
        if shown is None:
            raise Failure(f"a new mail does not appear within {SHOWN} s")
        return shown

    @property
    def mailbox(self):
        """Its account's mailbox."""
        return self.case.world.dovecot.mailbox(self.case.account.address)

    def mail(self, seconds):
        """Delivers a mail. Returns after how many seconds the program shows it, and None if it does not."""
        message = new_message(self.case.account.address, self.case.account.address, kilobytes=1)
        self.mailbox.put(message.content)
        return self.wait(lambda: self.running.sees(message.mark), seconds)

    @staticmethod
    def wait(condition, seconds):
        """After how many seconds something is so."""
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            if condition():
                return time.monotonic() - start
            time.sleep(0.1)
        return None

    def returns(self, whole):
        """After a restart. Returns what happens, in words; fails if the program should have done better."""
        if self.program.stay.reconnects == "the application":
            told = self.wait(self.running.ended, 10)
            self.running.stop()
            if told is None:
                raise Failure("the library does not notice the end of its connection")
            return f"told of the end within {max(1, round(told))} s; the application connects again"
        if self.program.stay.reconnects == "its next check":
            self.running.check()
            if (back := self.mail(BACK)) is None:
                raise Failure(f"not back within {BACK} s after a check")
            return f"back with its next check for new mail, after {back:.0f} s"
        known = {"a person": FOR_NOTHING if whole else HARDLY, "itself, at times": BACK if whole else HARDLY}
        patience = known.get(self.program.stay.reconnects, BACK)
        back = self.mail(patience)
        if back is not None:
            return f"back by itself, after {back:.0f} s"
        if self.program.stay.reconnects == "itself":
            raise Failure(f"not back within {patience} s")
        return f"not back within {patience} s"


class Hotel:
    """All programs that stay, at once, so that one restart is enough for all of them."""

    def __init__(self, world, table, programs, security, whole):
        self.world, self.table, self.security, self.whole = world, table, security, whole
        self.guests = [Guest(program, Case(world, security, world.accounts[program.address],
                                           new_home(world.run.folder / f"stay-{security}-{number}")))
                       for number, program in enumerate(programs) if program.stay and security in program.securities]

    def arrive(self):
        """Starts all that do not run."""
        self.each([guest for guest in self.guests if guest.running is None], "a new mail appears", self.start)

    def start(self, guest):
        """One of them."""
        try:
            return f"after {guest.start():.1f} s"
        except Exception:
            guest.running = None
            raise

    def restart(self, farewell, held):
        """Restarts postkey, and sees who comes back."""
        if held != self.world.postkey.holds_sockets:
            self.world.postkey.stop()
            self.leave(self.guests)
            self.world.postkey.hold_sockets() if held else self.world.postkey.release_sockets()
            self.world.postkey.start()
        self.arrive()
        self.world.postkey.restart(farewell, held)
        self.each([guest for guest in self.guests if guest.running], f"restart: {words(farewell, held)}", self.back)

    def back(self, guest):
        """One of them. A program that does not come back begins anew before the next restart."""
        try:
            said = guest.returns(self.whole)
        except Exception:
            self.leave([guest])
            raise
        if not said.startswith("back"):
            self.leave([guest])
        return said

    def leave(self, guests):
        """Ends programs."""
        for guest in guests:
            if guest.running:
                guest.running.stop()
                guest.running = None
                guest.case = guest.case.moved()

    def each(self, guests, what, function):
        """The same for several, at once, each with a line in the table."""
        def one(guest):
            start, where = time.monotonic(), f"{guest.program.stay.protocol.upper()}, {self.security}"
            try:
                said = function(guest)
            except Exception as error:
                self.table.failed(guest.program, where, what, error, time.monotonic() - start)
            else:
                self.table.passed(guest.program, where, what, said)

        threads = [threading.Thread(target=one, args=[guest]) for guest in guests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
