"""Libraries, each by a short script in `scripts`, with the block of `postkey settings` where there is one."""

import importlib.metadata
import json
from dataclasses import replace

from case import HERE, INSTALLED, SCRIPTS, TARGET, version
from clients import same_body, unchanged
from program import Fetch, Program, Send, Stay
from process import wait_until


class Lines:
    """A script that stays, and prints what arrives."""

    def __init__(self, process):
        self.process = process
        wait_until(lambda: b"ready" in self._printed() or process.child.poll() is not None, f"{process.name} is ready", 60)

    def _printed(self):
        return self.process.log.read_bytes()

    def sees(self, mark):
        """Whether it has shown a message with this mark."""
        return mark in self._printed()

    def ended(self):
        """Whether the script has noticed that its connection has ended."""
        return self.process.child.poll() is not None

    def stop(self):
        """Ends it."""
        self.process.stop()


# Python

PYTHON = {"PYTHONPATH": str(INSTALLED / "python")}


def imapclient(case, action, file="fetched"):
    case.run("/usr/bin/python3", SCRIPTS / "with_imapclient.py", action, case.folder / file, env=PYTHON | case.details("imap"))


def imapclient_fetch(case):
    imapclient(case, "fetch")
    return case.got()


def imapclient_append(case, message):
    imapclient(case, "append", case.put(message))


def imapclient_stay(case):
    return Lines(case.start("imapclient", "/usr/bin/python3", SCRIPTS / "with_imapclient.py", "stay", "-",
                            env=PYTHON | case.details("imap")))


def imapclient_version():
    found = importlib.metadata.distributions(name="IMAPClient", path=[str(TARGET / "python")])
    return next(iter(found)).version


def python_script(case, lines):
    case.run("/usr/bin/python3", case.file("program.py", "\n".join([case.settings("python"), *lines]) + "\n"))


def imaplib_fetch(case):
    python_script(case, ["imap.select()", "content = imap.fetch('1', '(BODY[])')[1][0][1]", "open('fetched', 'wb').write(content)",
                         "imap.logout()", "smtp.quit()"])
    return case.got()


def smtplib_send(case, message):
    case.put(message)
    to = case.account.address
    python_script(case, [f"smtp.sendmail('{to}', ['{to}'], open('message', 'rb').read(), mail_options=['BODY=8BITMIME'])",
                         "smtp.quit()", "imap.logout()"])


# Node

def node_command(case, action, file):
    script = case.file("program.js", case.settings("node") + "\n" + (HERE / "scripts" / "node.js").read_text())
    return ["node", script, action, case.folder / file]


def node_environment(case):
    return {"NODE_PATH": str(INSTALLED / "node" / "node_modules"), "NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt",
            "LOGIN": case.account.address}


def node_fetch(case):
    case.run(*node_command(case, "fetch", "fetched"), env=node_environment(case))
    return case.got()


def node_append(case, message):
    case.run(*node_command(case, "append", case.put(message)), env=node_environment(case))


def node_send(case, message):
    case.run(*node_command(case, "send", case.put(message)), env=node_environment(case))


def node_stay(case):
    return Lines(case.start("node", *node_command(case, "stay", "-"), env=node_environment(case)))


def node_version():
    def of(name):
        return json.loads((TARGET / "node" / "node_modules" / name / "package.json").read_text())["version"]

    return f"{of('imapflow')}, {of('nodemailer')}"


# Java

JARS = ":".join(f"/usr/share/java/{name}.jar" for name in ("jakarta-mail", "jakarta-activation"))


def java_command(case, action, file):
    block = case.settings("java").replace("\n", "\n        ")
    script = case.file("Program.java", (HERE / "scripts" / "Program.java").read_text().replace("//SETTINGS", block))
    return ["java", "-cp", JARS, script, action, case.folder / file]


def java_fetch(case):
    case.run(*java_command(case, "fetch", "fetched"))
    return case.got()


def java_append(case, message):
    case.run(*java_command(case, "append", case.put(message)))


def java_send(case, message):
    case.run(*java_command(case, "send", case.put(message)), env={"LOGIN": case.account.address})


