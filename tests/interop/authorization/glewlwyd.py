"""Glewlwyd, Debian's package: its own TLS, its own administration by HTTP, a refresh token that is replaced at each use."""

import gzip
import json
import sqlite3
from pathlib import Path

from browser import Browser, Ended
from process import Failure, free_port
from server import PASSWORD, Server

SCHEMA = Path("/usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz")

CONFIGURATION = """
port = {port}
bind_address = "127.0.0.1"
external_url = "https://127.0.0.1:{port}"
login_url = "login.html"
static_files_path = "/usr/share/glewlwyd/webapp/"
api_prefix = "api"
log_mode = "console"
log_level = "INFO"
cookie_secure = 1
session_expiration = 2419200
session_key = "SESSION"
admin_session_authentication = "cookie"
profile_session_authentication = "cookie"
admin_scope = "g_admin"
profile_scope = "g_profile"
user_module_path = "/usr/lib/glewlwyd/user"
user_middleware_module_path = "/usr/lib/glewlwyd/user_middleware"
client_module_path = "/usr/lib/glewlwyd/client"
user_auth_scheme_module_path = "/usr/lib/glewlwyd/scheme"
plugin_module_path = "/usr/lib/glewlwyd/plugin"
use_secure_connection = true
secure_connection_key_file = "{key}"
secure_connection_pem_file = "{certificate}"
hash_algorithm = "SHA512"
database = {{ type = "sqlite3"; path = "{folder}/database" }};
"""


class Glewlwyd(Server):
    """It keeps everything in a database, so a restart loses nothing."""

    name = "glewlwyd"
    title = "Glewlwyd 2.7"
    has_device_grant = has_revocation = True
    has_registration = False  # it registers a confidential client without giving it a secret
    person_grants = "openid"
    rotates = True
    scope = ["openid", "mail"]

    def __init__(self, run, users):
        self._run, self.port, redirect_port = run, free_port(), free_port()
        # It compares redirect URIs exactly, so the port is part of the registration.
        self.redirect_uri = f"http://127.0.0.1:{redirect_port}/"
        self.base = f"https://127.0.0.1:{self.port}"
        self.issuer = f"{self.base}/api/oidc"
        self.userinfo = f"{self.issuer}/userinfo"
        self.folder = run.subfolder(self.name)
        self._database = self.folder / "database"
        with sqlite3.connect(self._database) as database:
            database.executescript(gzip.decompress(SCHEMA.read_bytes()).decode())
        self._configuration = self.folder / "glewlwyd.conf"
        self._configuration.write_text(CONFIGURATION.format(
            port=self.port, folder=self.folder, certificate=run.certificate, key=run.key))
        self.start()
        self._set_up(users)

    def _command(self):
        return ["glewlwyd", "--config-file", self._configuration]

    def _set_up(self, users):
        admin = Browser(self._run.ca)
        self._call(admin, "auth/", {"username": "admin", "password": "password"})
        for name in ("mail", "email"):
            self._call(admin, "scope/", {"name": name, "display_name": name, "password_required": False, "scheme": {}})
        for address in users:
            self._call(admin, "user/", {"username": address, "email": address, "password": PASSWORD, "enabled": True,
                                        "scope": ["openid", "mail", "email"]})
        self._call(admin, "client/", {
            "client_id": "native", "name": "postkey", "confidential": False, "enabled": True,
            "redirect_uri": [self.redirect_uri], "scope": ["openid", "mail", "email"],
            "authorization_type": ["code", "refresh_token", "device_authorization"], "token_endpoint_auth_method": ["none"]})
        key = Path(self._run.rsa_key).read_text()
        self._call(admin, "mod/plugin/", {"module": "oidc", "name": "oidc", "display_name": "OpenID Connect", "parameters": {
            "iss": self.issuer, "jwt-type": "rsa", "jwt-key-size": "256", "key": key, "cert": self._run.rsa_public_key,
            "access-token-duration": 3600, "refresh-token-duration": 1209600, "code-duration": 600,
            "refresh-token-rolling": False, "refresh-token-one-use": "always", "allow-non-oidc": True,
            "auth-type-code-enabled": True, "auth-type-refresh-enabled": True, "auth-type-device-enabled": True,
            "auth-type-token-enabled": False, "auth-type-id-token-enabled": False, "auth-type-password-enabled": False,
            "auth-type-client-enabled": False, "auth-type-code-revoke-replayed": True,
            "pkce-allowed": True, "pkce-method-plain-allowed": False,
            "introspection-revocation-allowed": True, "introspection-revocation-allow-target-client": True,
            "register-client-allowed": True, "register-client-auth-scope": [], "register-client-credentials-scope": [],
            "device-authorization-expiration": 600, "device-authorization-interval": 1, "jwks-show": True,
            "email-claim": "mandatory", "subject-type": "public"}})

    def _call(self, browser, path, content, method="POST"):
        return browser.open_json(f"{self.base}/api/{path}", content, method)

    def sign_in(self, url, address, consents=True, scope=None):
        """Does what the scripts of its sign-in page do: signs in and consents. Returns the address it redirects to."""
        browser = self.open(url)
        self._call(browser, "auth/", {"username": address, "password": PASSWORD})
        if not consents:
            raise Ended("its page has no way to refuse: the person closes it")
        client = browser.parameter(url, "client_id") or "native"
        granted = scope or browser.parameter(url, "scope") or "openid mail"
        self._call(browser, f"auth/grant/{client}", {"scope": granted}, "PUT")
        return browser.follow(f"{url}&g_continue")

    def type_in(self, url, code, address):
        """A person types a device's code in, and consents."""
        browser = self.open(url)
        self._call(browser, "auth/", {"username": address, "password": PASSWORD})
        self._call(browser, "auth/grant/native", {"scope": "openid mail"}, "PUT")
        browser.follow(f"{self.issuer}/device?code={code}&g_continue")

    def end_access_tokens(self):
        """Ends every access token that it has issued."""
        self._sql("UPDATE gpo_access_token SET gpoa_enabled = 0")

    def end_authorizations(self):
        """Ends every refresh token. The server then answers 400 without a body."""
        self._sql("UPDATE gpo_refresh_token SET gpor_enabled = 0")

    def living_authorizations(self, address):
        """Counts the valid refresh tokens of a person."""
        with sqlite3.connect(self._database) as database:
            return database.execute("SELECT count(*) FROM gpo_refresh_token WHERE gpor_enabled = 1 AND gpor_username = ?",
                                    [address]).fetchone()[0]

    def refresh_scopes(self):
        """Returns the scopes of the tokens issued by refreshes. The requests themselves cannot be seen."""
        with sqlite3.connect(self._database) as database:
            rows = database.execute(
                "SELECT token.gpoa_id, group_concat(scope.gpoas_scope, ' ') FROM gpo_access_token AS token"
                " JOIN gpo_access_token_scope AS scope ON scope.gpoa_id = token.gpoa_id"
                " WHERE token.gpoa_authorization_type = 6 GROUP BY token.gpoa_id ORDER BY token.gpoa_id").fetchall()
        return [scope for _, scope in rows]

    def _sql(self, statement):
        with sqlite3.connect(self._database, timeout=10) as database:
            if database.execute(statement).rowcount < 1:
                raise Failure(f"nothing to change: {statement}")
