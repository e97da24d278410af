"""django-oauth-toolkit, from PyPI: rotates, and ends the whole authorization when a spent refresh token is used again."""

import sqlite3

import wsgi_server
from process import Failure, free_port
from server import HERE, PASSWORD, Server


class DjangoToolkit(Server):
    """It keeps everything in a database, so a restart loses nothing."""

    name = "django"
    title = "django-oauth-toolkit 3.4"
    has_device_grant = has_revocation = True
    has_registration = False  # such clients cannot sign, so its token endpoint answers 500 if openid is requested
    person_grants = "openid email"  # an unknown scope is an error, but a person may grant less than requested
    rotates = True
    scope = ["openid", "email", "mail"]
    device_endpoint = "/device-authorization/"  # its metadata does not contain it

    def __init__(self, run, users):
        self._run, self.port = run, free_port()
        self.issuer = f"https://127.0.0.1:{self.port}"
        self.userinfo = f"{self.issuer}/userinfo/"
        folder = run.subfolder(self.name)
        self._database = folder / "database"
        common = {"client_type": "public", "algorithm": "RS256", "redirect_uris": "http://127.0.0.1/ http://localhost/"}
        self._refreshes = folder / "refreshes"
        self._settings = run.write_json("django.json", {
            "refreshes": str(self._refreshes), "port": self.port, "certificate": str(run.certificate), "key": str(run.key),
            "folder": str(folder), "issuer": self.issuer, "rsa_key": str(run.rsa_key), "users": users, "password": PASSWORD,
            "clients": [
                {"client_id": "native", "name": "postkey", "authorization_grant_type": "authorization-code", **common},
                {"client_id": "device", "name": "a device",
                 "authorization_grant_type": "urn:ietf:params:oauth:grant-type:device_code", **common}]})
        self.start()

    def _command(self):
        return [HERE / "environments/django/bin/python", HERE / "django_project.py", self._settings]

    def sign_in(self, url, address, consents=True, scope=None):
        """Signs in, and presses a button of the consent page. Returns the address to which the browser is redirected."""
        browser = self.open(url)
        browser.submit({"username": address, "password": PASSWORD})
        return browser.submit({"scope": scope} if scope else {}, ("allow", "Authorize") if consents else None)

    def type_in(self, url, code, address):
        """A person types a device's code in, and consents."""
        browser = self.open(url)
        browser.submit({"username": address, "password": PASSWORD})
        browser.submit({"user_code": code})
        browser.submit({}, ("action", "accept"))

    def end_access_tokens(self):
        """Ends every access token that it has issued."""
        self._sql("UPDATE oauth2_provider_accesstoken SET expires = '2020-01-01 00:00:00'")

    def end_authorizations(self):
        """Ends every refresh token."""
        self._sql("UPDATE oauth2_provider_refreshtoken SET revoked = '2020-01-01 00:00:00'")

    def living_authorizations(self, address):
        """Counts the valid refresh tokens of a person."""
        with sqlite3.connect(self._database, timeout=20) as database:
            return database.execute(
                "SELECT count(*) FROM oauth2_provider_refreshtoken AS token JOIN auth_user ON auth_user.id = token.user_id"
                " WHERE token.revoked IS NULL AND auth_user.username = ?", [address]).fetchone()[0]

    def refresh_scopes(self):
        """Returns the scope of each refresh request so far, None if it had none."""
        return wsgi_server.noted(self._refreshes)

    def _sql(self, statement):
        with sqlite3.connect(self._database, timeout=20) as database:
            if database.execute(statement).rowcount < 1:
                raise Failure(f"nothing to change: {statement}")
