"""Real clients, each with a password and a local port: one short function per client and task.

A function that fetches returns the one message of the mailbox; a function that sends is given a message. How the two are
compared, byte for byte, is in the table at the end.
"""

import email
import imaplib
import itertools
import os
import poplib
import pty
import re
import smtplib
import ssl
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

from message import new_message
from postfix import Relay
from postkey import Account, Listener, Postkey
from process import Failure, Run, wait_until, write_private

RECIPIENT = "bob@example.test"

# A password of every special character. Some programs cannot take all; `postkey settings` refuses it for them.
AWKWARD = "1 a\"b\\c'd#e$HOME %s ^!`;:,= &|<>*?~@[]()/\\x41 {g} ünï "
AWKWARD_IN_ASCII = AWKWARD.replace("ünï", "uni")
AWKWARD_WITHOUT_BLANK = AWKWARD.strip()
AWKWARD_IN_INI = AWKWARD_IN_ASCII.strip()
AWKWARD_WITHOUT_BRACES = AWKWARD_WITHOUT_BLANK.replace("{g}", "g")


@dataclass(frozen=True)
class Case:
    """One client, one listener, one account; `folder` is the client's home."""

    run: Run
    listener: Listener
    account: Account
    folder: Path
    postkey: Postkey

    host = "localhost"  # as users write it; some clients cannot check a certificate for an address

    @property
    def port(self):
        """The local port."""
        return self.listener.port

    @property
    def security(self):
        """The listener's security: none, starttls or tls."""
        return self.listener.security

    @property
    def tls(self):
        """What Python's clients need to trust the certificate."""
        return ssl.create_default_context(cafile=self.run.ca)

    def file(self, name, text):
        """A file in the client's home that nobody else may read."""
        return write_private(self.folder / name, text)

    def settings(self, program):
        """What `postkey settings` shows for a program, which is the first listener of each protocol."""
        return self.postkey.settings(self.account, program)

    def program(self, *command, **options):
        """Runs a client and returns what it prints. Its input is bytes, with LF."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", "TERM": "xterm"}
        done = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, timeout=60, **options)
        if done.returncode != 0:
            printed = (done.stdout[-4000:] + done.stderr[-4000:]).decode("utf-8", "replace")
            raise Failure(f"{command[0]} ends with {done.returncode}:\n{printed}")
        return done.stdout


# curl

def curl(case, path, *options):
    """Runs curl with a configuration file, so that the password is not in its command line."""
    scheme = case.listener.protocol + ("s" if case.security == "tls" else "")
    lines = [f'url = "{scheme}://{case.host}:{case.port}{path}"', f'user = "{case.account.address}:{case.account.password}"',
             f'cacert = "{case.run.ca}"', "silent", "show-error", "verbose", *options]
    if case.security == "starttls":
        lines.append("ssl-reqd")
    return case.program("curl", "--config", case.file("curlrc", "\n".join(lines) + "\n"))


def curl_imap(case):
    return curl(case, "/INBOX;MAILINDEX=1")


def curl_pop3(case):
    return curl(case, "/1")


def curl_append(case, message):
    (case.folder / "message").write_bytes(message.content)
    curl(case, "/INBOX", f'upload-file = "{case.folder}/message"')


def curl_smtp(case, message, login="PLAIN"):
    (case.folder / "message").write_bytes(message.content)
    curl(case, "/client.test", f'login-options = "AUTH={login}"', f'mail-from = "{case.account.address}"',
         f'mail-rcpt = "{RECIPIENT}"', f'upload-file = "{case.folder}/message"')


# msmtp

def msmtp(case, message, login="plain"):
    on_off = {"none": ("off", "off"), "starttls": ("on", "on"), "tls": ("on", "off")}
    tls, starttls = on_off[case.security]
    rc = case.file("msmtprc", f"""account default
