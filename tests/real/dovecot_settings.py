"""The parts of Dovecot's configuration that all of our Dovecots have in common. `format` fills them in."""

MAIL_UID = 65534  # nobody, who owns the mailboxes and nothing else in the run

COMMON = """
base_dir = {folder}/run
state_dir = {folder}/state
instance_name = {name}
log_path = {folder}/log
auth_verbose = yes
listen = 127.0.0.1
ssl = required
auth_mechanisms = xoauth2 oauthbearer
first_valid_uid = 1
mail_max_userip_connections = {limit}
# Failed logins are part of the tests. Without this, the next login from the same address waits up to 15 s.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""

# Tokens are the only password. Dovecot asks `introspection.conf` about each.
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
  args = uid={uid} gid={uid} home={mail}/%u allow_all_users=yes
}}
mail_location = maildir:{mail}/%u
"""

# Nothing waits after a failed login or for the disk.
QUICK = """
auth_failure_delay = 0
mail_fsync = never
"""

INTROSPECTION_2_3 = """
introspection_mode = post
introspection_url = {introspection}
username_attribute = {attribute}
username_format = %Lu
active_attribute = active
active_value = true
"""

LOGIN_SERVICE = """
service {service}-login {{
  {more}
  inet_listener {service} {{
    port = {starttls}
  }}
  inet_listener {service}s {{
    port = {tls}
    ssl = yes
  }}
}}
"""


def login_service(service, starttls, tls, more=""):
    """The two ports of imap, pop3 or submission; port 0 is none."""
    return LOGIN_SERVICE.format(service=service, starttls=starttls, tls=tls, more=more)
