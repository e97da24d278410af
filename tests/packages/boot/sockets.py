"""Socket units, ports below 1024, encrypted credentials, and services of users."""

import re

from everyday import SOCKETS
from process import is_listening, wait_until
from repeating import Repeating
from service import ANN, BOB, UNIT, Postkey, drop_in, every_protocol, expect, login, main_process, restart

LOW = {"imap": 143, "pop3": 110, "smtp": 587}


def a_service_that_was_enabled_alone_gets_the_socket_units(world):
    """As version 0.1.0 has enabled it; by the commands of docs/guide/systemd.md."""
    machine = world.machine
    machine.execute("systemctl", "disable", "--quiet", "--now", *SOCKETS)
    restart(machine)
    every_protocol(world.accounts[ANN])
    machine.execute("systemctl", "reenable", "--quiet", UNIT)
    restart(machine)
    for unit in SOCKETS:
        expect(machine.is_enabled(unit), f"{unit} is enabled")
        expect(machine.property(unit, "ActiveState") == "active", f"{unit} is started")
    every_protocol(world.accounts[ANN])


def a_socket_without_a_listener_is_named_with_its_unit(world):
    machine = world.machine
    world.postkey.configure('[[listener]]\nprotocol = "imap"\naddress = ["127.0.0.1:1143", "[::1]:1143"]\n', ports={})
    machine.execute("systemctl", "restart", UNIT, code=1)
    expect(machine.property(UNIT, "ExecMainStatus") == "78", "that is a mistake in the configuration")
    errors = machine.journal("--unit", UNIT, "--priority=err", "--lines=5")
    advised = re.search(r"`systemctl disable --now (postkey-\w+\.socket)`", errors)
    expect(advised and advised[1] in SOCKETS, f"the journal says what to do:\n{errors}")
    machine.execute("systemctl", "disable", "--quiet", "--now", "postkey-pop3.socket", "postkey-smtp.socket")
    machine.execute("systemctl", "reset-failed", UNIT)
    machine.execute("systemctl", "start", UNIT)
    login(world.accounts[ANN]).logout()


def a_port_below_1024_needs_a_socket_unit(world):
    machine = world.machine
    machine.execute("systemctl", "disable", "--quiet", "--now", *SOCKETS)
    world.postkey.configure(ports=LOW)
    machine.execute("systemctl", "restart", UNIT, code=1)
    errors = machine.journal("--unit", UNIT, "--priority=err", "--lines=5")
    machine.execute("systemctl", "stop", UNIT)
    machine.execute("systemctl", "reset-failed", UNIT)
    expect(" postkey[" in errors and "]: cannot listen on 127.0.0.1:143 for IMAP" in errors, f"the journal says why:\n{errors}")
    expect("postkey-*.socket" in errors, f"and what to do:\n{errors}")


def a_connection_to_a_socket_starts_the_service(world):
    machine = world.machine
    for protocol, port in LOW.items():
        drop_in(machine, f"postkey-{protocol}.socket", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n")
    machine.execute("systemctl", "enable", "--quiet", "--now", *SOCKETS)
    expect(machine.property(UNIT, "ActiveState") == "inactive", "the service waits for a connection")
    every_protocol(world.accounts[ANN], LOW)
    expect(machine.property(UNIT, "ActiveState") == "active", "the connection has started it")
    status = machine.read_process(main_process(machine), "status")
    expect(re.search(rf"^Uid:\t{machine.uid('postkey')}\t", status, re.MULTILINE), "it runs as its own user")
    expect(re.search(r"^CapEff:\t0+$", status, re.MULTILINE), "it has no privileges")


class Logins(Repeating):
    """A mail program that logs in again and again, and notes what goes wrong."""

    def __init__(self, account, port):
        super().__init__(0.01)
        self._account, self._port = account, port
        self.succeeded, self.refused, self.cut_off = 0, [], 0

    def step(self):
        """Logs in once."""
        try:
            login(self._account, self._port).logout()
            self.succeeded += 1
        except Exception as error:
            self._note(error)

    def _note(self, error):
        """A connection that postkey had accepted before it stopped is told so; every program tries again."""
        if "stopping" in str(error):
            self.cut_off += 1
        else:
            self.refused.append(repr(error))


def no_connection_is_refused_while_it_restarts(world):
    with Logins(world.accounts[ANN], LOW["imap"]) as logins:
        for _ in range(3):
            restart(world.machine)
            before = logins.succeeded
            wait_until(lambda: logins.succeeded > before, "a login after the restart")
    expect(not logins.refused, f"nothing is refused: {logins.refused}")
    expect(logins.cut_off <= 3, f"at most one login for each restart is cut off, not {logins.cut_off}")


def a_secret_comes_from_an_encrypted_credential(world):
    machine = world.machine
    machine.execute("systemd-creds", "encrypt", "--with-key=host", "--name=client-secret", "-", "/etc/postkey/client-secret.cred",
                    stdin=world.server.client_secret)
    take_back = drop_in(machine, UNIT, "[Service]\nLoadCredentialEncrypted=client-secret:/etc/postkey/client-secret.cred\n")
    try:
        world.postkey.configure('[account."bob@example.test"]\nclient_id = "confidential"\n'
                                'client_secret = { credential = "client-secret" }\n', ports=LOW)
        restart(machine)
        answered = world.server.counts()["authorization_code"]
        world.postkey.authorize(BOB)
        expect(world.server.counts()["authorization_code"] == answered + 1, "the authorization server has accepted the secret")
        every_protocol(world.accounts[BOB], LOW)
    finally:
        take_back()


def a_user_has_a_service_of_its_own(world):
    """Without a login of the user, because it lingers."""
    machine = world.machine
    machine.execute("systemctl", "stop", *SOCKETS, UNIT)
    machine.execute("useradd", "--create-home", "--user-group", "mia")
    machine.execute("loginctl", "enable-linger", "mia")
    machine.wait_for_property(f"user@{machine.uid('mia')}.service", "ActiveState", "active")
    service = Postkey(world, "/home/mia/.config/postkey/postkey.toml", user="mia")
    service.configure()
    machine.execute("chown", "--recursive", "mia:mia", "/home/mia/.config")
    machine.execute("systemctl", "--user", "enable", "--now", "--quiet", UNIT, user="mia")
    account = service.authorize(ANN)
    every_protocol(account)
    expect(machine.has("/home/mia/.local/state/postkey"), "the vault is in the home folder")
    machine.execute("systemctl", "--user", "reload", UNIT, user="mia")
    machine.execute("systemctl", "--user", "restart", UNIT, user="mia")
    every_protocol(account)
    world.users_account = account


def the_users_service_starts_at_boot(world):
    machine = world.machine
    machine.execute("systemctl", "--quiet", "disable", *SOCKETS, UNIT)
    machine.power_off()
    machine.boot()
    wait_until(lambda: is_listening(1143), "the port of the user's service")
    every_protocol(world.users_account)
    machine.execute("loginctl", "disable-linger", "mia")
    wait_until(lambda: not is_listening(1143), "the end of the user's service")
    machine.execute("systemctl", "--quiet", "enable", *SOCKETS, UNIT)
    machine.execute("systemctl", "start", *SOCKETS, UNIT)


TESTS = [
    a_service_that_was_enabled_alone_gets_the_socket_units, a_socket_without_a_listener_is_named_with_its_unit,
    a_port_below_1024_needs_a_socket_unit, a_connection_to_a_socket_starts_the_service, no_connection_is_refused_while_it_restarts,
    a_secret_comes_from_an_encrypted_credential, a_user_has_a_service_of_its_own, the_users_service_starts_at_boot,
]
