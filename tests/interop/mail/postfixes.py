"""Postfix as the provider's submission server, and as a client with a queue."""

import re

import postfix
from process import free_port

# What it logs of clients that are not polite, and what goes wrong with itself.
TROUBLE = re.compile(r"lost connection|timeout after|SSL_accept error|TLS library problem|improper command|fatal:|panic:")


class Submission(postfix.Postfix):
    """Asks Dovecot about tokens, and passes all mail on to the sink."""

    def __init__(self, run, name, auth, sink):
        self.name = name
        self.ports = {("smtp", security): free_port() for security in ("tls", "starttls")}
        main = postfix.SUBMISSION.format(sockets="SOCKETS", certificate=run.certificate, key=run.key)
        main = main.replace("SOCKETS/auth", str(auth)).replace("lmtp:unix:SOCKETS/lmtp", f"smtp:[127.0.0.1]:{sink.port}")
        main = main.replace("example.test, starttls.test", "sink.test")
        super().__init__(run, name, main, postfix.SMTPD.format(**{s: port for (_, s), port in self.ports.items()}))
        self.process.wait_for_ports(*self.ports.values())

    def restart(self):
        """Replaces each of its processes when that has finished its work. A stop would interrupt its own deliveries."""
        self.command("postfix", "reload")

    def troubles(self, offset):
        """Returns the lines of its log after this offset that report trouble."""
        return [line for line in self.log.read_bytes()[offset:].decode("utf-8", "replace").splitlines() if TROUBLE.search(line)]


class Client(postfix.Relay):
    """Sends its queue through a listener of postkey's. As a client it does not support BDAT."""

    def __init__(self, run, name, listener, account):
        client = postfix.CLIENT.format(port=listener.port, address=account.address, password=account.password, ca=run.ca,
                                       tls=postfix.RELAY_TLS[listener.security])
        # The queue is held until all mails are in it.
        super().__init__(run, name, client + "defer_transports = smtp\n")
        self._sender = account.address

    def put(self, marks):
        """Queues a mail with each of these marks."""
        for mark in marks:
            self.send(self._sender, "somebody@sink.test", f"Subject: {mark}\r\n\r\n".encode() + b"A line of this mail.\r\n" * 50)

    def begin_flush(self):
        """Tries to send everything in the queue."""
        main = self.folder / "main.cf"
        main.write_text(main.read_text().replace("defer_transports = smtp\n", ""))
        self.command("postfix", "reload")
        self.flush()

    def is_empty(self):
        """Whether the queue is empty."""
        return not self.queue()

    def deferrals(self):
        """The log's lines about mails that were not sent at the first attempt."""
        return [line for line in self.log.read_text().splitlines()
                if "status=deferred" in line and "deferred transport" not in line or "status=bounced" in line]
