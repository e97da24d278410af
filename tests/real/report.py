"""What a suite prints of its tests, and which of them have failed."""

import time
import traceback

from process import Failure


class Report:
    """Runs tests, one line each, and remembers which have failed."""

    def __init__(self, only, daemon=None, known=(Failure,)):
        """Runs the tests whose name holds `only`. What the `daemon` has logged explains a failure. `known` errors need no traceback."""
        self._only, self._daemon, self._known = only, daemon, known
        self.passed, self.failed = 0, []

    @staticmethod
    def section(title):
        """What the next tests are about."""
        print(f"\n{title}", flush=True)

    def test(self, name, function, *arguments, always=False):
        """Runs one test. Whatever it raises makes it fail, and only it."""
        if self._only not in name and not always:
            return
        start, log_size = time.monotonic(), self._daemon.log_size() if self._daemon else 0
        try:
            function(*arguments)
        except Exception as error:
            self.failed.append(name)
            self._line("FAILED", start, name)
            self._explain(error, log_size)
        else:
            self.passed += 1
            self._line("ok", start, name)

    @staticmethod
    def _line(outcome, start, name):
        print(f"  {outcome:6} {time.monotonic() - start:5.1f} s  {name}", flush=True)

    def _explain(self, error, log_size):
        text = str(error) if isinstance(error, self._known) else "".join(traceback.format_exception(error))
        if self._daemon:
            text += "\nThe daemon's last lines:\n" + "\n".join(self._daemon.log_after(log_size)[-20:])
        print("\n".join(f"         | {line}" for line in text.splitlines()), flush=True)

    def summary(self):
        """The last words. Returns the exit code."""
        print(f"\n{self.passed} passed, {len(self.failed)} failed")
        return 1 if self.failed or not self.passed else 0


def name_of(test):
    """A test's name as words."""
    return test.__name__.replace("_", " ")
