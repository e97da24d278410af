"""Serves a WSGI application with TLS on loopback, with a thread for each request, and records the scopes of refreshes."""

import io
import json
import socketserver
import ssl
import urllib.parse
import wsgiref.simple_server


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """Does the TLS handshake in the request's thread, so that a silent client delays nobody."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port, context):
        self._context = context
        super().__init__(("127.0.0.1", port), Handler)

    def get_request(self):
        connection, address = super().get_request()
        connection.settimeout(20)
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def shutdown_request(self, request):
        """Sends close_notify, because an answer may end with the connection."""
        try:
            request.unwrap()
        except OSError:
            pass
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Prints nothing, because clients that disconnect are not worth a traceback."""


class Handler(wsgiref.simple_server.WSGIRequestHandler):
    """Tells the application that the request came with TLS."""

    def get_environ(self):
        return super().get_environ() | {"HTTPS": "on", "wsgi.url_scheme": "https"}


def noting(application, file):
    """The same application. The scope of each refresh request, or null, becomes a line of the file."""
    def noted(environ, start_response):
        if environ["REQUEST_METHOD"] == "POST" and "token" in environ["PATH_INFO"]:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            form = urllib.parse.parse_qs(body.decode("utf-8", "replace"))
            if form.get("grant_type") == ["refresh_token"]:
                with open(file, "a", encoding="utf-8") as notes:
                    notes.write(json.dumps(form.get("scope", [None])[0]) + "\n")
            environ["wsgi.input"] = io.BytesIO(body)
        return application(environ, start_response)
    return noted


def noted(file):
    """The recorded scopes."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def serve(application, port, certificate, key):
    """Serves until the process ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(port, context)
    server.set_app(application)
    server.serve_forever()
