"""The authorization server: starts it and speaks to its driver's routes."""

import json
import secrets
import urllib.request
from pathlib import Path

from process import free_port

SCRIPT = Path(__file__).with_name("authorization-server.mjs")
SCOPE = "openid email offline_access"

# The mailbox that somebody may open besides their own.
SHARED = {"ann@example.test": "office@example.test"}


class AuthorizationServer:
    """oidc-provider with three clients: a native one, one with a secret, and Dovecot, which introspects. More may register."""

    def __init__(self, run):
        self.https_port, self.http_port = free_port(), free_port()
        self.issuer = f"https://127.0.0.1:{self.https_port}"
        self.client_secret = secrets.token_hex(16)
        self.introspection_secret = secrets.token_hex(16)
        self._settings = run.write_json("authorization-server.json", {
            "httpsPort": self.https_port,
            "httpPort": self.http_port,
            "certificate": str(run.certificate),
            "key": str(run.key),
            "clients": self._clients(),
            "shared": SHARED,
        })
        self._run = run
        self.start()

    def start(self):
        """Starts it; everything it knew in an earlier life is gone."""
        self.process = self._run.start("authorization-server", ["node", str(SCRIPT), str(self._settings)])
        self.process.wait_for_ports(self.https_port, self.http_port)

    def _clients(self):
        common = {
            "redirect_uris": ["http://127.0.0.1/", "http://localhost/"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "application_type": "native",
            "scope": SCOPE,
        }
        return [
            {"client_id": "native", "token_endpoint_auth_method": "none", **common},
            {"client_id": "confidential", "client_secret": self.client_secret,
             "token_endpoint_auth_method": "client_secret_post", **common},
            {"client_id": "dovecot", "client_secret": self.introspection_secret, "redirect_uris": [],
             "grant_types": [], "response_types": []},
        ]

    @property
    def introspection_url(self):
        """With credentials in it, as Dovecot wants it."""
        return f"http://dovecot:{self.introspection_secret}@127.0.0.1:{self.http_port}/token/introspection"

    def counts(self):
        """Answered token requests by grant type, and "refused"."""
        return self._admin("GET", "counts")

    def registered(self):
        """The ids of the clients that have registered themselves."""
        return self._admin("GET", "registered")

    def authorized(self):
        """The address of each refresh token that is alive."""
        return self._admin("GET", "authorized")

    def secrets(self):
        """Every token, code and code verifier that the token endpoint has seen, and the client secrets."""
        return self._admin("GET", "secrets") + [self.client_secret]

    def set_access_token_seconds(self, seconds):
        """How long access tokens live that are issued from now on."""
        self._admin("POST", "settings", {"accessTokenSeconds": seconds})

    def set_unavailable(self, unavailable):
        """Whether the token endpoint answers 503."""
        self._admin("POST", "settings", {"unavailable": unavailable})

    def revoke_access_tokens(self):
        """From now on the mail servers refuse every access token issued so far."""
        return self._admin("POST", "revoke-access-tokens", {})

    def _admin(self, method, route, content=None):
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/admin/{route}", body, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
