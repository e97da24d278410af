"""Real proxies between postkey and its provider: tinyproxy for HTTP CONNECT, microsocks for SOCKS 5, both with a login.

They receive addresses here, because the provider's servers have no names. The tests with our own proxy send names.
"""

import imaplib
import poplib
import smtplib
from contextlib import contextmanager

from life import ANN, expect, expire_access_token, login, refreshes
from process import free_port, write_private

USER, PASSWORD = "office", "p-ss_w0rd"

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
BasicAuth {user} {password}
LogLevel Connect
"""


def start_tinyproxy(world, port):
    """An HTTP proxy."""
    file = write_private(world.run.folder / "tinyproxy.conf", TINYPROXY.format(port=port, user=USER, password=PASSWORD))
    return world.run.start("tinyproxy", ["tinyproxy", "-d", "-c", str(file)])


def start_microsocks(world, port):
    """A SOCKS 5 proxy."""
    return world.run.start("microsocks", ["microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", PASSWORD])


@contextmanager
def behind(world, scheme, start, password=PASSWORD):
    """Meanwhile, the way to the provider leads through this proxy."""
    port = free_port()
    process = start(world, port)
    process.wait_for_ports(port)
    file = write_private(world.run.folder / "proxy.password", password)
    head = f'proxy = "{scheme}://127.0.0.1:{port}"\nproxy_user = "{USER}"\nproxy_password = {{ file = "{file}" }}\n'
    try:
        with world.postkey.configured(head):
            yield process
    finally:
        world.run.stop(process)


def everything_goes_through(world, scheme, start, port_in_log):
    """Each protocol, and a token request, are in the proxy's log."""
    account = world.accounts[ANN]
    with behind(world, scheme, start) as proxy:
        expire_access_token(world, account)
        before = refreshes(world)
        login(world, account).logout()
        expect(refreshes(world) == before + 1, "one refresh")
        listeners = world.postkey.listeners()
        pop = poplib.POP3("127.0.0.1", listeners["pop3", "none"].port, timeout=30)
        pop.user(account.address)
        pop.pass_(account.password)
        pop.quit()
        smtp = smtplib.SMTP("127.0.0.1", listeners["smtp", "none"].port, timeout=30)
        smtp.login(account.address, account.password)
        smtp.quit()
        log = proxy.log.read_text("utf-8", "replace")
        servers = [world.ports[protocol, "tls"] for protocol in ("imap", "pop3", "smtp")]
        token_endpoint = int(world.server.issuer.split(":")[2].split("/")[0])
        for port in [*servers, token_endpoint]:
            expect(port_in_log.format(port) in log, f"port {port} in the log of the proxy:\n{log}")
    with behind(world, scheme, start, "wrong"):
        try:
            login(world, account)
        except imaplib.IMAP4.error as error:
            expect("proxy_password" in str(error), str(error))
        else:
            expect(False, "it reports a wrong password for the proxy")
    login(world, account).logout()


def mail_and_tokens_go_through_tinyproxy(world):
    everything_goes_through(world, "http", start_tinyproxy, ":{} ")


def mail_and_tokens_go_through_microsocks(world):
    everything_goes_through(world, "socks5", start_microsocks, ":{}\n")


TESTS = [mail_and_tokens_go_through_tinyproxy, mail_and_tokens_go_through_microsocks]