host {case.host}
port {case.port}
from {case.account.address}
auth {login}
user {case.account.address}
password {case.account.password}
tls {tls}
tls_starttls {starttls}
tls_trust_file {case.run.ca}
""")
    case.program("msmtp", "-C", rc, "--", RECIPIENT, input=message.lf)


# fetchmail

def fetchmail(case):
    tls = {"none": "sslproto ''", "starttls": "sslproto 'TLS1.2+'", "tls": "ssl"}[case.security]
    verify = "" if case.security == "none" else f"sslcertck sslcertfile '{case.run.ca}'"
    return fetched_by_fetchmail(case, f"""poll {case.host} protocol {case.listener.protocol} port {case.port} auth password
  user '{case.account.address}' password '{case.account.password}' {tls} {verify}
""")


def fetched_by_fetchmail(case, server):
    rc = case.file("fetchmailrc", f"""set no bouncemail
{server}  fetchall norewrite mda "cat >> {case.folder}/fetched"
""")
    case.program("fetchmail", "--fetchmailrc", rc, "--pidfile", case.folder / "pid", "--nodetach", "--nosyslog", "--invisible")
    return (case.folder / "fetched").read_bytes()


# mbsync

def mbsync(case, sync, account):
    """One direction of a synchronization between INBOX and a Maildir, whose folder is returned."""
    maildir = case.folder / "inbox"
    rc = case.file("mbsyncrc", f"""{account}
IMAPStore far
Account account

MaildirStore near
Path {case.folder}/
Inbox {maildir}

Channel channel
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync {sync}
SyncState *
""")
    case.program("mbsync", "-c", rc, "channel")
    return maildir


def mbsync_account(case, login="LOGIN"):
    tls = {"none": "None", "starttls": "STARTTLS", "tls": "IMAPS"}[case.security]
    return f"""IMAPAccount account
Host {case.host}
Port {case.port}
User {case.account.address}
Pass {case.account.password}
AuthMechs {login}
SSLType {tls}
CertificateFile {case.run.ca}
"""


def mbsync_pull(case, login="LOGIN"):
    return content_of(mbsync(case, "Pull", mbsync_account(case, login)))


def content_of(maildir):
    return b"".join(path.read_bytes() for part in ("new", "cur") for path in (maildir / part).iterdir())


def mbsync_push(case, message):
    maildir = case.folder / "inbox"
    for part in ("cur", "new", "tmp"):
        (maildir / part).mkdir(parents=True)
    (maildir / "new" / "message").write_bytes(message.lf)
    mbsync(case, "Push", mbsync_account(case))


# mutt

def mutt_rc(case, *lines):
    tls = {"none": ("no", "no"), "starttls": ("yes", "yes"), "tls": ("yes", "no")}
    force, starttls = tls[case.security]
    common = [f"set ssl_force_tls={force}", f"set ssl_starttls={starttls}", f'set certificate_file="{case.run.ca}"',
              f'set folder="{case.folder}"', "set charset=utf-8", "set send_charset=utf-8", "set copy=no", "set sleep_time=0"]
    return case.file("muttrc", "\n".join([*common, *lines]) + "\n")


def mutt_imap(case):
    scheme = "imaps" if case.security == "tls" else "imap"
    rc = mutt_rc(case, f'set imap_user="{case.account.address}"', f'set imap_pass="{case.account.password}"',
                 "set wait_key=no", "set pipe_decode=no", "set quit=yes",
                 f'push "<pipe-message>cat > {case.folder}/fetched<enter><quit>"')
    in_terminal(case, "mutt", "-F", str(rc), "-f", f"{scheme}://{case.host}:{case.port}/INBOX")
    return (case.folder / "fetched").read_bytes()


def mutt_smtp(case, message):
    scheme = "smtps" if case.security == "tls" else "smtp"
    user = case.account.address.replace("@", "%40")
    rc = mutt_rc(case, f'set smtp_url="{scheme}://{user}@{case.host}:{case.port}/"', f'set smtp_pass="{case.account.password}"',
                 f'set from="{case.account.address}"', "set use_envelope_from=yes")
    case.program("mutt", "-F", rc, "-s", "from mutt", "--", RECIPIENT, input=message.body.replace(b"\r\n", b"\n"))


def in_terminal(case, *command):
    """Runs a full-screen program in a separate terminal until it ends."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    program = case.run.start(f"{case.folder.name}-terminal", command, stdin=theirs, stdout=theirs,
                             env={"PATH": os.environ["PATH"], "HOME": str(case.folder), "LANG": "C.UTF-8", "TERM": "xterm"})
    screen = bytearray()

    def has_ended():
        ended = program.child.poll() is not None
        try:
            screen.extend(os.read(ours, 65536))
        except BlockingIOError:
            pass
        return ended

    try:
        wait_until(has_ended, f"the end of {command[0]}")
    except Failure as failure:
        raise Failure(f"{failure}\n{screen[-3000:].decode('utf-8', 'replace')}") from None
    finally:
        case.run.stop(program)
        os.close(ours)
        os.close(theirs)


