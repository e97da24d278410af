"""canaille, from PyPI: lets clients register themselves, and signs with EdDSA by default."""

import json
import ssl
import urllib.parse
import urllib.request

import wsgi_server
from process import free_port
from server import HERE, PASSWORD, Server


class Canaille(Server):
    """It keeps everything in memory, so a restart loses it."""

    name = "canaille"
    title = "canaille 0.3"
    has_device_grant, has_registration, has_revocation = False, True, True
    unknown_scope = "calendar"  # the client is not registered for it, so the server leaves it out silently
    rotates = True
    scope = ["openid", "email", "mail"]
    parameters = {"prompt": "consent"}  # otherwise one person's consent counts for everybody

    def __init__(self, run, users):
        self._run, self.port, self.redirect_port = run, free_port(), free_port()
        self.issuer = f"https://127.0.0.1:{self.port}"
        self.userinfo = f"{self.issuer}/oauth/userinfo"
        # It compares redirect URIs exactly, so the port is part of the registration.
        self.redirect_uri = f"http://127.0.0.1:{self.redirect_port}/"
        self._refreshes = run.folder / "canaille-refreshes"
        self._settings = run.write_json("canaille.json", {
            "refreshes": str(self._refreshes), "port": self.port, "certificate": str(run.certificate), "key": str(run.key),
            "users": users, "password": PASSWORD,
            "clients": [{"client_id": "native", "client_name": "postkey", "token_endpoint_auth_method": "none",
                         "redirect_uris": [self.redirect_uri], "grant_types": ["authorization_code", "refresh_token"],
                         "response_types": ["code"], "scope": ["openid", "email", "mail"]}]})
        self.start()

    def _command(self):
        return [HERE / "environments/canaille/bin/python", HERE / "canaille_project.py", self._settings]

    def sign_in(self, url, address, consents=True, scope=None):
        """Signs in, and presses a button of the consent page. Returns the address to which the browser is redirected."""
        browser = self.open(url)
        browser.submit({"login": address}, ("answer", ""))
        browser.submit({"password": PASSWORD}, ("answer", ""))
        if browser.address.startswith("http://"):
            return browser.address
        return browser.submit({}, ("answer", "accept" if consents else "deny"))

    def end_access_tokens(self):
        """Ends every access token that it has issued."""
        self._act("end-access-tokens")

    def end_authorizations(self):
        """Ends every refresh token."""
        self._act("end-authorizations")

    def living_authorizations(self, address):
        """Counts the valid refresh tokens of a person."""
        return self._act(f"living?address={urllib.parse.quote(address)}")

    def refresh_scopes(self):
        """Returns the scope of each refresh request so far, None if it had none."""
        return wsgi_server.noted(self._refreshes)

    def _act(self, action):
        request = urllib.request.Request(f"{self.issuer}/tests/{action}", b"", method="POST")
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=self._run.ca), timeout=10) as response:
            return json.load(response)
