"""The table of programs: one line as each test ends, all of it at the end, and the same in target/clients.md."""

import threading
import traceback
from pathlib import Path

from process import Failure

FILE = Path(__file__).parents[2] / "target" / "clients.md"
HEAD = "| program | version | protocol and security | what was done | result |\n|---|---|---|---|---|\n"


def explain(error):
    """What a person needs to know, as lines."""
    known = isinstance(error, Failure)
    lines = str(error).splitlines() if known else "".join(traceback.format_exception(error)).splitlines()
    return [*lines[:10], "...", *lines[-10:]] if len(lines) > 20 else lines


class Table:
    """Filled in by several threads."""

    def __init__(self):
        self._rows, self._failures, self._lock = [], 0, threading.Lock()

    def passed(self, program, where, done, result):
        """Something that went right."""
        self._add(program, where, done, result)

    def failed(self, program, where, done, error, seconds):
        """Something that did not."""
        with self._lock:
            self._failures += 1
        self._add(program, where, done, f"FAILED after {seconds:.1f} s")
        print("\n".join(f"         | {line}" for line in explain(error)), flush=True)

    def _add(self, program, where, done, result):
        with self._lock:
            self._rows.append((program.name, program.version(), where, done, result))
            print(f"  {program.name:22} {where:15} {done:60} {result}", flush=True)

    def finish(self):
        """Writes the table. Returns the exit code."""
        order = sorted(self._rows, key=lambda row: row[0].lower())
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(HEAD + "".join(f"| {' | '.join(row)} |\n" for row in order))
        print(f"\n{len(self._rows) - self._failures} passed, {self._failures} failed; the table is in {FILE}")
        return 1 if self._failures or not self._rows else 0
