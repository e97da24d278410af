"""oidc-provider, from npm, as tests/real starts it: it ends an authorization when a spent refresh token is used again."""

from authorization_server import AuthorizationServer
from server import Server


class OidcProvider(Server):
    """It keeps everything in memory, so a restart loses it."""

    name = "oidc"
    title = "oidc-provider 9"
    has_device_grant = has_registration = has_revocation = True
    unknown_scope = "calendar"  # the server silently leaves out unknown scopes
    rotates = True
    scope = ["openid", "email", "offline_access"]

    def __init__(self, run, _users):
        self._run = run
        self._server = AuthorizationServer(run)
        self.issuer = self._server.issuer
        self.userinfo = f"{self.issuer}/me"
        self.process = self._server.process

    def start(self):
        self._server.start()
        self.process = self._server.process

    def sign_in(self, url, address, consents=True, scope=None):
        """Signs in, and consents or goes back to the client. Returns the address to which the browser is redirected."""
        browser = self.open(url)
        browser.submit({"login": address, "password": "any"})
        if browser.address.startswith("http://"):
            return browser.address
        if not consents:
            return browser.follow(f"{browser.address.rstrip('/')}/abort")
        return browser.submit({})

    def type_in(self, url, code, address):
        """A person types a device's code in, and consents."""
        browser = self.open(url)
        browser.submit({"user_code": code})
        browser.submit({})
        browser.submit({"login": address, "password": "any"})
        browser.submit({})

    def end_access_tokens(self):
        """Ends every access token that it has issued."""
        self._server.revoke_access_tokens()

    def refresh_scopes(self):
        """Returns the scope of each refresh request so far, None if it had none."""
        return self._server.refresh_scopes()

    def living_authorizations(self, address):
        """Counts the valid refresh tokens of a person."""
        return self._server.authorized().count(address)