# Python

def connect_imap(case):
    """An IMAP connection before the login."""
    if case.security == "tls":
        return imaplib.IMAP4_SSL(case.host, case.port, ssl_context=case.tls, timeout=20)
    imap = imaplib.IMAP4(case.host, case.port, timeout=20)
    if case.security == "starttls":
        imap.starttls(case.tls)
    return imap


def imaplib_fetch(case, authenticate=False):
    imap = connect_imap(case)
    if authenticate:
        plain = f"\0{case.account.address}\0{case.account.password}".encode()
        imap.authenticate("PLAIN", lambda _: plain)
    else:
        imap.login(case.account.address, case.account.password)
    imap.select()
    content = imap.fetch("1", "(BODY[])")[1][0][1]
    imap.logout()
    return content


def imaplib_append(case, message):
    imap = connect_imap(case)
    imap.login(case.account.address, case.account.password)
    imap.append("INBOX", None, None, message.content)
    imap.logout()


def poplib_fetch(case):
    if case.security == "tls":
        pop3 = poplib.POP3_SSL(case.host, case.port, context=case.tls, timeout=20)
    else:
        pop3 = poplib.POP3(case.host, case.port, timeout=20)
    if case.security == "starttls":
        pop3.stls(case.tls)
    pop3.user(case.account.address)
    pop3.pass_(case.account.password)
    lines = pop3.retr(1)[1]
    pop3.quit()
    return b"".join(line + b"\r\n" for line in lines)


def smtplib_send(case, message):
    if case.security == "tls":
        smtp = smtplib.SMTP_SSL(case.host, case.port, context=case.tls, timeout=20)
    else:
        smtp = smtplib.SMTP(case.host, case.port, timeout=20)
    if case.security == "starttls":
        smtp.starttls(context=case.tls)
    smtp.login(case.account.address, case.account.password)
    smtp.sendmail(case.account.address, [RECIPIENT], message.content, mail_options=["BODY=8BITMIME"])
    smtp.quit()


# Postfix

def postfix_relay(case, message):
    deliver(Relay.by(case.run, f"{case.folder.name}/relay", case.listener, case.account), case, message)


def deliver(relay, case, message):
    """Sends the message through this Postfix, and stops it."""
    try:
        relay.send(case.account.address, RECIPIENT, message.content)
        wait_until(lambda: not relay.queue(), "an empty queue")
    except Failure as failure:
        raise Failure(f"{failure}\n{relay.log.read_text()[-3000:]}") from None
    finally:
        relay.stop()


# As `postkey settings` tells people to do it

def settings_curl(case):
    return case.program("curl", "--silent", "--config", case.file("curlrc", case.settings("curl")))


def settings_msmtp(case, message):
    case.program("msmtp", "-C", case.file("msmtprc", case.settings("msmtp")), "--", RECIPIENT, input=message.lf)


def settings_fetchmail(case):
    return fetched_by_fetchmail(case, case.settings("fetchmail").rstrip())


