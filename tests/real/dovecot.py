"""Dovecot as the provider's IMAP and POP3 server, which accepts only access tokens."""

import os
import secrets

from dovecot_settings import COMMON, INTROSPECTION_2_3, MAIL_UID, QUICK, VERSION_2_3, login_service
from process import Failure, free_port, wait_until

# A token that does not open the mailbox of its subject may open a shared one.
SHARED = """
protocols = imap pop3 lmtp
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {folder}/shared.conf
}}
passdb {{
  driver = oauth2
  mechanisms = oauthbearer
  args = {folder}/shared.conf
}}
service lmtp {{
  unix_listener {sockets}/lmtp {{
    mode = 0600
    user = postfix
  }}
}}
service auth {{
  unix_listener {sockets}/auth {{
    mode = 0600
    user = postfix
  }}
}}
"""

# One process serves many connections, because fifty logins at once are a test here and no load.
MANY = "service_count = 0"


class Dovecot:
    """`ports` maps (protocol, security) to a port; `sockets` is the folder where Postfix finds auth and lmtp."""

    def __init__(self, run, introspection_url):
        folder = run.subfolder("dovecot")
        self.mail = run.subfolder("mail")
        os.chown(self.mail, MAIL_UID, MAIL_UID)
        self.sockets = run.subfolder("sockets")
        self.ports = {(p, s): free_port() for p in ("imap", "pop3") for s in ("tls", "starttls")}
        for name, attribute in (("introspection", "sub"), ("shared", "shared")):
            text = INTROSPECTION_2_3.format(introspection=introspection_url, attribute=attribute)
            (folder / f"{name}.conf").write_text(text)
        configuration = folder / "dovecot.conf"
        configuration.write_text(self.configuration(run, folder))
        self.log = folder / "log"
        self.process = run.start("dovecot", ["dovecot", "-F", "-c", str(configuration)])
        self.process.wait_for_ports(*self.ports.values())

    def configuration(self, run, folder):
        """The text of dovecot.conf."""
        text = (COMMON + VERSION_2_3 + QUICK + SHARED).format(
            folder=folder, name="postkey-tests", certificate=run.certificate, key=run.key, uid=MAIL_UID, limit=1000,
            mail=self.mail, sockets=self.sockets)
        services = [login_service(protocol, self.ports[protocol, "starttls"], self.ports[protocol, "tls"], MANY)
                    for protocol in ("imap", "pop3")]
        return text + "".join(services)

    def mailbox(self, address):
        """The mailbox of an account."""
        return Mailbox(self.mail / address)


class Mailbox:
    """An INBOX as a Maildir on the disk, without the servers. Messages have CRLF here and LF on disk."""

    def __init__(self, folder):
        self.folder = folder
        for part in (folder, folder / "tmp", folder / "new", folder / "cur"):
            part.mkdir(exist_ok=True)
            os.chown(part, MAIL_UID, MAIL_UID)

    def clear(self):
        """Removes all messages."""
        for path in self._files():
            path.unlink()

    def put(self, message):
        """Delivers a message, exactly as it is."""
        name = secrets.token_hex(8)
        draft = self.folder / "tmp" / name
        draft.write_bytes(message.replace(b"\r\n", b"\n"))
        os.chown(draft, MAIL_UID, MAIL_UID)
        draft.rename(self.folder / "new" / name)

    def wait_for(self, mark, seconds=20.0):
        """Waits for the message that contains these bytes, and returns it. Fails if there is more than one."""
        found = wait_until(lambda: self.find(mark), f"a message in {self.folder.name}", seconds)
        if len(found) != 1:
            raise Failure(f"the message has arrived {len(found)} times in {self.folder.name}")
        return found[0]

    def find(self, mark):
        """Returns all messages that contain these bytes."""
        contents = [path.read_bytes() for path in self._files()]
        return [content.replace(b"\n", b"\r\n") for content in contents if mark in content]

    def _files(self):
        return [path for part in ("new", "cur") for path in (self.folder / part).iterdir()]
