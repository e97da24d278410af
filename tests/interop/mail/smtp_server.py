"""npm's smtp-server as the provider's submission server."""

from pathlib import Path

from process import free_port

SCRIPT = Path(__file__).with_name("smtp-server.mjs")


class SmtpServer:
    """Supports XOAUTH2 only, and SMTP only."""

    def __init__(self, run, name, tokens, sink):
        self._run, self.name = run, name
        self.ports = {("smtp", security): free_port() for security in ("tls", "starttls")}
        ports = {security: port for (_, security), port in self.ports.items()}
        self._settings = run.write_json(f"{name}.json", {"certificate": str(run.certificate), "key": str(run.key), "sink": sink.port,
                                                         "introspection": tokens.introspection, **ports})
        self.log = run.folder / f"{name}.log"
        self.start()

    def start(self):
        """Starts it."""
        self.process = self._run.start(self.name, ["node", str(SCRIPT), str(self._settings)])
        self.process.wait_for_ports(*self.ports.values())

    def troubles(self, offset):
        """The lines of its log after this offset."""
        return self.log.read_text()[offset:].splitlines()
