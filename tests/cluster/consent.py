"""An authorization server where people consent, in a process of its own.

    python3 consent.py SETTINGS.json

Whoever opens its page consents at once, as the person whom `login_hint` names. A code and a refresh token are good once. It says who has
signed in at its userinfo endpoint. `/report` has how often a code was exchanged, and which tokens were revoked.
"""

import base64
import hashlib
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

from tokens import AccessTokens

LIFE = 3600


class Consents:
    """What people have consented to."""

    def __init__(self, settings):
        self.access, self.codes, self.refresh_tokens, self.owners = AccessTokens(settings["secret"]), {}, {}, {}
        self.report = {"exchanged": [], "refused": 0, "revoked": []}

    def consent(self, fields):
        """Where the browser is sent after the consent."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = fields["login_hint"], fields["code_challenge"]
        return f'{fields["redirect_uri"]}?{urlencode({"code": code, "state": fields["state"]})}'

    def token(self, fields):
        """The answer to a token request."""
        owner = self._owner(fields)
        if owner is None:
            self.report["refused"] += 1
            return 400, {"error": "invalid_grant"}
        refresh, access = secrets.token_urlsafe(16), self.access.make(0, owner, time.time() + LIFE)
        self.refresh_tokens[refresh] = self.owners[access] = owner
        return 200, {"access_token": access, "token_type": "Bearer", "expires_in": LIFE, "refresh_token": refresh}

    def _owner(self, fields):
        if fields["grant_type"] == "refresh_token":
            return self.refresh_tokens.pop(fields["refresh_token"], None)
        owner, challenge = self.codes.pop(fields["code"], (None, None))
        digest = hashlib.sha256(fields["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != challenge:
            return None
        self.report["exchanged"].append(owner)
        return owner

    def revoke(self, fields):
        """Ends a refresh token."""
        owner = self.refresh_tokens.pop(fields["token"], None)
        self.report["revoked"] += [owner] if owner else []
        return 200, {}

    def userinfo(self, access):
        """Who has signed in."""
        return 200, {"sub": "1", "email": self.owners[access], "email_verified": True}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self):
        """The page of the consent, and what can only be read."""
        place = urlsplit(self.path)
        if place.path == "/authorize":
            self.send_response(302)
            self.send_header("Location", self.server.consents.consent(dict(parse_qsl(place.query))))
            self.end_headers()
        elif place.path == "/userinfo":
            self._answer(*self.server.consents.userinfo(self.headers["Authorization"].removeprefix("Bearer ")))
        else:
            self._answer(200, self.server.consents.report)

    def do_POST(self):
        """Token and revocation endpoint."""
        fields = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        consents = self.server.consents
        self._answer(*{"/token": consents.token, "/revoke": consents.revoke}[self.path](fields))

    def _answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


def main():
    """Serves until it is ended."""
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    server = ThreadingHTTPServer(("127.0.0.1", settings["port"]), Handler)
    server.consents = Consents(settings)
    server.serve_forever()


if __name__ == "__main__":
    main()
