"""Postfix twice: as the provider's submission server, and as a client that sends its queue through postkey."""

import json
import shutil
import subprocess

from process import Failure, free_port, wait_until

DAEMONS = "/usr/lib/postfix/sbin"

COMMON = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
import_environment = MAIL_CONFIG={folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
message_size_limit = 50000000
default_process_limit = 100
"""

SUBMISSION = """
myhostname = submission.test
mynetworks =
virtual_mailbox_domains = example.test, starttls.test
virtual_mailbox_maps = static:any
virtual_transport = lmtp:unix:{sockets}/lmtp
# Nothing leaves the machine.
default_transport = error:nowhere else
relay_transport = error:nowhere else

smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sockets}/auth
smtpd_sasl_security_options = noanonymous
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_client_connection_count_limit = 0
"""

RELAY = """
myhostname = relay.test
# The queue is flushed by hand.
minimal_backoff_time = 3600s
maximal_backoff_time = 3600s
"""

CLIENT = """
relayhost = [127.0.0.1]:{port}
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{port} = {address}:{password} }} }}
smtp_sasl_security_options = noanonymous
smtp_tls_CAfile = {ca}
smtp_tls_secure_cert_match = localhost
{tls}
"""

RELAY_TLS = {
    "none": "smtp_tls_security_level = none",
    "starttls": "smtp_tls_security_level = secure",
    "tls": "smtp_tls_security_level = secure\nsmtp_tls_wrappermode = yes",
}

MASTER = """
postlog   unix-dgram n  - n -     1 postlogd
pickup    unix       n  - n 60    1 pickup
cleanup   unix       n  - n -     0 cleanup
qmgr      unix       n  - n 300   1 qmgr
tlsmgr    unix       -  - n 1000? 1 tlsmgr
rewrite   unix       -  - n -     - trivial-rewrite
bounce    unix       -  - n -     0 bounce
defer     unix       -  - n -     0 bounce
trace     unix       -  - n -     0 bounce
proxymap  unix       -  - n -     - proxymap
smtp      unix       -  - n -     - smtp
lmtp      unix       -  - n -     - lmtp
error     unix       -  - n -     - error
retry     unix       -  - n -     - error
showq     unix       n  - n -     - showq
anvil     unix       -  - n -     1 anvil
scache    unix       -  - n -     1 scache
"""

SMTPD = """
127.0.0.1:{starttls} inet n - n - - smtpd
127.0.0.1:{tls}      inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
"""


class Postfix:
    """One Postfix with a separate folder."""

    def __init__(self, run, name, main, master):
        self.run = run
        self.folder = run.subfolder(name)
        for part in ("queue", "data"):
            (self.folder / part).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        common = COMMON.format(folder=self.folder, daemons=DAEMONS)
        (self.folder / "main.cf").write_text(common + main)
        (self.folder / "main.cf").chmod(0o600 if "password_maps" in main else 0o644)
        (self.folder / "master.cf").write_text(MASTER + master)
        self.log = self.folder / "log"
        self.command("postfix", "check")  # makes the queue's folders
        self.process = run.start(name, [f"{DAEMONS}/master", "-c", str(self.folder), "-s"])

    def command(self, program, *arguments, **options):
        """Runs one of Postfix's commands for this instance."""
        flag = "-C" if program == "sendmail" else "-c"
        done = subprocess.run([f"/usr/sbin/{program}", flag, str(self.folder), *arguments],
                              capture_output=True, timeout=30, **options)
        if done.returncode != 0:
            raise Failure(f"{program} {arguments}: {done.stderr.decode()}")
        return done.stdout

    def stop(self):
        """Ends it before the run ends."""
        self.run.stop(self.process)


class Submission(Postfix):
    """The provider's SMTP server: SASL from Dovecot, delivery to Dovecot by LMTP."""

    def __init__(self, run, dovecot):
        self.ports = {("smtp", security): free_port() for security in ("tls", "starttls")}
        main = SUBMISSION.format(sockets=dovecot.sockets, certificate=run.certificate, key=run.key)
        super().__init__(run, "submission", main, SMTPD.format(**{s: port for (_, s), port in self.ports.items()}))
        self.process.wait_for_ports(*self.ports.values())


class Relay(Postfix):
    """A Postfix whose relayhost is postkey. It has one account's app password."""

    def __init__(self, run, name, client):
        super().__init__(run, name, RELAY + client, "")
        wait_until(lambda: (self.folder / "queue/public/pickup").exists(), "the relay's pickup")

    @classmethod
    def by(cls, run, name, listener, account):
        """A relay that logs in at this listener."""
        client = CLIENT.format(port=listener.port, address=account.address, password=account.password, ca=run.ca,
                               tls=RELAY_TLS[listener.security])
        return cls(run, name, client)

    def send(self, sender, recipient, message):
        """Queues a message."""
        self.command("sendmail", "-i", "-f", sender, recipient, input=message.replace(b"\r\n", b"\n"))

    def queue(self):
        """The queue, as Postfix describes it."""
        return [json.loads(line) for line in self.command("postqueue", "-j").splitlines()]

    def flush(self):
        """Tries to send everything in the queue now."""
        self.command("postqueue", "-f")
