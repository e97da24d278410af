"""What one replica changes, the others know; and a refresh that something interrupts costs nothing."""

import imaplib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from process import Failure, wait_until
from world import LIFE

# A replica that died may have been about to store tokens, so the others wait for 15 seconds before they use the old refresh token.
SETTLED = 20

SOON = 5  # seconds within which a replica has heard of a change


def expect(truth, what):
    """Fails with what was expected."""
    if not truth:
        raise Failure(f"not so: {what}")


def login(replica, account, timeout=40):
    """One IMAP login; imaplib raises if it is refused."""
    imap = imaplib.IMAP4("127.0.0.1", replica.ports["imap"], timeout=timeout)
    imap.login(account.address, account.password)
    return imap


def answer(replica, account):
    """The answer to a login: "ok", or the words of the refusal."""
    try:
        login(replica, account).logout()
    except imaplib.IMAP4.error as error:
        return str(error)
    return "ok"


def is_temporary(words):
    """Whether a refusal is good for another try."""
    return "[UNAVAILABLE]" in words


def wait_for_login(replica, account, seconds=SETTLED):
    """Returns when a login works. Until then it must be refused temporarily."""
    def works():
        words = answer(replica, account)
        expect(words == "ok" or is_temporary(words), f"{account.address} at {replica.name} may try again, but {words}")
        time.sleep(0 if words == "ok" else 0.3)
        return words == "ok"

    wait_until(works, f"a login of {account.address} at {replica.name}", seconds)


def is_open(imap):
    """Whether a session still goes on."""
    try:
        return imap.noop()[0] == "OK"
    except (imaplib.IMAP4.abort, OSError):
        return False


def new_account(world, name):
    """An account that no other test uses."""
    address = f"{name}@example.test"
    return world.authorize([address])[address]


STALE = ("again", "shared", "stopped", "killed", "cut", "restarted", "old")


def prepare(world):
    """Leaves some accounts with access tokens that are too old, and that every replica has used. The next ones live as long as usual."""
    world.provider.ask("life", seconds=12)
    begun = time.monotonic()
    accounts = world.authorize([f"{name}@example.test" for name in STALE])
    for account in accounts.values():
        for replica in world.replicas:
            wait_for_login(replica, account)
    world.provider.ask("life", seconds=LIFE)
    time.sleep(max(0, begun + 13 - time.monotonic()))


def stale_account(world, name):
    """One of them."""
    return world.accounts[f"{name}@example.test"]


def unharmed(world, before):
    """No refresh token was used twice since then, and none made up."""
    report = world.provider.report()
    expect(report["twice"] == before["twice"], f"no token is used twice: {report['twice'][len(before['twice']):]}")
    expect(report["unknown"] == before["unknown"], "every token was issued")


# What the others know

def every_replica_serves_every_account(world):
    account = new_account(world, "everywhere")
    for replica in world.replicas:
        expect(answer(replica, account) == "ok", f"a login at {replica.name}")


def an_app_password_of_one_replica_works_at_the_others_and_its_removal_ends_their_sessions(world):
    one, two, three = world.replicas
    account = new_account(world, "passwords")
    phone = one.add_password(account, "phone")
    for replica in (two, three):
        wait_until(lambda: answer(replica, phone) == "ok", f"the new app password at {replica.name}", SOON)
    sessions, other = [login(replica, phone) for replica in world.replicas], login(two, account)
    one.command("password", "remove", account.address, "phone")
    for replica, session in zip(world.replicas, sessions):
        wait_until(lambda: not is_open(session), f"the end of the session at {replica.name}", SOON)
        expect("AUTHENTICATIONFAILED" in answer(replica, phone), f"the app password is gone at {replica.name}")
    expect(is_open(other), "a session with another app password goes on")
    other.logout()


