"""Mails from a queue: each of them arrives once, whatever is between."""

import itertools
import re
import secrets
import time

import exim
import postfixes
from process import Failure, wait_until

# How a client says that it does not know what became of a mail.
CUT = re.compile(r"end of data|end of message|lost connection|closed connection")

PROVIDERS = ["dovecot23", "dovecot24", "postfix", "exim", "smtpserver"]

# A client's name, what makes it, and whether it sends by BDAT.
CLIENTS = [("Exim, DATA", exim.Client, {"chunking": False}), ("Exim, BDAT", exim.Client, {"chunking": True}),
           ("Postfix, DATA", postfixes.Client, {})]


class Mails:
    """The tests: name, function, arguments."""

    def __init__(self, world):
        self.world, self._numbers = world, itertools.count(1)

    def tests(self):
        """Every client through every listener to every server; and restarts in between."""
        few = 25 if self.world.whole else 4
        for provider, security, (client, make, options) in itertools.product(PROVIDERS, ("none", "starttls", "tls"), CLIENTS):
            way = "" if security != "starttls" else "-starttls"
            yield f"{client}, {security}, {provider}{way}", self.arrive_once, make, options, security, provider + way, few
        yield "Exim, as postkey prints its settings, postfix", self.arrive_once, self._exim_as_printed, {}, "none", "postfix", few
        if not self.world.whole:
            return
        for provider, (client, make, options) in itertools.product(("dovecot23", "dovecot24", "postfix", "exim"), CLIENTS):
            for what in ("postkey", "server"):
                yield (f"{client}, none, {provider}, restart of {what}", self.arrive_once, make, options, "none", provider, 100,
                       self._restart_postkey if what == "postkey" else self.world.servers[provider].restart)

    def _exim_as_printed(self, run, name, _, account):
        return exim.Client.as_printed(run, name, self.world.postkey.settings(account, "exim"), account)

    def _restart_postkey(self):
        self.world.postkey.stop()
        self.world.postkey.start()

    def arrive_once(self, make, options, security, provider, count, restarted=None):
        """Sends this many mails. Each has to arrive at the sink once, and no log may complain."""
        world = self.world
        server, account = world.servers[provider], world.account(provider)
        client = make(world.run, f"client{next(self._numbers)}", world.listener("smtp", security), account, **options)
        offset = server.log.stat().st_size if server.log.exists() else 0
        marks = [secrets.token_hex(8) for _ in range(count)]
        client.put(marks)
        flush = client.begin_flush()
        if restarted:
            wait_until(lambda: sum(world.sink.arrived[mark] for mark in marks) >= count // 5, "the first mails", 60)
            restarted()
        self._await_empty(client, flush, 120 if restarted else 60)
        # Mails that a server has queued itself.
        wait_until(lambda: all(world.sink.arrived[mark] for mark in marks), "all mails", 30)
        counts = [world.sink.arrived[mark] for mark in marks]
        # Dovecot's submission has no queue: if it ends between the sink's acceptance and its own, nobody can know the result,
        # with or without postkey, and the client reports that.
        is_cut = restarted == getattr(server, "restart", None) and provider.startswith("dovecot")
        cut = [line for line in client.deferrals() if CUT.search(line)] if is_cut else []
        if sum(counts) > count + len(cut):
            raise Failure(f"of {count} mails {sum(counts)} arrived; the client's deferrals:\n" + "\n".join(client.deferrals()[:5]))
        if not restarted:
            complaints = client.deferrals() + server.troubles(offset)
            if complaints:
                raise Failure("each arrived once, but:\n" + "\n".join(complaints[:8]))
        if hasattr(client, "stop"):
            client.stop()

    @staticmethod
    def _await_empty(client, flush, seconds):
        deadline = time.monotonic() + seconds
        while not client.is_empty():
            if time.monotonic() > deadline:
                raise Failure("the queue does not get empty:\n" + "\n".join(client.deferrals()[-5:]))
            time.sleep(0.3)
            if flush is None or flush.child.poll() is not None:
                client.flush()
