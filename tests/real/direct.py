"""Checks the provider's servers without postkey: they must be as strict as real ones, or the other tests prove nothing."""

import base64
import hashlib
import imaplib
import json
import poplib
import secrets
import smtplib
import ssl
import time
import urllib.parse
import urllib.request

from authorization_server import SCOPE
from message import new_message
from person import Person
from process import Failure

ANN, BOB = "ann@example.test", "bob@example.test"


def xoauth2(user, token):
    """Google's and Microsoft's initial response."""
    return "XOAUTH2", f"user={user}\x01auth=Bearer {token}\x01\x01".encode()


def oauthbearer(user, token):
    """The initial response of RFC 7628."""
    return "OAUTHBEARER", f"n,a={user},\x01auth=Bearer {token}\x01\x01".encode()


class Provider:
    """Logs in to the mail servers as a mail program with OAuth would."""

    def __init__(self, run, ports):
        self.tls = ssl.create_default_context(cafile=run.ca)
        self.ports = ports

    def imap(self, security, mechanism, response):
        """A logged-in IMAP connection."""
        port = self.ports["imap", security]
        if security == "tls":
            imap = imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=self.tls, timeout=10)
        else:
            imap = imaplib.IMAP4("127.0.0.1", port, timeout=10)
            imap.starttls(self.tls)
        # A refusal comes as a challenge that has to be answered before the tagged NO.
        answers = iter([response, b"\x01"])
        imap.authenticate(mechanism, lambda _: next(answers))
        return imap

    def pop3(self, security, mechanism, response):
        """A logged-in POP3 connection."""
        port = self.ports["pop3", security]
        if security == "tls":
            pop3 = poplib.POP3_SSL("127.0.0.1", port, context=self.tls, timeout=10)
        else:
            pop3 = poplib.POP3("127.0.0.1", port, timeout=10)
            pop3.stls(self.tls)
        answer = pop3._shortcmd(f"AUTH {mechanism} {base64.b64encode(response).decode()}")  # poplib has no AUTH
        if answer.startswith(b"+ "):
            pop3._shortcmd(base64.b64encode(b"\x01").decode())
            raise Failure("POP3 accepts after a refusal")
        return pop3

    def smtp(self, security, mechanism, response):
        """A logged-in SMTP connection."""
        port = self.ports["smtp", security]
        if security == "tls":
            smtp = smtplib.SMTP_SSL("127.0.0.1", port, context=self.tls, timeout=10)
        else:
            smtp = smtplib.SMTP("127.0.0.1", port, timeout=10)
            smtp.starttls(context=self.tls)
        smtp.ehlo()
        code, text = smtp.docmd("AUTH", f"{mechanism} {base64.b64encode(response).decode()}")
        if code == 334:
            code, text = smtp.docmd(base64.b64encode(b"\x01").decode())
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, text)
        return smtp


LOGIN_ERRORS = (imaplib.IMAP4.error, poplib.error_proto, smtplib.SMTPException)


def must_refuse(what, login, *arguments):
    """Fails unless the login is refused in the protocol's words."""
    try:
        login(*arguments)
    except LOGIN_ERRORS:
        return
    raise Failure(f"the servers accept {what}")


class Tokens:
    """Gets tokens as a well-behaved native client does (RFC 8252, RFC 7636)."""

    REDIRECT = "http://127.0.0.1:9/"

    def __init__(self, run, server):
        self._ca, self._server = run.ca, server
        self._tls = ssl.create_default_context(cafile=run.ca)

    def authorize(self, address):
        """A token response for an account, by authorization code."""
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {"response_type": "code", "client_id": "native", "redirect_uri": self.REDIRECT, "scope": SCOPE,
                 "prompt": "consent", "state": state, "code_challenge": challenge, "code_challenge_method": "S256"}
        url = f"{self._server.issuer}/auth?{urllib.parse.urlencode(query)}"
        redirect = urllib.parse.urlsplit(Person(address, self._ca).authorize(url))
        answer = dict(urllib.parse.parse_qsl(redirect.query))
        if answer.get("state") != state or answer.get("iss") != self._server.issuer:
            raise Failure(f"a strange authorization response: {sorted(answer)}")
        return self.request(grant_type="authorization_code", code=answer["code"], code_verifier=verifier,
                            redirect_uri=self.REDIRECT)

    def refresh(self, refresh_token):
        """A token response for a refresh token."""
        return self.request(grant_type="refresh_token", refresh_token=refresh_token)

    def request(self, **fields):
        """One request to the token endpoint, for the client without a secret."""
        body = urllib.parse.urlencode({"client_id": "native", **fields}).encode()
        url = f"{self._server.issuer}/token"
        with urllib.request.urlopen(urllib.request.Request(url, body), context=self._tls, timeout=10) as response:
            return json.load(response)