def a_forgotten_account_is_gone_everywhere(world):
    one, two, three = world.replicas
    account = new_account(world, "forgotten")
    sessions = [login(two, account), login(three, account)]
    one.command("forget", account.address)
    world.accounts.pop(account.address)
    for replica, session in zip((two, three), sessions):
        wait_until(lambda: not is_open(session), f"the end of the session at {replica.name}", SOON)
        expect("AUTHENTICATIONFAILED" in answer(replica, account), f"nobody can log in at {replica.name}")
        expect(account.address not in [entry["address"] for entry in replica.status()["accounts"]], f"{replica.name} does not list it")


def a_new_authorization_counts_everywhere(world):
    one, two, three = world.replicas
    account = stale_account(world, "again")
    token = world.provider.ask("grant", addresses=[account.address])[account.address]
    one.command("authorize", account.address, "--refresh-token-stdin", line=token)
    before = world.provider.report()
    for replica in (two, three):
        wait_for_login(replica, account, SOON)
    unharmed(world, before)


def a_token_of_one_replica_is_used_by_all(world):
    account = stale_account(world, "shared")
    before = world.provider.report()
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda number: answer(world.replicas[number % 3], account), range(30)))
    expect(answers == ["ok"] * 30, f"thirty logins: {set(answers)}")
    after = world.provider.refreshes() - sum(before["refreshes"].values())
    expect(after == 1, f"one refresh, but {after}")
    unharmed(world, before)


# Interrupted refreshes

class Refreshing:
    """A login at a replica whose refresh waits at the authorization server, with its refresh token spent or not."""

    def __init__(self, world, replica, account, spent):
        self._world, self._answers = world, []
        world.provider.ask("hold", spent=spent)
        self._thread = threading.Thread(target=lambda: self._answers.append(self._try(replica, account)), daemon=True)
        self._thread.start()
        # Of this account: another one's refresh may wait, too.
        wait_until(lambda: account.address in world.provider.report()["held"], "a refresh that waits", 10)

    @staticmethod
    def _try(replica, account):
        try:
            return answer(replica, account)
        except OSError as error:
            return f"cut: {error}"

    def release(self):
        """Lets the authorization server answer."""
        self._world.provider.ask("release")

    def answer(self):
        """What the login got."""
        self._thread.join(60)
        expect(self._answers, "the login has an answer")
        return self._answers[0]


def a_replica_that_is_stopped_with_the_answer_on_the_wire_keeps_its_token(world):
    _, two, three = world.replicas
    account = stale_account(world, "stopped")
    before, refreshing = world.provider.report(), Refreshing(world, two, account, spent=True)
    two.suspend()
    try:
        refreshing.release()
        words = answer(three, account)  # takes longer than the limit for the authorization server's answer
        expect(is_temporary(words), f"meanwhile the others refuse temporarily: {words}")
    finally:
        two.resume()
    words = refreshing.answer()
    expect(words == "ok", f"its login works: {words}")
    wait_for_login(three, account)
    unharmed(world, before)


def a_replica_that_is_killed_before_its_token_is_spent_costs_nothing(world):
    one, two, three = world.replicas
    account = stale_account(world, "killed")
    before, refreshing = world.provider.report(), Refreshing(world, two, account, spent=False)
    two.kill()
    refreshing.release()
    begun = time.monotonic()
    wait_for_login(three, account)
    waited = time.monotonic() - begun
    expect(waited > 5, f"the others wait until the killed one cannot store any more, and not {waited:.0f} s")
    two.start()
    wait_for_login(two, account)
    unharmed(world, before)


def a_token_that_arrives_while_the_network_is_cut_is_stored_later(world):
    _, two, three = world.replicas
    account = stale_account(world, "cut")
    before, refreshing = world.provider.report(), Refreshing(world, two, account, spent=True)
    two.network.cut()
    try:
        refreshing.release()
        words = answer(three, account)
        expect(is_temporary(words), f"meanwhile the others refuse temporarily: {words}")
    finally:
        two.network.restore()
    words = refreshing.answer()
    expect(words == "ok" or is_temporary(words), f"its login works, or may be tried again: {words}")
    for replica in world.replicas:
        wait_for_login(replica, account)
    unharmed(world, before)


