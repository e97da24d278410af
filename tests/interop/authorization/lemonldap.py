"""LemonLDAP::NG, Debian's packages: one portal under Starman, with its Demo accounts, its sessions as files of JSON."""

import json
import subprocess
from pathlib import Path

import wsgi_server
from process import Failure, free_port
from server import HERE, Server

INITIAL = """
[all]
logLevel = notice
; Each request checks for a new configuration. Otherwise, for a second, some workers do not know a client that registered itself.
checkTime = -1
[configuration]
type = File
dirName = {folder}/conf
localStorage = Cache::FileCache
localStorageOptions = {{ 'namespace' => 'configuration', 'cache_root' => '{folder}/cache', 'cache_depth' => 3 }}
[portal]
staticPrefix = /static
templateDir = /usr/share/lemonldap-ng/portal/templates
languages = en
"""

# The portal with our people as its Demo accounts, each with the name as the password. Writes the scope of each refresh to a file.
PORTAL = """
use JSON;
use Plack::Request;
use Lemonldap::NG::Portal::Main;
use Lemonldap::NG::Portal::UserDB::Demo;
open my $file, '<', '{folder}/people.json' or die $!;
%Lemonldap::NG::Portal::UserDB::Demo::demoAccounts =
    map {{ $_ => {{ uid => $_, cn => $_, mail => $_ }} }} @{{ decode_json(join '', <$file>) }};
my $portal = Lemonldap::NG::Portal::Main->run({{}});
sub {{
    my $form = Plack::Request->new($_[0])->body_parameters;
    if (($form->{{grant_type}} // '') eq 'refresh_token') {{
        open my $notes, '>>', '{folder}/refreshes' or die $!;
        print $notes JSON->new->allow_nonref->encode($form->{{scope}}), "\\n";
    }}
    return $portal->(@_);
}};
"""


class LemonLdap(Server):
    """It keeps everything in files, so a restart loses nothing."""

    name = "lemonldap"
    title = "LemonLDAP::NG 2.16"
    has_device_grant = has_revocation = False
    has_registration = True
    registered_end = "does not offer offline_access to a client that registers itself"
    unknown_scope = "calendar"  # one of its rules denies it, so the server leaves it out silently
    rotates = False
    scope = ["openid", "email", "mail", "offline_access"]

    def __init__(self, run, users):
        subprocess.run([HERE / "install-lemonldap"], check=True)
        self._run, self.port = run, free_port()
        self.issuer = f"https://127.0.0.1:{self.port}/"
        self.userinfo = f"{self.issuer}oauth2/userinfo"
        # It compares redirect URIs exactly, so the port is part of the registration.
        self.redirect_uri = f"http://127.0.0.1:{free_port()}/"
        self.folder = run.subfolder(self.name)
        self._tokens = self.folder / "tokens"
        for name in ("conf", "cache", "locks", "sessions", "persistent", "tokens"):
            (self.folder / name).mkdir()
        (self.folder / "people.json").write_text(json.dumps(users))
        (self.folder / "conf/lmConf-1.json").write_text(json.dumps(self._configuration(), indent=1))
        (self.folder / "lemonldap-ng.ini").write_text(INITIAL.format(folder=self.folder))
        (self.folder / "portal.psgi").write_text(PORTAL.format(folder=self.folder))
        self._environment = {"PATH": "/usr/bin:/bin", "LLNG_DEFAULTCONFFILE": str(self.folder / "lemonldap-ng.ini")}
        self.start()

    def _configuration(self):
        def storage(name):
            return {"Directory": str(self.folder / name), "LockDirectory": str(self.folder / "locks"),
                    "generateModule": "Lemonldap::NG::Common::Apache::Session::Generate::SHA256"}

        return {
            "cfgNum": 1, "cfgDate": 1, "portal": self.issuer, "domain": "127.0.0.1", "securedCookie": 1, "key": "for tests only",
            "authentication": "Demo", "userDB": "Same", "demoExportedVars": {"mail": "mail", "uid": "uid"}, "whatToTrace": "uid",
            "captcha": "::Main::Plugin",  # none, because its own needs ImageMagick
            "globalStorage": "Apache::Session::File", "globalStorageOptions": storage("sessions"),
            "persistentStorage": "Apache::Session::File", "persistentStorageOptions": storage("persistent"),
            "oidcStorage": "Apache::Session::File", "oidcStorageOptions": storage("tokens"),
            "localSessionStorage": "",  # a cache would still accept an ended token
            "locationRules": {"127.0.0.1": {"default": "accept"}}, "issuerDBOpenIDConnectActivation": 1,
            "oidcServicePrivateKeySig": Path(self._run.rsa_key).read_text(), "oidcServicePublicKeySig": self._run.rsa_public_key,
            "oidcServiceKeyIdSig": "one", "oidcServiceAllowDynamicRegistration": 1,
            "oidcServiceDynamicRegistrationExportedVars": {"email": "mail"},
            "oidcRPMetaDataExportedVars": {"postkey": {"email": "mail"}},
            "oidcRPMetaDataScopeRules": {"postkey": {self.unknown_scope: "0"}},
            "oidcRPMetaDataOptions": {"postkey": {
                "oidcRPMetaDataOptionsClientID": "native", "oidcRPMetaDataOptionsDisplayName": "postkey",
                "oidcRPMetaDataOptionsPublic": 1, "oidcRPMetaDataOptionsRequirePKCE": 1,
                "oidcRPMetaDataOptionsAllowOffline": 1, "oidcRPMetaDataOptionsIDTokenSignAlg": "RS256",
                "oidcRPMetaDataOptionsRedirectUris": self.redirect_uri}},
        }

    def _command(self):
        return ["starman", "--enable-ssl", "--ssl-cert", self._run.certificate, "--ssl-key", self._run.key,
                "--listen", f"127.0.0.1:{self.port}:ssl", "--workers", "4", self.folder / "portal.psgi"]

    def sign_in(self, url, address, consents=True, scope=None):
        """Signs in, and presses a button of the consent page. Returns the address to which the browser is redirected."""
        browser = self.open(url)
        browser.submit({"user": address, "password": address})
        return browser.submit({} if consents else {"confirm": "-1"})

    def end_access_tokens(self):
        """Ends every access token that it has issued."""
        self._end("access_token")

    def end_authorizations(self):
        """Ends every refresh token."""
        self._end("refresh_token")

    def living_authorizations(self, address):
        """Counts the valid refresh tokens of a person."""
        return sum(token["_session_uid"] == address for _, token in self._sessions("refresh_token"))

    def refresh_scopes(self):
        """Returns the scope of each refresh request so far, None if it had none."""
        return wsgi_server.noted(self.folder / "refreshes")

    def _sessions(self, kind):
        """Tokens of one kind, and the files that they are in."""
        every = [(file, json.loads(file.read_text())) for file in self._tokens.iterdir()]
        return [(file, session) for file, session in every if session["_type"] == kind]

    def _end(self, kind):
        ended = self._sessions(kind)
        if not ended:
            raise Failure(f"there is no {kind} to end")
        for file, _ in ended:
            file.unlink()
