"""canaille as an authorization server with its memory for a database, started with its settings as JSON.

    python canaille_project.py SETTINGS.json

The settings: port, certificate, key, refreshes (a file), users (addresses), password, clients. Beside canaille's own pages there are
/tests/end-access-tokens, /tests/end-authorizations and /tests/living?ADDRESS, by which the tests act on what it keeps.
"""

import datetime
import json
import secrets
import sys
from pathlib import Path

from canaille import create_app
from canaille.app import models
from canaille.app.flask import csrf
from canaille.backends import Backend
from flask import jsonify, request

import wsgi_server

SETTINGS = json.loads(Path(sys.argv[1]).read_text())


def application():
    """The Flask application, with its people and clients."""
    app = create_app({
        "SECRET_KEY": "for tests only",
        "SERVER_NAME": f"127.0.0.1:{SETTINGS['port']}",
        "PREFERRED_URL_SCHEME": "https",
        "CANAILLE": {"LOGGING": {"version": 1}, "JAVASCRIPT": False, "HTMX": False},
        "CANAILLE_OIDC": {"DYNAMIC_CLIENT_REGISTRATION_OPEN": True, "TRUSTED_DOMAINS": []},
    })
    with app.app_context():
        fill()
    csrf.exempt(act)
    app.add_url_rule("/tests/<action>", view_func=act, endpoint="tests", methods=["POST"])
    return app


def fill():
    """People and clients."""
    for address in SETTINGS["users"]:
        Backend.instance.save(models.User(
            user_name=address, formatted_name=address, family_name=address, emails=[address], password=SETTINGS["password"]))
    for client in SETTINGS["clients"]:
        saved = models.Client(client_id_issued_at=datetime.datetime.now(datetime.timezone.utc), **client)
        Backend.instance.save(saved)
        saved.audience = [saved]  # as its own registration does
        Backend.instance.save(saved)


def act(action):
    """What the tests do to the tokens."""
    now = datetime.datetime.now(datetime.timezone.utc)
    tokens = Backend.instance.query(models.Token)
    living = [token for token in tokens if token.refresh_token and not token.is_revoked()]
    if action == "living":
        return jsonify([token.subject.preferred_email for token in living].count(request.args["address"]))
    for token in tokens:
        if action == "end-access-tokens":
            token.access_token = secrets.token_hex()  # its refresh token lives no longer than its access token
        else:
            token.revokation_date = now
        Backend.instance.save(token)
    return jsonify(len(tokens))


wsgi_server.serve(wsgi_server.noting(application(), SETTINGS["refreshes"]), SETTINGS["port"], SETTINGS["certificate"], SETTINGS["key"])
