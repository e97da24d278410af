"""A client of Marionette, with which a test drives a program of Mozilla's: JSON with its length before it."""

import itertools
import json
import socket

from process import Failure, wait_until


class Marionette:
    """One session, whose scripts have all rights of the program."""

    def __init__(self, port, seconds=90):
        self._socket = wait_until(lambda: connected(port), f"Marionette on port {port}", seconds)
        self._socket.settimeout(seconds + 10)
        self._file = self._socket.makefile("rb")
        self._numbers = itertools.count(1)
        self._received()  # its greeting
        self.command("WebDriver:NewSession", {"timeouts": {"script": seconds * 1000}})
        self.command("Marionette:SetContext", {"value": "chrome"})

    def command(self, name, parameters):
        """Returns the result of a command."""
        text = json.dumps([0, next(self._numbers), name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(text), text))
        _, _, error, result = self._received()
        if error:
            raise Failure(f"{name}: {error['message']}")
        return result

    def call(self, script, *arguments):
        """Runs a script and returns the value of its promise."""
        return self.command("WebDriver:ExecuteScript", {"script": script, "args": list(arguments)})["value"]

    def close(self):
        """Ends the connection, and not the program."""
        self._socket.close()

    def _received(self):
        """One message."""
        length = b""
        while not length.endswith(b":"):
            byte = self._file.read(1)
            if not byte:
                raise Failure("Marionette has ended the connection")
            length += byte
        return json.loads(self._file.read(int(length[:-1])))


def connected(port):
    """A connection to a local port, or None if nobody listens."""
    try:
        return socket.create_connection(("127.0.0.1", port), 10)
    except ConnectionRefusedError:
        return None
