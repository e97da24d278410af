"""Thunderbird, without a screen. It is set up as its window does it, with what `postkey settings` says in words."""

import json
import re
from base64 import b64encode

from case import HERE, version
from marionette import Marionette
from process import free_port, openssl, wait_until
from program import Fetch, Program, Send, Stay

SECURITY = {"None": 0, "STARTTLS": 2, "SSL/TLS": 3}
NORMAL_PASSWORD = 3

# No name is looked up, and a POP3 inbox has one file for each message.
PREFERENCES = {
    "network.dns.native-is-localhost": True, "mail.provider.suppress_dialog_on_startup": True, "mailnews.start_page.enabled": False,
    "datareporting.policy.dataSubmissionPolicyBypassNotification": True, "app.update.disabledForTesting": True,
    "mail.serverDefaultStoreContractID": "@mozilla.org/msgstore/maildirstore;1", "mail.shell.checkDefaultClient": False,
}


class Thunderbird:
    """A Thunderbird with one account. `protocol` is that of the incoming server."""

    script = (HERE / "scripts" / "thunderbird.js").read_text()

    def __init__(self, case, protocol="imap"):
        self.case, profile, port = case, case.make(case.folder / "profile"), free_port()
        preferences = PREFERENCES | {"marionette.port": port}
        case.file("profile/user.js", "".join(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()))
        self.process = case.start("thunderbird", "thunderbird", "--headless", "--no-remote", "--profile", profile, "-marionette",
                                  "-remote-allow-system-access")
        try:
            self.marionette = Marionette(port)
            wait_until(lambda: self.marionette.call("return !!Services.wm.getMostRecentWindow('mail:3pane')?.msgWindow"), "its window")
            self.do("dismissDialogues")
            if case.security != "none":
                self.do("importAuthority", authority(case))
            self.do("setUp", self.settings(protocol))
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def do(self, name, *arguments):
        """Calls a function of the script."""
        return self.marionette.call(self.script, name, *arguments)

    def settings(self, protocol):
        """What a person would enter, read from the words of `postkey settings`."""
        shown = self.case.settings("thunderbird")
        incoming = re.search(r"incoming server +IMAP, (\S+), port (\d+)\n +connection security +(\S+)\n", shown)
        outgoing = re.search(r"outgoing server +(\S+), port (\d+)\n +connection security +(\S+)\n", shown)
        login = {"username": re.search(r"user name +(.+)\n", shown)[1], "password": re.search(r"password +(\S+)\n", shown)[1],
                 "auth": NORMAL_PASSWORD}
        servers = {name: {"type": kind, "hostname": found[1], "port": int(found[2]), "socketType": SECURITY[found[3]], **login}
                   for name, kind, found in (("incoming", protocol, incoming), ("outgoing", "smtp", outgoing))}
        if protocol == "pop3":
            servers["incoming"]["port"] = self.case.port(protocol)
        return {"address": self.case.account.address, **servers}

    def sees(self, mark):
        """Whether the inbox has a message with this mark."""
        return mark.decode() in self.do("subjects")

    def check(self):
        """Checks for new mail, as it does every ten minutes."""
        self.do("getMessages")

    def stop(self):
        """Ends the program."""
        self.process.stop()


def authority(case):
    """The authority to trust, for the dialogue that imports it."""
    der = case.folder / "authority.der"
    openssl("x509", "-in", case.world.certificates / "ca.pem", "-outform", "DER", "-out", der)
    return b64encode(der.read_bytes()).decode()


def below_its_fields(arrived, message):
    """Thunderbird adds where it keeps a message, and whether it was read."""
    own = (b"X-Mozilla-", b"X-Account-Key:", b"X-UIDL:")
    return b"".join(line for line in arrived.splitlines(keepends=True) if not line.startswith(own)) == message.content


def fetch(protocol):
    def act(case):
        with Thunderbird(case, protocol) as thunderbird:
            thunderbird.do("getMessages")
            thunderbird.do("save", str(case.folder / "fetched"))
        return case.got()

    return act


def send(case, message):
    with Thunderbird(case) as thunderbird:
        thunderbird.do("send", str(case.put(message)), case.account.address)


def stay(case):
    thunderbird = Thunderbird(case)
    thunderbird.do("open")
    return thunderbird


PROGRAMS = [
    Program("Thunderbird", lambda: version("thunderbird"),
            [Fetch("imap", fetch("imap"), below_its_fields), Send("smtp", send, mistypes=False), Fetch("pop3", fetch("pop3"), below_its_fields)],
            Stay("imap", stay, "its next check"), briefly=("imap",)),
]