def a_token_that_arrives_while_the_database_restarts_is_stored_later(world):
    one, two, three = world.replicas
    account = stale_account(world, "restarted")
    before, refreshing = world.provider.report(), Refreshing(world, two, account, spent=True)
    world.database.stop("immediate")
    refreshing.release()
    time.sleep(1)
    world.database.start()
    words = refreshing.answer()
    expect(words == "ok" or is_temporary(words), f"its login works, or may be tried again: {words}")
    for replica in (three, two, one):
        wait_for_login(replica, account)
    unharmed(world, before)


# The database is away

def without_the_database_what_is_known_goes_on(world):
    one, two, _ = world.replicas
    (known, unseen), old = (new_account(world, name) for name in ("known", "unseen")), stale_account(world, "old")
    for account in (known, unseen):
        wait_for_login(one, account)
    phone = one.add_password(known, "phone")
    before = world.provider.report()
    world.database.stop()
    try:
        expect(answer(one, known) == "ok", "a known password with a living token")
        expect(answer(two, unseen) == "ok", "a password that this replica has not seen, with a token of another one")
        words = answer(one, old)
        expect(is_temporary(words), f"a refresh has to wait: {words}")
        expect("AUTHENTICATIONFAILED" in answer(two, known.__class__(known.address, "wrong password")), "a wrong password is wrong")
        for replica in world.replicas:
            wait_until(lambda: replica.metric("postkey_vault_degraded") == 1, f"the metric of {replica.name}", 15)
            replica.command("status", "--exit-code", code=74)
            expect("degraded" in replica.health(), f"/health of {replica.name} says so, and asks for no restart")
        expect(re.search("postgres|database", one.command("status"), re.IGNORECASE), "status says so")
        printed = one.command("password", "remove", known.address, "phone", fails=True)
        expect(re.search("postgresql|database", printed, re.IGNORECASE), f"a change fails, and says why: {printed}")
        expect(answer(one, phone) == "ok", "it has changed nothing")
        spent = world.provider.refreshes() - sum(before["refreshes"].values())
        expect(spent == 0, f"nothing is spent, but {spent}")
    finally:
        world.database.start()
    for replica in world.replicas:
        wait_until(lambda: replica.metric("postkey_vault_degraded") == 0, f"the metric of {replica.name} afterwards", 30)
        expect("degraded" not in replica.health(), f"/health of {replica.name} says that all is well")
    wait_for_login(one, old, 60)
    unharmed(world, before)


def a_login_with_a_known_password_and_a_living_token_asks_the_database_nothing(world):
    replica, account = world.replicas[0], new_account(world, "quiet")
    wait_for_login(replica, account)
    time.sleep(1)  # what the login has taught the vault is written
    replica.network.cut()
    try:
        begun = time.monotonic()
        answers = {answer(replica, account) for _ in range(20)}
        took = time.monotonic() - begun
    finally:
        replica.network.restore()
    expect(answers == {"ok"} and took < 5, f"twenty logins without a network to the database: {answers}, {took:.1f} s")


KNOWLEDGE = [
    every_replica_serves_every_account, an_app_password_of_one_replica_works_at_the_others_and_its_removal_ends_their_sessions,
    a_forgotten_account_is_gone_everywhere, a_new_authorization_counts_everywhere, a_token_of_one_replica_is_used_by_all,
    a_login_with_a_known_password_and_a_living_token_asks_the_database_nothing,
]

INTERRUPTIONS = [
    a_replica_that_is_stopped_with_the_answer_on_the_wire_keeps_its_token,
    a_replica_that_is_killed_before_its_token_is_spent_costs_nothing,
    a_token_that_arrives_while_the_network_is_cut_is_stored_later,
    a_token_that_arrives_while_the_database_restarts_is_stored_later,
    without_the_database_what_is_known_goes_on,
]
