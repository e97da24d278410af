"""canaille, from PyPI: registers clients by itself, and signs with EdDSA unless told otherwise."""

import json
import ssl
import urllib.parse
import urllib.request
from pathlib import Path

import wsgi_server
from browser import Browser
from process import free_port

HERE = Path(__file__).parent
PASSWORD = "of a person in a test"


class Canaille:
    """`issuer` is all that a client has to know of it."""

    name = "canaille"
    title = "canaille 0.3"
    has_device_grant, has_registration, has_revocation = False, True, True
    unknown_scope = "calendar"  # the client is not registered for it: it is left out without a word
    rotates = True
    scope = ["openid", "email", "mail"]
    parameters = {"prompt": "consent"}  # else one person's consent is taken for everybody's

    def __init__(self, run, users):
        self._run, self.port, self.redirect_port = run, free_port(), free_port()
        self.issuer = f"https://127.0.0.1:{self.port}"
        self.userinfo = f"{self.issuer}/oauth/userinfo"
        # It compares redirect URIs to the letter, so the port is part of the registration.
        self.redirect_uri = f"http://127.0.0.1:{self.redirect_port}/"
        self._refreshes = run.folder / "canaille-refreshes"
        self._settings = run.write_json("canaille.json", {
            "refreshes": str(self._refreshes), "port": self.port, "certificate": str(run.certificate), "key": str(run.key), "users": users, "password": PASSWORD,
            "clients": [{"client_id": "native", "client_name": "postkey", "token_endpoint_auth_method": "none",
                         "redirect_uris": [self.redirect_uri], "grant_types": ["authorization_code", "refresh_token"],
                         "response_types": ["code"], "scope": ["openid", "email", "mail"]}]})
        self.start()

    def start(self):
        """Starts it; everything it knew is gone."""
        python = HERE / "environments/canaille/bin/python"
        self.process = self._run.start(self.name, [str(python), str(HERE / "canaille_project.py"), str(self._settings)])
        self.process.wait_for_ports(self.port)

    def stop(self):
        """Ends it."""
        self._run.stop(self.process)

    def sign_in(self, url, address, consents=True, scope=None):
        """Signs in, and presses a button of the consent page. Returns where the browser is led to."""
        browser = Browser(self._run.ca)
        browser.follow(url)
        browser.submit({"login": address}, ("answer", ""))
        browser.submit({"password": PASSWORD}, ("answer", ""))
        if browser.address.startswith("http://"):
            return browser.address
        return browser.submit({}, ("answer", "accept" if consents else "deny"))

    def end_access_tokens(self):
        """From now on no access token that it has issued is good."""
        self._act("end-access-tokens")

    def end_authorizations(self):
        """No refresh token is good any more."""
        self._act("end-authorizations")

    def living_authorizations(self, address):
        """How many refresh tokens of somebody are good."""
        return self._act(f"living?address={urllib.parse.quote(address)}")

    def refresh_scopes(self):
        """The scope of each refresh request so far, None where it names none."""
        return wsgi_server.noted(self._refreshes)

    def _act(self, action):
        request = urllib.request.Request(f"{self.issuer}/tests/{action}", b"", method="POST")
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=self._run.ca), timeout=10) as response:
            return json.load(response)
