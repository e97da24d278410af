"""A token endpoint on loopback, and two ways to check its tokens: introspection (RFC 7662), and JWTs (RFC 9068)."""

import base64
import http.server
import json
import secrets
import subprocess
import threading
import time
import urllib.parse

from process import free_port, openssl

LIFE = 3600


class Tokens:
    """A client's id is the mailbox that its tokens open. Tokens of a domain in `jwt` are JWTs of about that many bytes."""

    def __init__(self, run, jwt):
        self._jwt, self._known = jwt, {}
        folder = run.subfolder("tokens")
        self._key, self.public_key = folder / "key.pem", folder / "public.pem"
        openssl("genrsa", "-out", self._key, "2048")
        openssl("rsa", "-in", self._key, "-pubout", "-out", self.public_key)
        self.port = free_port()
        self.token_endpoint = f"http://127.0.0.1:{self.port}/token"
        self.introspection = f"http://127.0.0.1:{self.port}/introspection"
        self.issued, self.names_dead = 0, True
        tokens = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request."""

            def do_POST(self):
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                fields = {key: values[0] for key, values in form.items()}
                body = json.dumps(tokens.issue(fields) if self.path == "/token" else tokens.look(fields)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Logs nothing, because requests contain tokens."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def issue(self, fields):
        """A token for the client's mailbox."""
        mailbox = fields["client_id"]
        size = self._jwt.get(mailbox.partition("@")[2])
        token = self._signed(mailbox, size) if size else secrets.token_urlsafe(32)
        self._known[token] = mailbox
        self.issued += 1
        return {"access_token": token, "token_type": "Bearer", "expires_in": LIFE}

    def look(self, fields):
        """The owner of a token. An answer about a dead one has no name unless `names_dead`; Dovecot 2.3 treats that as its own failure."""
        mailbox = self._known.get(fields["token"])
        if not mailbox and not self.names_dead:
            return {}
        return {"active": mailbox is not None, "sub": mailbox or "nobody", "client_id": "x"}

    def end(self, mailbox):
        """Ends all opaque tokens that were issued for a mailbox."""
        self._known = {token: owner for token, owner in self._known.items() if owner != mailbox}

    def _signed(self, mailbox, size):
        now = int(time.time())
        claims = {"iss": "https://tokens.test", "sub": mailbox, "iat": now, "nbf": now - 5, "exp": now + LIFE, "jti": secrets.token_hex(8),
                  "groups": "x" * (size * 3 // 4)}
        text = f"{encoded({'alg': 'RS256', 'typ': 'JWT'})}.{encoded(claims)}"
        done = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self._key], input=text.encode(), capture_output=True, check=True)
        return f"{text}.{base64.urlsafe_b64encode(done.stdout).rstrip(b'=').decode()}"


def encoded(value):
    """JSON in the form that a JWT contains."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