def settings_mbsync(case):
    maildir = case.folder / "Mail" / "ann"
    maildir.mkdir(parents=True)
    case.program("mbsync", "-c", case.file("mbsyncrc", case.settings("mbsync")), "--all")
    return content_of(maildir / "INBOX")


def settings_offlineimap(case):
    (case.folder / "Mail").mkdir()
    case.program("offlineimap", "-o", "-u", "quiet", "-k", "Repository_ann-remote:folderfilter=lambda name: name == 'INBOX'",
                 "-c", case.file("offlineimaprc", case.settings("offlineimap")))
    return content_of(case.folder / "Mail" / "ann" / "INBOX")


def settings_getmail(case):
    # It delivers nothing to a Maildir as root.
    target = f"""[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat > {case.folder}/fetched")
allow_root_commands = true
"""
    settings = re.sub(r"\[destination\].*(?=\n\[options\])", target, case.settings("getmail"), flags=re.DOTALL)
    case.program("getmail", "--all", "--getmaildir", case.folder, "--rcfile", case.file("getmailrc", settings))
    return (case.folder / "fetched").read_bytes()


def settings_mutt(case, message):
    rc = case.file("muttrc", case.settings("mutt") + "set copy=no\nset charset=utf-8\nset send_charset=utf-8\nset use_envelope_from=yes\n")
    case.program("mutt", "-F", rc, "-s", "from mutt", "--", RECIPIENT, input=message.body.replace(b"\r\n", b"\n"))


def settings_s_nail(case, message):
    # For root, s-nail reads only the file of the home that the system knows.
    rc = case.file("mailrc", case.settings("s-nail"))
    case.program("s-nail", "-X", f"source {rc}", "-S", "ttycharset=utf-8", "-s", "from s-nail", RECIPIENT, input=message.body.replace(b"\r\n", b"\n"))


def settings_python(case, message):
    (case.folder / "message").write_bytes(message.content)
    send = f"smtp.sendmail('{case.account.address}', ['{RECIPIENT}'], open('message', 'rb').read(), mail_options=['BODY=8BITMIME'])"
    case.program("python3", case.file("send.py", f"{case.settings('python')}\n{send}\nsmtp.quit()\nimap.logout()\n"))


def settings_postfix(case, message):
    deliver(Relay(case.run, f"{case.folder.name}/relay", case.settings("postfix")), case, message)


# How a message may look after the journey

def unchanged(arrived, message):
    """Not a byte differs."""
    return arrived == message.content


def below_trace(arrived, message):
    """Servers have put trace fields (RFC 5321 section 4.4) above it, and nothing else has changed."""
    trace = arrived.removesuffix(message.content)
    fields = [line for line in trace.split(b"\r\n") if line and not line.startswith((b"\t", b" "))]
    return trace != arrived and all(field.split(b":")[0] in (b"Return-Path", b"Delivered-To", b"Received") for field in fields)


def same_body(arrived, message):
    """The client has written the header itself, and has chosen an encoding."""
    body = email.message_from_bytes(arrived).get_payload(decode=True)
    return body.replace(b"\r\n", b"\n") == message.body.replace(b"\r\n", b"\n")


def but_for_tuid(arrived, message):
    """mbsync adds one field to what it copies, to find it again."""
    lines = arrived.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"X-TUID: ")) == message.content


@dataclass(frozen=True)
class Client:
    """A row of the table. With a `mailbox`, the client sends: "own" is the account's, "recipient" the other one."""

    name: str
    protocol: str
    act: Callable
    compare: Callable = unchanged
    mailbox: str = ""
    securities: tuple = ("none", "starttls", "tls")
    # A chosen app password that it uses instead of the generated one.
    password: str = ""


