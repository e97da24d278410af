"""An upgrade with sessions open, a removal, a return, and a purge."""

from everyday import SOCKETS, must_have_ended
from process import is_listening, wait_until
from service import ANN, BOB, SYSTEM, UNIT, every_protocol, expect, login, main_process, restart
from sockets import LOW, Logins


def installed(machine):
    """The version of the installed package."""
    return machine.execute("dpkg-query", "--show", "--showformat=${Version}", "postkey")


def an_upgrade_refuses_nobody_and_loses_nothing(world):
    machine = world.machine
    world.postkey.configure(ports=LOW)
    restart(machine)
    configuration, older, before = machine.read(SYSTEM), installed(machine), main_process(machine)
    open_session = login(world.accounts[BOB], LOW["imap"])
    with Logins(world.accounts[ANN], LOW["imap"]) as logins:
        wait_until(lambda: logins.succeeded, "a login before the upgrade")
        machine.execute("apt-get", "install", "--yes", "--quiet=2", "/root/new.deb")
        succeeded = logins.succeeded
        wait_until(lambda: logins.succeeded > succeeded, "a login after the upgrade")
    expect(installed(machine) != older, "the package is a newer one")
    expect(main_process(machine) != before, "the new program runs")
    expect(machine.read(SYSTEM) == configuration, "the configuration is as it was")
    expect(must_have_ended(open_session) == "", "an idle session ends without BYE, because the port stays open")
    expect(not logins.refused and logins.cut_off <= 1, f"nothing is refused: {logins.refused}, {logins.cut_off} cut off")
    for account in world.accounts.values():
        every_protocol(account, LOW)


def an_upgrade_starts_no_service_that_was_stopped(world):
    machine = world.machine
    machine.execute("systemctl", "stop", *SOCKETS, UNIT)
    machine.execute("apt-get", "install", "--yes", "--quiet=2", "--reinstall", "/root/new.deb")
    for unit in [UNIT, *SOCKETS]:
        expect(machine.property(unit, "ActiveState") == "inactive", f"{unit} is not started")
    machine.execute("systemctl", "start", *SOCKETS, UNIT)


def a_removal_stops_it_and_keeps_what_it_knows(world):
    machine = world.machine
    machine.execute("apt-get", "remove", "--yes", "--quiet=2", "postkey")
    for port in LOW.values():
        expect(not is_listening(port), f"port {port} is closed")
    loaded = machine.execute("systemctl", "list-units", "--all", "--no-legend", "--plain", "postkey*")
    expect(not loaded.strip(), f"systemd knows no unit of it: {loaded}")
    expect(machine.has("/var/lib/postkey") and machine.has(SYSTEM), "the vault and the configuration are still there")


def it_comes_back_with_its_accounts(world):
    machine = world.machine
    machine.execute("apt-get", "install", "--yes", "--quiet=2", "/root/new.deb")
    machine.execute("systemctl", "enable", "--quiet", "--now", *SOCKETS, UNIT)
    for account in world.accounts.values():
        every_protocol(account, LOW)


def a_purge_leaves_nothing(world):
    machine = world.machine
    machine.execute("apt-get", "purge", "--yes", "--quiet=2", "postkey")
    for path in ("/etc/postkey", "/var/lib/postkey", "/var/log/postkey", "/run/postkey", "/usr/bin/postkey"):
        expect(not machine.has(path), f"{path} is gone")
    expect(machine.uid("postkey") is None, "the user is gone")
    for port in LOW.values():
        expect(not is_listening(port), f"port {port} is closed")
    links = machine.execute("find", "/etc/systemd", "-name", "postkey*", "-type", "l")
    expect(not links, f"no link starts a unit: {links}")
    failed = machine.execute("systemctl", "--failed", "--no-legend", "--plain").strip()
    expect("postkey" not in failed, f"no unit is left as failed: {failed}")


TESTS = [
    an_upgrade_refuses_nobody_and_loses_nothing, an_upgrade_starts_no_service_that_was_stopped,
    a_removal_stops_it_and_keeps_what_it_knows, it_comes_back_with_its_accounts, a_purge_leaves_nothing,
]
