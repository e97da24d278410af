"""What an administrator does with the service every day: install, authorize, look, reload, restart, stop."""

import imaplib
import re
import time

import leaks
from process import Failure, is_listening, wait_until
from service import ANN, BOB, SYSTEM, UNIT, every_protocol, expect, login, main_process, restart

SOCKETS = [f"postkey-{protocol}.socket" for protocol in ("imap", "pop3", "smtp")]


def the_installation_starts_nothing(world):
    machine = world.machine
    machine.write("/etc/dpkg/dpkg.cfg.d/fast", "force-unsafe-io\n")
    machine.execute("apt-get", "install", "--yes", "--quiet=2", "/root/previous.deb")
    for unit in [UNIT, *SOCKETS]:
        expect(not machine.is_enabled(unit), f"{unit} is not enabled")
        expect(machine.property(unit, "ActiveState") == "inactive", f"{unit} is not started")
    links = machine.execute("find", "/etc/systemd", "-name", "postkey*")
    expect(not links, f"nothing of it starts at boot or at a user's login: {links}")
    expect(not any(is_listening(port) for port in (1143, 1110, 1587)), "nothing listens")
    expect(machine.uid("postkey"), "the service has its user")
    machine.write("/usr/share/postkey-tests/default.toml", machine.read(SYSTEM))


def the_service_starts_and_says_what_it_does(world):
    world.postkey.configure()
    world.machine.execute("systemctl", "enable", "--now", "--quiet", UNIT)
    for unit in SOCKETS:
        expect(world.machine.is_enabled(unit), f"{unit} is enabled with the service")
        expect(world.machine.property(unit, "ActiveState") == "active", f"{unit} is started with it")
    status = world.machine.status(UNIT)
    for text in ("Active: active (running)", 'Status: "', "man:postkey.toml(5)", "listening on 127.0.0.1:1143 for IMAP"):
        expect(text in status, f"the status contains {text}:\n{status}")


def accounts_are_authorized_while_it_runs(world):
    for address in (ANN, BOB):
        world.accounts[address] = world.postkey.authorize(address)
        every_protocol(world.accounts[address])


PREPARATION = [the_installation_starts_nothing, the_service_starts_and_says_what_it_does, accounts_are_authorized_while_it_runs]


def the_journal_has_a_sentence_for_each_event(world):
    try:
        imaplib.IMAP4("127.0.0.1", 1143).login(ANN, "wrong")
    except imaplib.IMAP4.error:
        pass
    journal = world.machine.journal("--unit", UNIT)
    for sentence in (
        r"listening on \[::1\]:1587 for SMTP with no encryption",
        r"ann@example\.test authorized at test",
        r"ann@example\.test logged in by IMAP from 127\.0\.0\.1 in \d+ ms \(app password \S.*\)",
        r"login of ann@example\.test by IMAP from 127\.0\.0\.1 refused after \d+ ms: \S.*",
        r"POP3 session of bob@example\.test from 127\.0\.0\.1 ended after \d+ s: \S.*",
    ):
        expect(re.search(rf" postkey\[\d+\]: {sentence}$", journal, re.MULTILINE), f"the journal has {sentence}:\n{journal}")
    only_bob = world.machine.journal("--unit", UNIT, f"ACCOUNT={BOB}", "--output=cat")
    expect(only_bob and ANN not in only_bob, f"the field ACCOUNT finds one account:\n{only_bob}")


def nothing_ordinary_is_a_warning(world):
    warnings = world.machine.journal("--unit", UNIT, "--priority=warning", "--identifier=postkey")
    expect(not warnings, f"no warnings:\n{warnings}")


def a_reload_opens_a_port_and_keeps_sessions(world):
    session, before = login(world.accounts[ANN]), main_process(world.machine)
    world.postkey.configure('[[listener]]\nprotocol = "imap"\naddress = "127.0.0.1:2143"\nsecurity = "none"\n')
    world.machine.execute("systemctl", "reload", UNIT)
    login(world.accounts[ANN], 2143).logout()
    status = world.machine.status(UNIT)
    expect("2 accounts" in status, f"the status counts the accounts:\n{status}")
    expect(session.noop()[0] == "OK", "the session goes on")
    session.logout()
    expect(main_process(world.machine) == before, "it is the same process")


