"""The authorization server: starts it and speaks to its driver's routes."""

import json
import secrets
import subprocess
import urllib.request
from pathlib import Path

from process import free_port

SCRIPT = Path(__file__).with_name("authorization-server.mjs")
SCOPE = "openid email offline_access"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTING = "service@example.test"  # speaks for the owners of mailboxes

# The mailbox that somebody may open in addition to their own.
SHARED = {"ann@example.test": "office@example.test"}


class AuthorizationServer:
    """oidc-provider with two native clients, two with a secret, three that may open a mailbox, and Dovecot. More may register."""

    def __init__(self, run):
        self.https_port, self.http_port = free_port(), free_port()
        self.issuer = f"https://127.0.0.1:{self.https_port}"
        self.client_secret = secrets.token_hex(16)
        self.introspection_secret = secrets.token_hex(16)
        self.password = secrets.token_hex(16)
        self.key, self.signing_certificate, self.pkcs12 = run.signing_key()
        self._settings = run.write_json("authorization-server.json", {
            "httpsPort": self.https_port,
            "httpPort": self.http_port,
            "certificate": str(run.certificate),
            "key": str(run.key),
            "clients": self._clients(),
            "grants": {
                "issuer": ASSERTING,
                "certificate": str(self.signing_certificate),
                "password": self.password,
                "mailboxes": {"service-secret": "secret@example.test", "service-key": "key@example.test", "robot": "robot@robots.test"},
            },
            "shared": SHARED,
        })
        self._run = run
        self.start()

    def start(self):
        """Starts it; everything from before is lost."""
        self.process = self._run.start("authorization-server", ["node", str(SCRIPT), str(self._settings)])
        self.process.wait_for_ports(self.https_port, self.http_port)

    def _clients(self):
        common = {
            "redirect_uris": ["http://127.0.0.1/", "http://localhost/"],
            "grant_types": ["authorization_code", "refresh_token", DEVICE_CODE, JWT_BEARER, "password"],
            "response_types": ["code"],
            "application_type": "native",
            "scope": SCOPE,
        }
        service = {"redirect_uris": [], "response_types": [], "grant_types": ["client_credentials"], "scope": SCOPE}
        return [
            {"client_id": "service-secret", "client_secret": self.client_secret,
             "token_endpoint_auth_method": "client_secret_post", **service},
            {"client_id": "robot", "client_secret": self.client_secret,
             "token_endpoint_auth_method": "client_secret_post", **service},
            {"client_id": "service-key", "token_endpoint_auth_method": "private_key_jwt",
             "token_endpoint_auth_signing_alg": "PS256", "jwks": {"keys": [self._public_key()]}, **service},
            {"client_id": "native", "token_endpoint_auth_method": "none", **common},
            {"client_id": "lasting", "token_endpoint_auth_method": "none", **common},
            {"client_id": "lasting-secret", "client_secret": self.client_secret,
             "token_endpoint_auth_method": "client_secret_post", **common},
            {"client_id": "confidential", "client_secret": self.client_secret,
             "token_endpoint_auth_method": "client_secret_post", **common},
            {"client_id": "dovecot", "client_secret": self.introspection_secret, "redirect_uris": [],
             "grant_types": [], "response_types": []},
        ]

    def _public_key(self):
        """The signing key as a JSON Web Key."""
        script = ("process.stdout.write(JSON.stringify(require('node:crypto')"
                  ".createPublicKey(require('node:fs').readFileSync(process.argv[1])).export({ format: 'jwk' })))")
        done = subprocess.run(["node", "-e", script, str(self.signing_certificate)], capture_output=True, text=True, check=True)
        return {**json.loads(done.stdout), "use": "sig"}

    @property
    def introspection_url(self):
        """With credentials in it, as Dovecot requires."""
        return f"http://dovecot:{self.introspection_secret}@127.0.0.1:{self.http_port}/token/introspection"

    def counts(self):
        """Answered token requests by grant type, and "refused"."""
        return self._admin("GET", "counts")

    def registered(self):
        """The ids of the clients that have registered themselves."""
        return self._admin("GET", "registered")

    def authorized(self):
        """The address of each valid refresh token."""
        return self._admin("GET", "authorized")

    def refresh_scopes(self):
        """The scope of each refresh request so far, None if it had none."""
        return self._admin("GET", "refresh-scopes")

    def secrets(self):
        """Every token, code and code verifier that the token endpoint has seen, and the client secrets."""
        return self._admin("GET", "secrets") + [self.client_secret, self.password]

    def set_access_token_seconds(self, seconds):
        """Sets how long access tokens live that are issued from now on."""
        self._admin("POST", "settings", {"accessTokenSeconds": seconds})

    def set_unavailable(self, unavailable):
        """Sets whether the token endpoint answers 503."""
        self._admin("POST", "settings", {"unavailable": unavailable})

    def revoke_access_tokens(self):
        """From now on the mail servers refuse every access token issued so far."""
        return self._admin("POST", "revoke-access-tokens", {})

    def _admin(self, method, route, content=None):
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/admin/{route}", body, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
