"""Dovecot as the provider's IMAP and POP3 server: it takes access tokens and nothing else."""

import os
import secrets

from process import Failure, free_port, wait_until

MAIL_UID = 65534  # nobody: owns the mailboxes, and nothing else in the run

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = postkey-tests
log_path = {folder}/log
auth_verbose = yes
listen = 127.0.0.1
protocols = imap pop3 lmtp

ssl = required
ssl_cert = <{certificate}
ssl_key = <{key}

auth_mechanisms = xoauth2 oauthbearer
auth_failure_delay = 0
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
# A token that does not open the mailbox of its subject's name may open a shared one.
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
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={mail}/%u allow_all_users=yes
}}

first_valid_uid = 1
mail_location = maildir:{mail}/%u
mail_fsync = never
mail_max_userip_connections = 1000

# One process serves many connections: fifty logins at once are a test, not a load.
service imap-login {{
  service_count = 0
  inet_listener imap {{
    port = {imap_starttls}
  }}
  inet_listener imaps {{
    port = {imap_tls}
    ssl = yes
  }}
}}
service pop3-login {{
  service_count = 0
  inet_listener pop3 {{
    port = {pop3_starttls}
  }}
  inet_listener pop3s {{
    port = {pop3_tls}
    ssl = yes
  }}
}}
# Failed logins are part of the tests; without this the next one from the same address waits up to 15 s.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
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

# The user name that the client gives has to be the token's subject, or what it opens besides: username_format is expanded
# with both.
INTROSPECTION = """
introspection_mode = post
introspection_url = {url}
username_attribute = {attribute}
username_format = %Lu
active_attribute = active
active_value = true
"""


class Dovecot:
    """`ports` maps (protocol, security) to a port; `sockets` is the folder where Postfix finds auth and lmtp."""

    def __init__(self, run, introspection_url):
        folder = run.subfolder("dovecot")
        self.mail = run.subfolder("mail")
        os.chown(self.mail, MAIL_UID, MAIL_UID)
        self.sockets = run.subfolder("sockets")
        self.ports = {(p, s): free_port() for p in ("imap", "pop3") for s in ("tls", "starttls")}
        for name, attribute in (("introspection", "sub"), ("shared", "shared")):
            (folder / f"{name}.conf").write_text(INTROSPECTION.format(url=introspection_url, attribute=attribute))
        configuration = folder / "dovecot.conf"
        configuration.write_text(self.configuration(run, folder))
        self.log = folder / "log"
        self.process = run.start("dovecot", ["dovecot", "-F", "-c", str(configuration)])
        self.process.wait_for_ports(*self.ports.values())

    def configuration(self, run, folder):
        """The text of dovecot.conf."""
        ports = {f"{protocol}_{security}": port for (protocol, security), port in self.ports.items()}
        return CONFIGURATION.format(folder=folder, certificate=run.certificate, key=run.key, uid=MAIL_UID,
                                    mail=self.mail, sockets=self.sockets, **ports)

    def mailbox(self, address):
        """The mailbox of an account."""
        return Mailbox(self.mail / address)


class Mailbox:
    """An INBOX on disk: a Maildir, looked at from behind the servers. Messages have CRLF here and LF on disk."""

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
        """The only message that holds these bytes, as soon as it has arrived."""
        found = wait_until(lambda: self.find(mark), f"a message in {self.folder.name}", seconds)
        if len(found) != 1:
            raise Failure(f"the message has arrived {len(found)} times in {self.folder.name}")
        return found[0]

    def find(self, mark):
        """All messages that hold these bytes."""
        contents = [path.read_bytes() for path in self._files()]
        return [content.replace(b"\n", b"\r\n") for content in contents if mark in content]

    def _files(self):
        return [path for part in ("new", "cur") for path in (self.folder / part).iterdir()]