CLIENTS = [
    Client("curl", "imap", curl_imap),
    Client("curl, APPEND", "imap", curl_append, mailbox="own"),
    Client("curl", "pop3", curl_pop3),
    Client("curl, AUTH PLAIN", "smtp", curl_smtp, below_trace, "recipient"),
    Client("curl, AUTH LOGIN", "smtp", partial(curl_smtp, login="LOGIN"), below_trace, "recipient"),
    Client("msmtp, AUTH PLAIN", "smtp", msmtp, below_trace, "recipient"),
    Client("msmtp, AUTH LOGIN", "smtp", partial(msmtp, login="login"), below_trace, "recipient"),
    Client("fetchmail", "imap", fetchmail),
    Client("fetchmail", "pop3", fetchmail),
    Client("mbsync, LOGIN", "imap", mbsync_pull, but_for_tuid),
    Client("mbsync, AUTHENTICATE PLAIN", "imap", partial(mbsync_pull, login="PLAIN"), but_for_tuid),
    Client("mbsync, APPEND", "imap", mbsync_push, but_for_tuid, "own"),
    Client("mutt", "imap", mutt_imap),
    Client("mutt", "smtp", mutt_smtp, same_body, "recipient"),
    Client("imaplib, LOGIN", "imap", imaplib_fetch),
    Client("imaplib, AUTHENTICATE PLAIN", "imap", partial(imaplib_fetch, authenticate=True)),
    Client("imaplib, APPEND", "imap", imaplib_append, mailbox="own"),
    Client("poplib", "pop3", poplib_fetch),
    Client("smtplib", "smtp", smtplib_send, below_trace, "recipient"),
    Client("Postfix with a relayhost", "smtp", postfix_relay, below_trace, "recipient"),
    Client("curl, by its settings", "imap", settings_curl, securities=("none",), password=AWKWARD),
    Client("msmtp, by its settings", "smtp", settings_msmtp, below_trace, "recipient", ("none",), AWKWARD),
    Client("fetchmail, by its settings", "imap", settings_fetchmail, securities=("none",), password=AWKWARD),
    Client("mbsync, by its settings", "imap", settings_mbsync, but_for_tuid, securities=("none",), password=AWKWARD),
    Client("OfflineIMAP, by its settings", "imap", settings_offlineimap, securities=("none",), password=AWKWARD_WITHOUT_BLANK),
    Client("mutt, by its settings", "smtp", settings_mutt, same_body, "recipient", ("none",), AWKWARD),
    Client("s-nail, by its settings", "smtp", settings_s_nail, same_body, "recipient", ("none",), AWKWARD),
    Client("Python, by its settings", "smtp", settings_python, below_trace, "recipient", ("none",), AWKWARD_IN_ASCII),
    Client("getmail, by its settings", "imap", settings_getmail, same_body, securities=("none",), password=AWKWARD_IN_INI),
    Client("Postfix, by its settings", "smtp", settings_postfix, below_trace, "recipient", ("none",), AWKWARD_WITHOUT_BRACES),
]


def client_test(world, client, listener, account, folder):
    """One message from the mailbox to the client, or from the client to a mailbox."""
    if client.password:
        account = world.with_password(account, client.password)
    case = Case(world.run, listener, account, world.run.subfolder(folder), world.postkey)
    message = new_message(account.address, RECIPIENT)
    mailbox = world.dovecot.mailbox(RECIPIENT if client.mailbox == "recipient" else account.address)
    mailbox.clear()
    if client.mailbox:
        client.act(case, message)
        arrived = mailbox.wait_for(message.mark)
    else:
        mailbox.put(message.content)
        arrived = client.act(case).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if not client.compare(arrived, message):
        (case.folder / "expected").write_bytes(message.content)
        (case.folder / "arrived").write_bytes(arrived)
        raise Failure(f"the message has changed on its way: {first_difference(arrived, message.content)}")


def first_difference(arrived, expected):
    """The first lines that differ, counted from the top."""
    pairs = itertools.zip_longest(arrived.splitlines(), expected.splitlines())
    return next((f"line {n}: {a!r} for {e!r}" for n, (a, e) in enumerate(pairs, 1) if a != e), "line ends only")