def tokens_open_mailboxes(world):
    """Both mechanisms, all protocols, TLS and STARTTLS; and a message from Ann to Bob."""
    provider, token = Provider(world.run, world.ports), world.tokens.authorize(ANN)["access_token"]
    for security in ("tls", "starttls"):
        for mechanism in (xoauth2, oauthbearer):
            provider.imap(security, *mechanism(ANN, token)).logout()
            provider.pop3(security, *mechanism(ANN, token)).quit()
            message = new_message(ANN, BOB, kilobytes=4)
            smtp = provider.smtp(security, *mechanism(ANN, token))
            smtp.sendmail(ANN, [BOB], message.content)
            smtp.quit()
            if not world.dovecot.mailbox(BOB).wait_for(message.mark).endswith(message.content):
                raise Failure("the servers change messages")


def foreign_and_dead_tokens_are_refused(world):
    """A token of Ann's does not open Bob's mailbox; an invented, an expired and a revoked one open none."""
    provider, token = Provider(world.run, world.ports), world.tokens.authorize(ANN)["access_token"]
    world.server.set_access_token_seconds(1)
    expired = world.tokens.authorize(ANN)["access_token"]
    world.server.set_access_token_seconds(3600)
    time.sleep(2.1)  # the server counts whole seconds
    for mechanism in (xoauth2, oauthbearer):
        for login in (provider.imap, provider.pop3, provider.smtp):
            must_refuse("a foreign token", login, "tls", *mechanism(BOB, token))
            must_refuse("an invented token", login, "tls", *mechanism(ANN, "invented"))
            must_refuse("an expired token", login, "tls", *mechanism(ANN, expired))
    provider.imap("tls", *xoauth2(ANN, token)).logout()
    world.server.revoke_access_tokens()
    must_refuse("a revoked token", provider.imap, "tls", *xoauth2(ANN, token))


def passwords_are_refused(world):
    """No mechanism and no command accepts a password, not even the access token as one."""
    provider, token = Provider(world.run, world.ports), world.tokens.authorize(ANN)["access_token"]
    plain = ("PLAIN", f"\0{ANN}\0{token}".encode())
    for login in (provider.imap, provider.pop3, provider.smtp):
        must_refuse("AUTH PLAIN", login, "tls", *plain)
    imap = imaplib.IMAP4_SSL("127.0.0.1", world.ports["imap", "tls"], ssl_context=provider.tls, timeout=10)
    must_refuse("IMAP LOGIN", imap.login, ANN, token)
    pop3 = poplib.POP3_SSL("127.0.0.1", world.ports["pop3", "tls"], context=provider.tls, timeout=10)
    must_refuse("POP3 USER", lambda: (pop3.user(ANN), pop3.pass_(token)))
    smtp = smtplib.SMTP_SSL("127.0.0.1", world.ports["smtp", "tls"], context=provider.tls, timeout=10)
    must_refuse("mail without a login", smtp.sendmail, ANN, [BOB], "Subject: no\r\n\r\n")


def spent_refresh_tokens_kill_the_grant(world):
    """The authorization server rotates, and ends the authorization at the second use of a spent refresh token."""
    first = world.tokens.authorize(ANN)["refresh_token"]
    second = world.tokens.refresh(first)["refresh_token"]
    if first == second:
        raise Failure("refresh tokens are not rotated")
    for spent in (first, second):
        try:
            world.tokens.refresh(spent)
        except urllib.error.HTTPError as error:
            if json.load(error)["error"] == "invalid_grant":
                continue
        raise Failure("a grant outlives the second use of a refresh token")


CHECKS = [
    tokens_open_mailboxes, foreign_and_dead_tokens_are_refused, passwords_are_refused, spent_refresh_tokens_kill_the_grant,
]
