"""An introspection endpoint (RFC 7662) for Dovecot that asks an authorization server's userinfo whose a token is.

Dovecot 2.3 treats an answer without a user name as its own failure, so an answer about an invalid token has one, too.
"""

import http.server
import json
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request

from process import free_port


class Introspection:
    """Answers at `url` until the tests end."""

    def __init__(self, run, userinfo):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        context = ssl.create_default_context(cafile=run.ca)

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request."""

            def do_POST(self):
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                address = whose(form["token"][0], userinfo, context)
                body = json.dumps({"active": address is not None, "sub": address or "nobody"}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Logs nothing, because requests contain tokens."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def whose(token, userinfo, context):
    """The address of the token's owner; None if the token is not valid."""
    request = urllib.request.Request(userinfo, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as response:
            return json.load(response)["email"]
    except urllib.error.URLError:
        return None
