"""The destination of all mail: an SMTP server that counts. It is slow, as servers are that inspect a mail before they accept it."""

import collections
import re
import socketserver
import threading
import time

MARK = re.compile(rb"^Subject: (\S+)\r$", re.MULTILINE)


class Sink:
    """Receives mail at `port`; `arrived` counts each subject."""

    def __init__(self, seconds=0.1):
        self.arrived, self.seconds = collections.Counter(), seconds
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            """One connection."""

            def handle(self):
                sink._serve(self.rfile, self.wfile)

        class Server(socketserver.ThreadingTCPServer):
            """Closes without waiting for connected clients."""

            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _serve(self, lines, out):
        out.write(b"220 sink.test ESMTP\r\n")
        try:
            while line := lines.readline():
                self._answer(line.strip().upper(), lines, out)
                if line.upper().startswith(b"QUIT"):
                    return
        except (BrokenPipeError, ConnectionResetError):
            return

    def _answer(self, line, lines, out):
        if line.startswith(b"EHLO"):
            out.write(b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 50000000\r\n250 ENHANCEDSTATUSCODES\r\n")
        elif line == b"DATA":
            out.write(b"354 go\r\n")
            if (mail := self._mail(lines)) is not None:
                time.sleep(self.seconds)
                self.arrived[MARK.search(mail)[1].decode()] += 1
                out.write(b"250 2.0.0 taken\r\n")
        else:
            out.write(b"221 2.0.0 bye\r\n" if line == b"QUIT" else b"250 2.1.0 ok\r\n")

    @staticmethod
    def _mail(lines):
        mail = b""
        while line := lines.readline():
            if line == b".\r\n":
                return mail
            mail += line
        return None
