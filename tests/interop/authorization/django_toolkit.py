"""django-oauth-toolkit, from PyPI: rotates, and ends the whole authorization when a spent refresh token is used again."""

import sqlite3
from pathlib import Path

import wsgi_server
from browser import Browser
from process import Failure, free_port

HERE = Path(__file__).parent
PASSWORD = "of a person in a test"


class DjangoToolkit:
    """`issuer` is all that a client has to know of it."""

    name = "django"
    title = "django-oauth-toolkit 3.4"
    has_device_grant = has_revocation = True
    has_registration = False  # its clients sign nothing, so its token endpoint answers 500 where openid is asked for
    person_grants = "openid email"  # an unknown scope is an error; a person may grant less than is asked for
    rotates = True
    scope = ["openid", "email", "mail"]
    device_endpoint = "/device-authorization/"  # no metadata tell it

    def __init__(self, run, users):
        self._run, self.port = run, free_port()
        self.issuer = f"https://127.0.0.1:{self.port}"
        self.userinfo = f"{self.issuer}/userinfo/"
        folder = run.subfolder(self.name)
        self._database = folder / "database"
        common = {"client_type": "public", "algorithm": "RS256", "redirect_uris": "http://127.0.0.1/ http://localhost/"}
        self._refreshes = folder / "refreshes"
        self._settings = run.write_json("django.json", {
            "refreshes": str(self._refreshes), "port": self.port, "certificate": str(run.certificate), "key": str(run.key), "folder": str(folder),
            "issuer": self.issuer, "rsa_key": str(run.rsa_key), "users": users, "password": PASSWORD,
            "clients": [
                {"client_id": "native", "name": "postkey", "authorization_grant_type": "authorization-code", **common},
                {"client_id": "device", "name": "a device",
                 "authorization_grant_type": "urn:ietf:params:oauth:grant-type:device_code", **common}]})
        self.start()

    def start(self):
        """Starts it; what it knew it still knows."""
        python = HERE / "environments/django/bin/python"
        self.process = self._run.start(self.name, [str(python), str(HERE / "django_project.py"), str(self._settings)])
        self.process.wait_for_ports(self.port)

    def stop(self):
        """Ends it."""
        self._run.stop(self.process)

    def sign_in(self, url, address, consents=True, scope=None):
        """Signs in, and presses a button of the consent page. Returns where the browser is led to."""
        browser = Browser(self._run.ca)
        browser.follow(url)
        browser.submit({"username": address, "password": PASSWORD})
        return browser.submit({"scope": scope} if scope else {}, ("allow", "Authorize") if consents else None)

    def type_in(self, url, code, address):
        """A person types a device's code in, and consents."""
        browser = Browser(self._run.ca)
        browser.follow(url)
        browser.submit({"username": address, "password": PASSWORD})
        browser.submit({"user_code": code})
        browser.submit({}, ("action", "accept"))

    def end_access_tokens(self):
        """From now on no access token that it has issued is good."""
        self._sql("UPDATE oauth2_provider_accesstoken SET expires = '2020-01-01 00:00:00'")

    def end_authorizations(self):
        """No refresh token is good any more."""
        self._sql("UPDATE oauth2_provider_refreshtoken SET revoked = '2020-01-01 00:00:00'")

    def living_authorizations(self, address):
        """How many refresh tokens of somebody are good."""
        with sqlite3.connect(self._database, timeout=20) as database:
            return database.execute(
                "SELECT count(*) FROM oauth2_provider_refreshtoken AS token JOIN auth_user ON auth_user.id = token.user_id"
                " WHERE token.revoked IS NULL AND auth_user.username = ?", [address]).fetchone()[0]

    def refresh_scopes(self):
        """The scope of each refresh request so far, None where it names none."""
        return wsgi_server.noted(self._refreshes)

    def _sql(self, statement):
        with sqlite3.connect(self._database, timeout=20) as database:
            if database.execute(statement).rowcount < 1:
                raise Failure(f"nothing to change: {statement}")
