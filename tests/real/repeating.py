"""A thread that repeats a step as long as a `with` block lasts."""

import threading


class Repeating(threading.Thread):
    """Calls `step`, which its subclass has, with a pause of so many seconds before each call."""

    def __init__(self, pause):
        super().__init__(daemon=True)
        self._pause, self._end = pause, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join()

    def run(self):
        """The thread's work."""
        while not self._end.wait(self._pause):
            self.step()
