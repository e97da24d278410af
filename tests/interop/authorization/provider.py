"""oidc-provider, from npm, as tests/real starts it: it ends an authorization when a spent refresh token is used again."""

from authorization_server import AuthorizationServer
from browser import Browser


class OidcProvider:
    """`issuer` is all that a client has to know of it."""

    name = "oidc"
    title = "oidc-provider 9"
    has_device_grant = has_registration = has_revocation = True
    unknown_scope = "calendar"  # it leaves out what it does not know, without a word
    rotates = True
    scope = ["openid", "email", "offline_access"]

    def __init__(self, run, _users):
        self._run = run
        self._server = AuthorizationServer(run)
        self.issuer = self._server.issuer
        self.userinfo = f"{self.issuer}/me"
        self.process = self._server.process

    def start(self):
        """Starts it; everything it knew is gone."""
        self._server.start()
        self.process = self._server.process

    def stop(self):
        """Ends it."""
        self._run.stop(self._server.process)

    def sign_in(self, url, address, consents=True, scope=None):
        """Signs in, and consents or goes back to the client. Returns where the browser is led to."""
        browser = Browser(self._run.ca)
        browser.follow(url)
        browser.submit({"login": address, "password": "any"})
        if browser.address.startswith("http://"):
            return browser.address
        if not consents:
            return browser.follow(f"{browser.address.rstrip('/')}/abort")
        return browser.submit({})

    def type_in(self, url, code, address):
        """A person types a device's code in, and consents."""
        browser = Browser(self._run.ca)
        browser.follow(url)
        browser.submit({"user_code": code})
        browser.submit({})
        browser.submit({"login": address, "password": "any"})
        browser.submit({})

    def end_access_tokens(self):
        """From now on no access token that it has issued is good."""
        self._server.revoke_access_tokens()

    def refresh_scopes(self):
        """The scope of each refresh request so far, None where it names none."""
        return self._server.refresh_scopes()

    def living_authorizations(self, address):
        """How many refresh tokens of somebody are good."""
        return self._server.authorized().count(address)
