"""The authorization server of the first logins, and how the replicas and the load balancer know of it."""

import json
import sys
import urllib.request
from pathlib import Path

from process import free_port, write_private
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
redirect_uri = "{page}"
redirect_listen = "127.0.0.1:{port}"

[account."*@first.test"]
provider = "first"
allow_remote = true
"""

MAIL_SERVER = """
[provider.first.{protocol}]
host = "127.0.0.1"
port = {port}
"""

# The file that the guide shows, up to its servers.
BALANCED = (HERE.parent.parent / "packaging/cluster/haproxy-browsers.cfg").read_text("utf-8").partition("\n")[2].partition("  server ")[0]


class ConsentProcess:
    """The authorization server, which consent.py describes, and the port where the load balancer waits for browsers."""

    def __init__(self, run, secret):
        port, self.balanced, self._run = free_port(), free_port(), run
        self.server = f"http://127.0.0.1:{port}"
        settings = run.write_json("consent.json", {"port": port, "secret": secret})
        run.start("consent", [sys.executable, str(HERE / "consent.py"), str(settings)]).wait_for_ports(port)

    def configuration(self, replica, mail_ports):
        """What a replica's postkey.toml says about it."""
        head = CONFIGURATION.format(server=self.server, ca=self._run.ca, page=self.page, port=replica.browser_port)
        return head + "".join(MAIL_SERVER.format(protocol=protocol, port=mail_ports[protocol]) for protocol in PROTOCOLS)

    def haproxy(self, replicas):
        """What HAProxy's configuration says about it."""
        certificate = write_private(self._run.folder / "browsers.pem", self._run.certificate.read_text() + self._run.key.read_text())
        text = BALANCED.replace(":443", f"127.0.0.1:{self.balanced}").replace("/etc/haproxy/mail.example.com.pem", str(certificate))
        servers = "".join(f"  server {replica.name} 127.0.0.1:{replica.browser_port}\n" for replica in replicas)
        return f"\n{text}{servers}"

    @property
    def page(self):
        """Where browsers return and forms are sent."""
        return f"https://127.0.0.1:{self.balanced}/callback"

    def report(self):
        """What has happened so far."""
        with urllib.request.urlopen(f"{self.server}/report", timeout=10) as response:
            return json.load(response)
