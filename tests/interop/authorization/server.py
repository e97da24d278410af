"""What the authorization servers have in common: a process on a port, a browser that opens them, and a person's password."""

from pathlib import Path

from browser import Browser

HERE = Path(__file__).parent
PASSWORD = "of a person in a test"


class Server:
    """One authorization server. A subclass has a `name`, a `port` and a `_command`."""

    _environment = None  # as that of the tests

    def start(self):
        """Starts it and waits until it accepts connections."""
        command = [str(word) for word in self._command()]
        self.process = self._run.start(self.name, command, env=self._environment)
        self.process.wait_for_ports(self.port)

    def stop(self):
        """Ends it."""
        self._run.stop(self.process)

    def open(self, url):
        """A new browser that shows this page."""
        browser = Browser(self._run.ca)
        browser.follow(url)
        return browser
