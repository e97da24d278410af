"""The authorization server of the first logins, and how the replicas and the load balancer know of it."""

import json
import sys
import urllib.request
from pathlib import Path

from process import free_port
from tokens import PROTOCOLS

HERE = Path(__file__).parent

CONFIGURATION = """
[provider.first]
domains = ["first.test"]
authorization_endpoint = "{server}/authorize"
token_endpoint = "{server}/token"
userinfo_endpoint = "{server}/userinfo"
revocation_endpoint = "{server}/revoke"
scope = ["mail", "openid", "email"]
client_id = "first"
mechanisms = ["XOAUTH2"]
ca_file = "{ca}"
redirect_uri = "http://127.0.0.1:{balanced}/callback"
redirect_listen = "127.0.0.1:{port}"

[account."*@first.test"]
provider = "first"
"""

MAIL_SERVER = """
[provider.first.{protocol}]
host = "127.0.0.1"
port = {port}
"""

BALANCED = """
listen browsers
  bind 127.0.0.1:{port}
  balance roundrobin
{servers}"""


class ConsentProcess:
    """The authorization server, which consent.py describes, and the port where the load balancer waits for browsers."""

    def __init__(self, run, secret):
        port, self.balanced, self._ca = free_port(), free_port(), run.ca
        self.server = f"http://127.0.0.1:{port}"
        settings = run.write_json("consent.json", {"port": port, "secret": secret})
        run.start("consent", [sys.executable, str(HERE / "consent.py"), str(settings)]).wait_for_ports(port)

    def configuration(self, replica, mail_ports):
        """What a replica's postkey.toml says about it."""
        head = CONFIGURATION.format(server=self.server, ca=self._ca, balanced=self.balanced, port=replica.browser_port)
        return head + "".join(MAIL_SERVER.format(protocol=protocol, port=mail_ports[protocol]) for protocol in PROTOCOLS)

    def haproxy(self, replicas):
        """What HAProxy's configuration says about it."""
        servers = "".join(f"  server {replica.name} 127.0.0.1:{replica.browser_port} check\n" for replica in replicas)
        return BALANCED.format(port=self.balanced, servers=servers)

    def report(self):
        """What has happened so far."""
        with urllib.request.urlopen(f"{self.server}/report", timeout=10) as response:
            return json.load(response)
