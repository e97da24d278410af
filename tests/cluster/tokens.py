"""The provider's access tokens, which its mail servers can read without asking its authorization server."""

import base64
import binascii
import hashlib
import hmac
import time

PROTOCOLS = ("imap", "pop3", "smtp")


class AccessTokens:
    """Makes and reads tokens: a number, the owner and the expiry, signed with a secret of the provider's."""

    def __init__(self, secret):
        self._secret = secret.encode()

    def make(self, number, owner, expires):
        """A new token."""
        content = f"{number} {owner} {expires:.3f}".encode()
        return base64.urlsafe_b64encode(self._signature(content) + content).decode()

    def number(self, owner, token):
        """The number of a token that opens this owner's mailbox now; None if it does not."""
        try:
            decoded = base64.urlsafe_b64decode(token)
        except binascii.Error:
            return None
        signature, content = decoded[:32], decoded[32:]
        if not hmac.compare_digest(signature, self._signature(content)):
            return None
        number, its_owner, expires = content.decode().split(" ")
        return int(number) if its_owner == owner and time.time() < float(expires) else None

    def _signature(self, content):
        return hmac.digest(self._secret, content, hashlib.sha256)
