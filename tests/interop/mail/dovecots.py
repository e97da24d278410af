"""Dovecot 2.3 and 2.4, with IMAP, POP3 and a submission service of their own, which hands all mail on to the sink."""

import os
import re

import debian13
from dovecot import MAIL_UID
from process import free_port

COMMON = """
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = {name}
log_path = {folder}/log
auth_verbose = yes
listen = 127.0.0.1
protocols = imap pop3 submission
ssl = required
auth_mechanisms = xoauth2 oauthbearer
first_valid_uid = 1
hostname = submission.test
submission_relay_host = 127.0.0.1
submission_relay_port = {sink}
service imap-login {{
  inet_listener imap {{
    port = {imap_starttls}
  }}
  inet_listener imaps {{
    port = {imap_tls}
    ssl = yes
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3_starttls}
  }}
  inet_listener pop3s {{
    port = {pop3_tls}
    ssl = yes
  }}
}}
service submission-login {{
  inet_listener submission {{
    port = {smtp_starttls}
  }}
  inet_listener submissions {{
    port = {smtp_tls}
    ssl = yes
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {folder}/auth {{
    mode = 0666
  }}
}}
"""

VERSION_2_3 = """
ssl_cert = <{certificate}
ssl_key = <{key}
passdb {{
  driver = oauth2
  mechanisms = xoauth2
  args = {folder}/introspection.conf
}}
passdb {{
  driver = oauth2
  mechanisms = oauthbearer
  args = {folder}/introspection.conf
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={folder}/mail/%u allow_all_users=yes
}}
mail_location = maildir:{folder}/mail/%u
mail_max_userip_connections = {limit}
"""

INTROSPECTION_2_3 = """
introspection_mode = post
introspection_url = {introspection}
username_attribute = sub
username_format = %Lu
active_attribute = active
active_value = true
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
    home = {folder}/mail/%{{user}}
  }}
}}
mail_driver = maildir
mail_path = {folder}/mail/%{{user}}
mail_max_userip_connections = {limit}
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

# What its log says when a client has not been polite, or when something went wrong.
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
        values = {"folder": self.folder, "name": self.name, "sink": sink.port, "uid": MAIL_UID, "limit": limit,
                  "certificate": self._run.certificate, "key": self._run.key, "introspection": tokens.introspection,
                  **{f"{protocol}_{security}": port for (protocol, security), port in self.ports.items()}}
        self._write("introspection.conf", INTROSPECTION_2_3.format(**values))
        self._write("dovecot.conf", (COMMON + VERSION_2_3).format(**values))

    def _write(self, name, text):
        (self.folder / name).write_text(text)

    def _command(self):
        return ["dovecot", "-F", "-c", self.folder / "dovecot.conf"]

    def start(self):
        """Starts it, or starts it again."""
        self.process = self._run.start(self.name, [str(word) for word in self._command()])
        self.process.wait_for_ports(*self.ports.values())

    def stop(self):
        """Ends it, with all its sessions."""
        self._run.stop(self.process)

    def restart(self):
        """Ends it and starts it."""
        self.stop()
        self.start()

    def troubles(self, offset):
        """The lines of its log since that show something amiss."""
        return [line for line in self.log.read_bytes()[offset:].decode("utf-8", "replace").splitlines() if TROUBLE.search(line)]


class Dovecot24(Dovecot):
    """From Debian 13. Checks tokens as JWTs where told so."""

    def _configure(self, tokens, sink, limit, jwt):
        keys = self.folder / "keys/default/RS256"
        keys.mkdir(parents=True)
        (keys / "default").write_text(tokens.public_key.read_text())
        values = {"folder": self.folder, "name": self.name, "sink": sink.port, "uid": MAIL_UID, "limit": limit,
                  "certificate": self._run.certificate, "key": self._run.key, "introspection": tokens.introspection,
                  **{f"{protocol}_{security}": port for (protocol, security), port in self.ports.items()}}
        check = (LOCAL_2_4 if jwt else INTROSPECTION_2_4).format(**values)
        versions = "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
        self._write("dovecot.conf", versions + (COMMON + VERSION_2_4).format(check=check, **values))

    def _command(self):
        return debian13.command(self._run, super()._command())
