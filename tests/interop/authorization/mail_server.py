"""Dovecot as the mail server of one authorization server: a token is valid if that server's userinfo knows its owner."""

import os

from dovecot_settings import COMMON, INTROSPECTION_2_3, MAIL_UID, QUICK, VERSION_2_3, login_service
from introspection import Introspection
from process import free_port


class MailServer:
    """IMAP with TLS on `port`."""

    def __init__(self, run, server):
        folder = run.subfolder(f"mail-{server.name}")
        self.port = free_port()
        (folder / "mail").mkdir()
        os.chown(folder / "mail", MAIL_UID, MAIL_UID)
        introspection = INTROSPECTION_2_3.format(introspection=Introspection(run, server.userinfo).url, attribute="sub")
        (folder / "introspection.conf").write_text(introspection)
        configuration = folder / "dovecot.conf"
        text = (COMMON + VERSION_2_3 + QUICK).format(
            folder=folder, mail=folder / "mail", name=server.name, certificate=run.certificate, key=run.key, uid=MAIL_UID,
            limit=1000)
        configuration.write_text("protocols = imap\n" + text + login_service("imap", 0, self.port))
        self.folder, self.log = folder, folder / "log"
        self.process = run.start(f"dovecot-{server.name}", ["dovecot", "-F", "-c", str(configuration)])
        self.process.wait_for_ports(self.port)
