"""Dovecot as the mail server of one authorization server: it takes a token if that server's userinfo knows whose it is."""

import os

from dovecot import MAIL_UID
from introspection import Introspection
from process import free_port

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = {name}
log_path = {folder}/log
auth_verbose = yes
listen = 127.0.0.1
protocols = imap
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
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={folder}/mail/%u allow_all_users=yes
}}
first_valid_uid = 1
mail_location = maildir:{folder}/mail/%u
mail_fsync = never
mail_max_userip_connections = 1000
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {port}
    ssl = yes
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""

INTROSPECTION = """
introspection_mode = post
introspection_url = {url}
username_attribute = sub
username_format = %Lu
active_attribute = active
active_value = true
"""


class MailServer:
    """IMAP by TLS on `port`."""

    def __init__(self, run, server):
        folder = run.subfolder(f"mail-{server.name}")
        self.port = free_port()
        (folder / "mail").mkdir()
        os.chown(folder / "mail", MAIL_UID, MAIL_UID)
        (folder / "introspection.conf").write_text(INTROSPECTION.format(url=Introspection(run, server.userinfo).url))
        configuration = folder / "dovecot.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, name=server.name, certificate=run.certificate, key=run.key,
                                                      uid=MAIL_UID, port=self.port))
        self.folder, self.log = folder, folder / "log"
        self.process = run.start(f"dovecot-{server.name}", ["dovecot", "-F", "-c", str(configuration)])
        self.process.wait_for_ports(self.port)
