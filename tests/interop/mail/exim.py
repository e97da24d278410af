"""Exim, from Debian 13: as the provider's submission server, and as a client with a queue."""

import os
import re

import debian13
from process import Failure, free_port

COMMON = """
primary_hostname = {name}.test
log_file_path = {folder}/log/%slog
keep_environment =
add_environment =
never_users =
smtp_accept_max = 200
message_size_limit = 50M
local_from_check = false
untrusted_set_sender = *
"""

SERVER = """
daemon_smtp_ports = {tls} : {starttls}
local_interfaces = 127.0.0.1
tls_on_connect_ports = {tls}
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
chunking_advertise_hosts = *
pipelining_connect_advertise_hosts =
acl_smtp_rcpt = rcpt
acl_smtp_data = accept

begin acl
rcpt:
  accept authenticated = *
  deny

begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = sink

begin transports
sink:
  driver = smtp
  port = {sink}
  allow_localhost
  hosts_avoid_tls = *

begin retry
* * F,1h,1s

begin authenticators
xoauth2:
  driver = dovecot
  public_name = XOAUTH2
  server_socket = {auth}
  server_set_id = $auth1
oauthbearer:
  driver = dovecot
  public_name = OAUTHBEARER
  server_socket = {auth}
  server_set_id = $auth1
"""

CLIENT = """
queue_only = true

begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = postkey

begin transports
postkey:
  driver = smtp
  port = {port}
  allow_localhost
  hosts_require_auth = *
  hosts_try_chunking = {chunking}
  connection_max_messages = {per_connection}
{tls}

begin retry
* * F,1h,1s

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^{address}^{password}
"""

CLIENT_TLS = {
    "none": "  hosts_avoid_tls = *",
    "starttls": "  hosts_require_tls = *\n  tls_try_verify_hosts = :",
    "tls": "  protocol = smtps\n  hosts_require_tls = *\n  tls_try_verify_hosts = :",
}

# What a server logs of clients that are not polite, and what goes wrong with itself.
TROUBLE = re.compile(r"TLS error|TLS session|unexpected disconnection|lost|protocol (synchronization )?error|panic|SMTP syntax error|dropped")


def exim_ids():
    """Returns the user and the group of Exim in Debian 13."""
    for line in (debian13.ROOT / "etc/passwd").read_text().splitlines():
        name, _, user, group, *_ = line.split(":")
        if name == "Debian-exim":
            return int(user), int(group)
    raise Failure("Debian 13 has no user Debian-exim")


class Exim:
    """One Exim with a separate configuration, queue and log."""

    def __init__(self, run, name, configuration):
        self.run, self.name, self.folder = run, name, run.subfolder(name)
        for part in ("spool", "log"):
            (self.folder / part).mkdir()
            os.chown(self.folder / part, *exim_ids())
        path = self.folder / "exim4.conf"
        path.write_text(COMMON.format(name=name, folder=self.folder) + configuration)
        os.chown(path, 0, exim_ids()[1])
        path.chmod(0o640)
        self.log = self.folder / "log/mainlog"
        self.binds = [(path, "/etc/exim4/exim4.conf"), (self.folder / "spool", "/var/spool/exim4")]

    def command(self, *arguments, **options):
        """Runs Exim to its end."""
        done = debian13.execute(self.run, ["exim4", *arguments], self.binds, timeout=120, **options)
        if done.returncode != 0:
            raise Failure(f"exim4 {arguments}: {done.returncode} {done.stdout.decode()} {done.stderr.decode()}")
        return done.stdout.decode()

    def lines(self, offset=0):
        """The lines of its log."""
        return self.log.read_bytes()[offset:].decode("utf-8", "replace").splitlines() if self.log.exists() else []


class Submission(Exim):
    """The provider's SMTP server, whose SASL is Dovecot's."""

    def __init__(self, run, name, auth, sink):
        self.ports = {("smtp", security): free_port() for security in ("tls", "starttls")}
        ports = {security: port for (_, security), port in self.ports.items()}
        super().__init__(run, name, SERVER.format(certificate=run.certificate, key=self._readable_key(run), auth=auth, sink=sink.port,
                                                  **ports))
        self.start()

    @staticmethod
    def _readable_key(run):
        run.key.chmod(0o644)  # Exim reads it as its own user, and it is only a test's key
        return run.key

    def start(self):
        """Starts it."""
        command = debian13.command(self.run, ["exim4", "-bdf", "-q5s"], self.binds)
        self.process = self.run.start(self.name, command)
        self.process.wait_for_ports(*self.ports.values())

    def restart(self):
        """Ends the daemon and starts it again. Its connections and deliveries continue."""
        self.process.child.terminate()
        self.process.child.wait(10)
        self.start()

    def troubles(self, offset):
        """Returns the lines of its log after this offset that report trouble."""
        return [line for line in self.lines(offset) if TROUBLE.search(line)]


class Client(Exim):
    """Sends its queue through a listener of postkey's."""

    def __init__(self, run, name, listener, account, chunking, per_connection=1):
        super().__init__(run, name, CLIENT.format(port=listener.port, address=account.address, password=account.password,
                                                  chunking="*" if chunking else ":", per_connection=per_connection,
                                                  tls=CLIENT_TLS[listener.security]))
        self._sender = account.address

    @classmethod
    def as_printed(cls, run, name, settings, account):
        """The same with the settings that postkey prints."""
        client = cls.__new__(cls)
        Exim.__init__(client, run, name, f"queue_only = true\n{settings}\nbegin retry\n* * F,1h,1s\n")
        client._sender = account.address
        return client

    def put(self, marks):
        """Queues a mail with each of these marks."""
        mails = "".join(f"MAIL FROM:<{self._sender}>\r\nRCPT TO:<somebody@sink.test>\r\nDATA\r\nSubject: {mark}\r\n\r\n"
                        + "A line of this mail.\r\n" * 50 + ".\r\n" for mark in marks)
        self.command("-odq", "-bS", input=f"HELO test\r\n{mails}QUIT\r\n".encode())

    def flush(self):
        """Tries to send everything in the queue once."""
        self.command("-qff")

    def begin_flush(self):
        """The same, without waiting for the end."""
        return self.run.start(f"{self.name}-queue", debian13.command(self.run, ["exim4", "-qff"], self.binds))

    def is_empty(self):
        """Whether the queue is empty."""
        return self.command("-bpc").strip() == "0"

    def deferrals(self):
        """The log's lines about mails that were not sent at the first attempt."""
        return [line for line in self.lines() if " == " in line or " ** " in line]