def java_stay(case):
    return Lines(case.start("java", *java_command(case, "stay", "-")))


# PHP

def php_send(case, message):
    case.put(message).write_bytes(message.body)
    loaders = "".join(f"require '/usr/share/php/libphp-phpmailer/src/{name}.php';\n" for name in ("Exception", "PHPMailer", "SMTP"))
    script = case.file("program.php", f"<?php\n{loaders}{case.settings('php')}\n{(HERE / 'scripts' / 'phpmailer.php').read_text()}")
    case.run("php", script, case.folder / "message", env={"LOGIN": case.account.address})


def same_body_and_a_line(arrived, message):
    """PHPMailer adds an empty line."""
    return same_body(arrived, replace(message, body=message.body + b"\r\n"))


# Perl

def perl(case, script, protocol, action, file):
    case.run("perl", SCRIPTS / script, action, case.folder / file, env=case.details(protocol))


def perl_fetch(script, protocol):
    def fetch(case):
        perl(case, script, protocol, "fetch", "fetched")
        return case.got()

    return fetch


def perl_send(script, protocol, action):
    def send(case, message):
        perl(case, script, protocol, action, case.put(message))

    return send


def perl_stay(case):
    return Lines(case.start("perl", "perl", SCRIPTS / "mail-imapclient.pl", "stay", "-", env=case.details("imap")))


def version_of_perl():
    return version("perl-base")


# Emacs

def emacs_send(case, message):
    settings = case.settings("emacs")
    logins = [line.removeprefix(";; ") for line in settings.splitlines() if line.startswith(";; machine")]
    case.make(case.folder / ".emacs.d")  # where it notes certificates
    case.file(".authinfo", "\n".join(logins) + "\n")
    script = case.file("program.el", settings + "\n" + (HERE / "scripts" / "smtpmail.el").read_text())
    case.run("emacs", "--batch", "--quick", "--load", "smtpmail", "--load", script, env={"FILE": str(case.put(message))})


PROGRAMS = [
    Program("imapclient", imapclient_version,
            [Fetch("imap", imapclient_fetch), Send("imap", imapclient_append, unchanged)],
            Stay("imap", imapclient_stay, "the application")),
    Program("imaplib, smtplib", lambda: version("python3.11"),
            [Fetch("imap", imaplib_fetch), Send("smtp", smtplib_send)]),
    Program("imapflow, nodemailer", node_version,
            [Fetch("imap", node_fetch), Send("imap", node_append, unchanged), Send("smtp", node_send)],
            Stay("imap", node_stay, "the application")),
    Program("Jakarta Mail", lambda: version("libjakarta-mail-java"),
            [Fetch("imap", java_fetch), Send("imap", java_append, unchanged), Send("smtp", java_send)],
            Stay("imap", java_stay, "the application")),
    Program("PHPMailer", lambda: version("libphp-phpmailer"), [Send("smtp", php_send, same_body_and_a_line)]),
    Program("Net::IMAP::Simple", lambda: version("libnet-imap-simple-perl"),
            [Fetch("imap", perl_fetch("net-imap-simple.pl", "imap")),
             Send("imap", perl_send("net-imap-simple.pl", "imap", "append"), unchanged)],
            securities=("none", "tls"), remarks={"starttls": "asks for SSLv3, which Debian's OpenSSL does not have"}),
    Program("Mail::IMAPClient", lambda: version("libmail-imapclient-perl"),
            [Fetch("imap", perl_fetch("mail-imapclient.pl", "imap")),
             Send("imap", perl_send("mail-imapclient.pl", "imap", "append"), unchanged)],
            Stay("imap", perl_stay, "the application")),
    Program("Net::POP3, Net::SMTP", version_of_perl,
            [Fetch("pop3", perl_fetch("net-pop3.pl", "pop3")), Send("smtp", perl_send("net-smtp.pl", "smtp", "send"))]),
    Program("Emacs smtpmail", lambda: version("emacs-nox"), [Send("smtp", emacs_send, same_body)]),
]
