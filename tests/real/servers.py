"""The provider's servers, which every world has."""

from authorization_server import AuthorizationServer
from dovecot import Dovecot
from postfix import Submission


class Servers:
    """An authorization server, Dovecot and Postfix, which know each other, and the ports of the mail servers."""

    def __init__(self, run):
        self.run = run
        self.server = AuthorizationServer(run)
        self.dovecot = Dovecot(run, self.server.introspection_url)
        self.submission = Submission(run, self.dovecot)
        self.ports = {**self.dovecot.ports, **self.submission.ports}
