"""What systemd does when the service fails, and what an administrator sees of it."""

import imaplib
import re
import socket

from everyday import SOCKETS
from process import Failure, wait_until
from service import ANN, BOB, SYSTEM, UNIT, drop_in, every_protocol, expect, login, main_process, restart


def restarted(machine, before):
    """Waits until another process serves."""
    def is_another():
        return machine.property(UNIT, "MainPID") not in ("0", str(before)) and machine.property(UNIT, "ActiveState") == "active"

    wait_until(is_another, "the restart of the service", 30)


def a_killed_service_is_restarted(world):
    before = main_process(world.machine)
    world.machine.execute("systemctl", "kill", "--signal=KILL", UNIT)
    restarted(world.machine, before)
    expect(world.machine.property(UNIT, "NRestarts") == "1", "systemd counts the restart")
    for account in world.accounts.values():
        every_protocol(account)


def the_watchdog_restarts_a_service_that_hangs(world):
    take_back = drop_in(world.machine, UNIT, "[Service]\nWatchdogSec=2\n")
    try:
        restart(world.machine)
        every_protocol(world.accounts[ANN])
        before = main_process(world.machine)
        world.machine.execute("systemctl", "kill", "--signal=STOP", UNIT)
        restarted(world.machine, before)
        expect("Watchdog timeout" in world.machine.journal("--unit", UNIT, "--lines=40"), "systemd says why")
        for account in world.accounts.values():
            every_protocol(account)
        damaged = world.machine.execute("postkey", "status")
        expect("damaged" not in damaged, f"nothing in the vault is damaged:\n{damaged}")
    finally:
        take_back()
        restart(world.machine)


def memory_beyond_the_limit_ends_the_service_alone(world):
    """Deriving a key from a chosen password takes 64 MiB; this limit has no room for it."""
    chosen = world.postkey.authorize("carol@example.test", "--password-stdin", line="chosen by carol")
    world.machine.delegate_memory()
    take_back = drop_in(world.machine, UNIT, "[Service]\nMemoryMax=40M\n")
    try:
        restart(world.machine)
        before = main_process(world.machine)
        must_be_cut_off(chosen)
        restarted(world.machine, before)
        journal = world.machine.journal("--unit", UNIT, "--lines=40")
        # With version 1 of control groups systemd does not hear the reason.
        expect("oom-kill" in journal or "status=9/KILL" in journal, f"the kernel has killed it:\n{journal}")
        for account in world.accounts.values():
            every_protocol(account)
    finally:
        take_back()
        restart(world.machine)


def must_be_cut_off(account):
    """A login that gets no answer."""
    try:
        login(account)
    except (imaplib.IMAP4.abort, OSError):
        return
    raise Failure("the login has an answer")


def a_mistake_in_the_configuration_ends_it_for_good(world):
    world.machine.write(SYSTEM, "lgo = 'info'\n")
    ends_for_good(world, 78, "lgo")
    world.postkey.configure()
    world.machine.execute("systemctl", "start", UNIT)
    every_protocol(world.accounts[BOB])


def a_mistake_in_the_command_line_ends_it_for_good(world):
    take_back = drop_in(world.machine, UNIT, "[Service]\nExecStart=\nExecStart=/usr/bin/postkey --cnofig /etc/postkey/postkey.toml\n")
    try:
        ends_for_good(world, 64, "--cnofig")
    finally:
        take_back()
        world.machine.execute("systemctl", "start", UNIT)


def ends_for_good(world, code, named):
    """A restart fails with this code and is not tried again; `status` shows why."""
    world.machine.execute("systemctl", "reset-failed", UNIT)
    world.machine.execute("systemctl", "restart", UNIT, code=1)
    world.machine.wait_for_property(UNIT, "ActiveState", "failed")
    expect(world.machine.property(UNIT, "ExecMainStatus") == str(code), f"the exit code is {code}")
    expect(world.machine.property(UNIT, "NRestarts") == "0", "systemd does not try again")
    status = world.machine.status(UNIT, code=3)
    # The status shows the command line, too.
    said = [line for line in status.splitlines() if re.search(r" postkey\[\d+\]: ", line)]
    expect(any(named in line for line in said), f"the program's last words in the status name {named}:\n{status}")


def a_crash_loop_ends_after_ten_starts(world):
    machine = world.machine
    take_back = drop_in(machine, UNIT, "[Service]\nRestartSec=100ms\n")
    machine.execute("systemctl", "stop", *SOCKETS, UNIT)
    machine.execute("systemctl", "reset-failed", UNIT)
    try:
        with socket.create_server(("127.0.0.1", 1143)):
            machine.execute("systemctl", "start", UNIT, code=1)
            machine.wait_for_property(UNIT, "ActiveState", "failed", 30)
            expect(machine.property(UNIT, "ExecMainStatus") == "71", "the exit code says that the system refuses")
            expect(int(machine.property(UNIT, "NRestarts")) <= 10, "systemd has tried at most ten times")
            journal = machine.journal("--unit", UNIT, "--lines=10")
            for text in ("cannot listen on 127.0.0.1:1143", "Start request repeated too quickly"):
                expect(text in journal, f"the journal contains {text}:\n{journal}")
    finally:
        take_back()
        # The sockets, too: the one whose port was taken was started with each of the ten, which is more than systemd allows.
        machine.execute("systemctl", "reset-failed", UNIT, *SOCKETS)
        machine.execute("systemctl", "start", UNIT)
    every_protocol(world.accounts[ANN])


def refused(account):
    """The text of a refused login."""
    try:
        login(account)
    except imaplib.IMAP4.error as error:
        return str(error)
    raise Failure("the login is accepted")


def an_ended_authorization_is_seen_without_looking_for_it(world):
    """The authorization server loses all that it knows."""
    world.run.stop(world.server.process)
    world.server.start()
    machine = world.machine
    restart(machine)
    refusal = refused(world.accounts[ANN])
    expect("postkey authorize" in refusal, f"the mail program is told what to do: {refusal}")
    found = machine.journal("MESSAGE_ID=e6c40c79aa3e42549853498eea3870b1", "--output=cat")
    expect(f"authorization of {ANN} ended" in found, f"its MESSAGE_ID finds it: {found}")
    wait_until(lambda: ANN in machine.status(UNIT), "the account in the status")
    machine.execute("postkey", "status", "--exit-code", code=77)
    for address in world.accounts:
        world.postkey.authorize(address)
        every_protocol(world.accounts[address])


TESTS = [
    a_killed_service_is_restarted, the_watchdog_restarts_a_service_that_hangs, memory_beyond_the_limit_ends_the_service_alone,
    a_mistake_in_the_configuration_ends_it_for_good, a_mistake_in_the_command_line_ends_it_for_good,
    a_crash_loop_ends_after_ten_starts, an_ended_authorization_is_seen_without_looking_for_it,
]