def a_reload_with_a_mistake_says_so_and_changes_nothing(world):
    world.machine.write(SYSTEM, "lgo = 'info'\n")
    said = world.machine.execute("systemctl", "reload", UNIT, code=1)
    expect("lgo" in world.machine.journal("--unit", UNIT, "--lines=5"), f"the journal names the mistake:\n{said}")
    expect(world.machine.property(UNIT, "ActiveState") == "active", "the service runs")
    every_protocol(world.accounts[ANN])
    world.postkey.configure()


def a_signal_reloads_it_too(world):
    before = main_process(world.machine)
    world.postkey.configure()
    world.machine.execute("systemctl", "kill", "--signal=HUP", UNIT)
    wait_until(lambda: not is_listening(2143), "the end of the port")
    expect(world.machine.property(UNIT, "ActiveState") == "active", "the service is active after the reload")
    expect(main_process(world.machine) == before, "it is the same process")
    every_protocol(world.accounts[ANN])


def a_restart_ends_sessions_and_loses_nothing(world):
    idle, before = login(world.accounts[ANN]), main_process(world.machine)
    start = time.monotonic()
    restart(world.machine)
    expect(time.monotonic() - start < 5, "an idle session does not hold a restart up")
    expect(main_process(world.machine) != before, "it is another process")
    expect(must_have_ended(idle) == "", "an idle session ends without BYE, because the port stays open")
    for account in world.accounts.values():
        every_protocol(account)


def must_have_ended(session):
    """Fails if a session goes on. Returns what it still hears."""
    try:
        return session.file.read().decode()
    except TimeoutError as error:
        raise Failure("the session goes on") from error
    except OSError:
        return ""


def a_stop_is_clean_and_closes_the_ports(world):
    world.machine.execute("systemctl", "stop", *SOCKETS, UNIT)
    expect(world.machine.property(UNIT, "Result") == "success", "it has ended well")
    expect(not is_listening(1143), "the port is closed")
    journal = world.machine.journal("--unit", UNIT, "--lines=6", "--output=cat").splitlines()
    expect("stopped" in journal, f"the journal says so: {journal}")
    status = world.machine.status(UNIT, code=3)
    expect("Active: inactive (dead)" in status, f"the status says so:\n{status}")
    world.machine.execute("systemctl", "start", UNIT)


def the_machine_boots_with_the_service(world):
    world.machine.power_off()
    world.machine.boot()
    world.machine.wait_for_property(UNIT, "ActiveState", "active")
    every_protocol(world.accounts[BOB])
    failed = world.machine.execute("systemctl", "--failed", "--no-legend", "--plain").strip()
    expect("postkey" not in failed, f"no unit of postkey has failed: {failed}")


def the_journal_contains_no_secret(world):
    journal = world.run.folder / "journal"
    journal.write_text(world.machine.journal("--output=export", "--all"))
    authorized = f"{ANN} authorized at test"
    expect(leaks.search({authorized: "a line"}, world.run.folder, [journal]), "the journal begins before the last boot")
    known = leaks.known_secrets(world)
    expect(len(known) > 8, "there are secrets")
    found = leaks.search(known, world.run.folder, [journal])
    expect(not found, f"no secret is in the journal: {found}")


TESTS = [
    *PREPARATION, the_journal_has_a_sentence_for_each_event, a_reload_opens_a_port_and_keeps_sessions, a_signal_reloads_it_too,
    a_restart_ends_sessions_and_loses_nothing, a_stop_is_clean_and_closes_the_ports, nothing_ordinary_is_a_warning,
    a_reload_with_a_mistake_says_so_and_changes_nothing, the_machine_boots_with_the_service, the_journal_contains_no_secret,
]
