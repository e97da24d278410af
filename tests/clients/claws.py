"""Claws Mail, on a screen that nobody sees. A person types the password; the rest is in the files that its windows write."""

import re
import subprocess

from case import version
from process import Failure, wait_until
from program import Fetch, Program, Send

SECURITY = {"no TLS": 0, '"Use TLS"': 1, '"Use STARTTLS command"': 2}
PROTOCOLS = {"pop3": 0, "imap": 1}

FOLDERS = """<?xml version="1.0" encoding="UTF-8"?>
<folderlist>
<folder type="mh" name="Mailbox" path="Mail">
<folderitem type="inbox" name="inbox" path="inbox"/>
<folderitem type="outbox" name="sent" path="sent"/>
<folderitem type="draft" name="draft" path="draft"/>
<folderitem type="queue" name="queue" path="queue"/>
<folderitem type="trash" name="trash" path="trash"/>
</folder>
<folder type="imap" name="postkey" account_id="1"><folderitem type="inbox" name="INBOX" path="INBOX"/></folder>
</folderlist>
"""

# Windows that show progress only.
PROGRESS = {"", "Sending message", "Retrieving new messages"}

# What the composer puts before a message in the folder "queue".
QUEUED = "S:{address}\nSSV:{host}\nR:<{address}>\nMAID:1\nX-Claws-End-Special-Headers: 1\n"


class Screen:
    """An X server without a screen, and a person before it."""

    def __init__(self, case):
        # Without -noreset it starts over whenever its last client leaves, which xdotool often is.
        name = f"{case.folder.parent.name}-{case.folder.name}-xvfb"
        self.process = case.world.run.start(name, ["Xvfb", "-displayfd", "1", "-noreset", "-nolisten", "tcp"])
        number = wait_until(lambda: re.search(rb"^(\d+)\n", self.process.log.read_bytes(), re.MULTILINE), "Xvfb", 60)[1]
        self.display = f":{number.decode()}"

    def xdotool(self, *arguments):
        """What the tool prints. It fails if there is nothing to find, or if a window closes while it looks."""
        env = {"PATH": "/usr/bin:/bin", "DISPLAY": self.display}
        return subprocess.run(["xdotool", *arguments], env=env, capture_output=True, text=True).stdout

    def titles(self):
        """The windows by their titles."""
        found = self.xdotool("search", "--onlyvisible", "--name", ".").split()
        return {self.xdotool("getwindowname", window).strip(): window for window in found}

    def type(self, title, text):
        """Types a line in a window."""
        self.xdotool("windowfocus", "--sync", self.titles()[title], "type", "--delay", "5", text)
        self.xdotool("key", "Return")


class Claws:
    """A Claws Mail with one account."""

    def __init__(self, case, protocol):
        self.case, self.screen = case, Screen(case)
        for folder in ("inbox", "sent", "draft", "queue", "trash"):
            case.make(case.folder / "Mail" / folder)
        case.file(".claws-mail/accountrc", account(case, protocol))
        case.file(".claws-mail/folderlist.xml", FOLDERS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.screen.process.stop()

    @property
    def env(self):
        return {"DISPLAY": self.screen.display}

    def start(self, *command):
        """Starts it with a command, and types the password when it asks."""
        self.process = self.case.start("claws", "claws-mail", "--debug", *command, env=self.env)
        wait_until(lambda: "Input password" in self.screen.titles(), "it asks for the password", 90)
        self.screen.type("Input password", self.case.account.password)
        wait_until(lambda: "Input password" not in self.screen.titles(), "it takes the password", 10)

    def until(self, condition, what):
        """Waits for something; fails if another window opens, because it wants to tell something."""
        def ended():
            other = [title for title in self.screen.titles() if title not in PROGRESS and " - Claws Mail " not in title]
            if other:
                raise Failure(f"it opens {other}")
            return condition()

        return wait_until(ended, what, 90)


def account(case, protocol):
    """What its dialogue for accounts stores when a person enters what `postkey settings` says."""
    shown = case.settings("claws-mail")
    server, smtp, user = re.search(r'"Basic" .* server (\S+), SMTP server (\S+), user ID (\S+),', shown).groups()
    receive, send = re.search(r'"SSL/TLS" +receive: (.+); send: (.+)\n', shown).groups()
    smtp_port, imap_port = re.search(r'"Advanced" +SMTP port (\d+), IMAP port (\d+)\n', shown).groups()
    port = imap_port if protocol == "imap" else case.port(protocol)
    accepts = "Automatically accept valid TLS certificates" in shown
    name = "imap" if protocol == "imap" else "pop"
    return f"""[Account: 1]
account_name=postkey
is_default=1
name=Ann
address={case.account.address}
protocol={PROTOCOLS[protocol]}
receive_server={server}
smtp_server={smtp}
user_id={user}
use_smtp_auth=1
smtp_user_id={user}
inbox=#mh/Mailbox/inbox
receive_at_get_all=1
ssl_{name}={SECURITY[receive]}
ssl_smtp={SECURITY[send]}
set_smtpport=1
smtp_port={smtp_port}
ssl_certs_auto_accept={int(accepts)}
set_{name}port=1
{name}_port={port}
config_version=4
"""


def whole(case, pattern):
    """A message in a file of the home, once its last line is there."""
    contents = [path.read_bytes() for path in case.folder.glob(pattern)]
    return next((content for content in contents if content.endswith(b"the end\n")), None)


def fetch_imap(case):
    with Claws(case, "imap") as claws:
        claws.start("--receive-all")

        def shown():
            case.run("claws-mail", "--select", "#imap/postkey/INBOX/1", env=claws.env)
            return whole(case, ".claws-mail/imapcache/*/*/INBOX/1")

        return claws.until(shown, "the message in its cache")


def fetch_pop3(case):
    with Claws(case, "pop3") as claws:
        claws.start("--receive-all")
        return claws.until(lambda: whole(case, "Mail/inbox/1"), "the message in its inbox")


def send(case, message):
    with Claws(case, "imap") as claws:
        queued = case.file("Mail/queue/1", QUEUED.format(address=case.account.address, host=case.host))
        with open(queued, "ab") as sink:
            sink.write(message.lf)
        claws.start("--send")
        claws.until(lambda: not queued.exists(), "the end of the queue")


PROGRAMS = [
    Program("Claws Mail", lambda: version("claws-mail"), [Fetch("imap", fetch_imap), Fetch("pop3", fetch_pop3), Send("smtp", send)],
            briefly=("imap",)),
]
