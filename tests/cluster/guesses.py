"""Guesses of passwords: three replicas together answer hardly more of them than one replica alone."""

import imaplib
import itertools
import re
import threading
import time

from process import free_port, write_private
from stories import answer, expect, new_account, wait_for_login
from postkey import Postkey

SECONDS = 20
GUESSERS = 4  # connections at each replica: one whose guess is checked, and others that wait for their turn

NUMBERS = itertools.count()


class Guessing:
    """One source that guesses the password of an account at some ports, as fast as it is allowed to, and never the same one twice."""

    def __init__(self, ports, address, seconds=SECONDS):
        self.judged, self.put_off = 0, 0
        self._address, self._until, self._lock = address, time.monotonic() + seconds, threading.Lock()
        self._threads = [threading.Thread(target=self._guess, args=(port,), daemon=True) for port in ports for _ in range(GUESSERS)]
        for thread in self._threads:
            thread.start()

    def _guess(self, port):
        while time.monotonic() < self._until:
            try:
                words = self._answer(port)
            except (imaplib.IMAP4.abort, OSError):
                continue  # the connection has had all its tries, or the time is up
            with self._lock:
                self.judged += "AUTHENTICATIONFAILED" in words
                self.put_off += "AUTHENTICATIONFAILED" not in words
            time.sleep(0.05)

    def _answer(self, port):
        imap = imaplib.IMAP4("127.0.0.1", port, timeout=max(0.1, self._until - time.monotonic()))
        try:
            imap.login(self._address, f"guess {next(NUMBERS)}")
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            return str(error)
        finally:
            imap.shutdown()
        raise AssertionError("a guess was right")

    def wait(self):
        """Returns when the time is up, with the number of guesses that were judged."""
        for thread in self._threads:
            thread.join()
        return self.judged


def lone_replica(world):
    """A replica with a database of its own, so that it shares its limits with nobody."""
    world.database.create("lone")
    first = world.replicas[0]
    ports = {port: free_port() for port in [first.metrics_port, first.browser_port, *first.ports.values(), *first.balanced.values()]}

    def configuration(folder):
        text = first.configuration.read_text().replace(str(first.folder), str(folder))
        text = re.sub(r'postgresql = ".*"', f'postgresql = "{world.url(world.database.port, "lone")}"', text)
        for old, new in ports.items():
            text = text.replace(f":{old}", f":{new}")
        write_private(folder / "client-secret", "s\n")
        return text

    lone = Postkey(world.run, first.binary, configuration, listeners=2 * len(first.ports), name="lone")
    lone.start()
    return lone, ports[first.ports["imap"]]


def three_replicas_let_nobody_guess_more_than_twice_as_much_as_one(world):
    account = new_account(world, "guessed")
    for replica in world.replicas:
        wait_for_login(replica, account)
    lone, port = lone_replica(world)
    try:
        # At the same time, so that a busy machine delays both.
        alone = Guessing([port], account.address)
        together = Guessing([replica.ports["imap"] for replica in world.replicas], account.address)
        time.sleep(SECONDS / 2)
        answers = [answer(replica, account) for replica in world.replicas]
        by_one, by_three = alone.wait(), together.wait()
    finally:
        lone.stop()
    print(f"    guesses judged in {SECONDS} s: {by_one} by one replica, {by_three} by three together", flush=True)
    expect(answers == ["ok"] * 3, f"meanwhile the right password is accepted: {answers}")
    expect(by_one / 2 <= by_three <= 2 * by_one, f"three replicas judge as many guesses as one, within a factor of two: {by_three}, {by_one}")


TESTS = [three_replicas_let_nobody_guess_more_than_twice_as_much_as_one]
