"""Dovecot 2.3 and 2.4, with IMAP, POP3 and their own submission service, which passes all mail on to the sink."""

import os
import re

import debian13
from dovecot_settings import COMMON, INTROSPECTION_2_3, MAIL_UID, VERSION_2_3, login_service
from process import free_port

SUBMISSION = """
protocols = imap pop3 submission
hostname = submission.test
submission_relay_host = 127.0.0.1
submission_relay_port = {sink}
service auth {{
  unix_listener {folder}/auth {{
    mode = 0666
  }}
}}
"""

VERSION_2_4 = """
ssl_server_cert_file = {certificate}
ssl_server_key_file = {key}
passdb oauth2 {{
}}
userdb static {{
  fields {{
    uid = {uid}
    gid = {uid}
    home = {mail}/%{{user}}
  }}
}}
mail_driver = maildir
mail_path = {mail}/%{{user}}
oauth2 {{
  username_attribute = sub
{check}
}}
"""

INTROSPECTION_2_4 = """
  introspection_mode = post
  introspection_url = {introspection}
  active_attribute = active
  active_value = true
"""

LOCAL_2_4 = """
  introspection_mode = local
  oauth2_local_validation {{
    dict fs {{
      fs posix {{
        prefix = {folder}/keys/
      }}
    }}
  }}
"""

# Lines of its log that report an error, or a client that left without a goodbye.
TROUBLE = re.compile(r"Error:|Panic:|Fatal:|SSL_read|SSL_accept|Connection closed|Connection lost|Internal error")


class Dovecot:
    """`ports` maps (protocol, security) to a port; `auth` is the socket where Postfix and Exim ask."""

    def __init__(self, run, name, tokens, sink, limit=1000, jwt=False):
        self._run, self.name = run, name
        self.folder = run.subfolder(name)
        (self.folder / "mail").mkdir()
        os.chown(self.folder / "mail", MAIL_UID, MAIL_UID)
        self.log, self.auth = self.folder / "log", self.folder / "auth"
        self.ports = {(p, s): free_port() for p in ("imap", "pop3", "smtp") for s in ("tls", "starttls")}
        self._configure(tokens, sink, limit, jwt)
        self.start()

    def _configure(self, tokens, sink, limit, jwt):
        values = self._values(tokens, sink, limit)
        self._write("introspection.conf", INTROSPECTION_2_3.format(attribute="sub", **values))
        self._write("dovecot.conf", (COMMON + SUBMISSION + VERSION_2_3).format(**values) + self._services())

    def _values(self, tokens, sink, limit):
        return {"folder": self.folder, "mail": self.folder / "mail", "name": self.name, "sink": sink.port, "uid": MAIL_UID,
                "limit": limit, "certificate": self._run.certificate, "key": self._run.key,
                "introspection": tokens.introspection}

    def _services(self):
        protocols = {"imap": "imap", "pop3": "pop3", "smtp": "submission"}
        return "".join(login_service(service, self.ports[protocol, "starttls"], self.ports[protocol, "tls"])
                       for protocol, service in protocols.items())

    def _write(self, name, text):
        (self.folder / name).write_text(text)

    def _command(self):
        return ["dovecot", "-F", "-c", self.folder / "dovecot.conf"]

    def start(self):
        """Starts it."""
        self.process = self._run.start(self.name, [str(word) for word in self._command()])
        self.process.wait_for_ports(*self.ports.values())

    def stop(self):
        """Ends it, with all its sessions."""
        self._run.stop(self.process)

    def restart(self):
        """Ends it, and starts it again."""
        self.stop()
        self.start()

    def troubles(self, offset):
        """Returns the lines of its log after this offset that report trouble."""
        return [line for line in self.log.read_bytes()[offset:].decode("utf-8", "replace").splitlines() if TROUBLE.search(line)]


class Dovecot24(Dovecot):
    """The one of Debian 13, which can also check tokens as JWTs."""

    def _configure(self, tokens, sink, limit, jwt):
        keys = self.folder / "keys/default/RS256"
        keys.mkdir(parents=True)
        (keys / "default").write_text(tokens.public_key.read_text())
        values = self._values(tokens, sink, limit)
        check = (LOCAL_2_4 if jwt else INTROSPECTION_2_4).format(**values)
        versions = "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
        text = (COMMON + SUBMISSION + VERSION_2_4).format(check=check, **values)
        self._write("dovecot.conf", versions + text + self._services())

    def _command(self):
        return debian13.command(self._run, super()._command())
