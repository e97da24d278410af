"""What the table of programs is made of."""

from dataclasses import dataclass, field
from typing import Callable

from clients import below_trace, same_body, unchanged
from postkey import SECURITIES

# What "compare" says in the table.
WORDS = {same_body: "the body byte for byte"}


@dataclass(frozen=True)
class Fetch:
    """Brings the one message of the mailbox: `act(case)` returns it."""

    protocol: str
    act: Callable
    compare: Callable = unchanged
    what: str = "in"
    mistypes: bool = True  # whether a wrong password is tried, too; some then ask a person


@dataclass(frozen=True)
class Send:
    """Sends a message to the account itself, or stores it there: `act(case, message)`."""

    protocol: str
    act: Callable
    compare: Callable = below_trace
    what: str = "out"
    mistypes: bool = True


@dataclass(frozen=True)
class Stay:
    """A program that keeps a connection. `start(case)` returns something with `sees(mark)`, `ended()` and `stop()`."""

    protocol: str
    start: Callable
    # Who connects again after a restart: "itself"; "its next check" for new mail, which `check()` does now; "the application" that
    # uses a library, which has to be told; "a person"; or "itself, at times", which no test can insist on.
    reconnects: str = "itself"


@dataclass(frozen=True)
class Program:
    """A row, or several: one for each protocol and security."""

    name: str
    version: Callable
    acts: list
    stay: Stay | None = None
    securities: tuple = SECURITIES
    remarks: dict = field(default_factory=dict)
    briefly: tuple = ("imap", "pop3", "smtp")  # the protocols of the short form

    @property
    def address(self):
        """An account of its own."""
        return f"{''.join(c if c.isalnum() else '-' for c in self.name.lower())}@example.test"

    def protocols(self, whole):
        """Those that it is tested with."""
        return [one for one in dict.fromkeys(act.protocol for act in self.acts) if whole or one in self.briefly]
