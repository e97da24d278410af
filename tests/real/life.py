"""The life of an account: authorization, expiry, revocation, rotation, outages, restarts, removal."""

import imaplib
import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

from clients import RECIPIENT, below_trace
from message import new_message
from person import Person
from postfix import Relay
from postkey import Account
from process import Failure, wait_until, write_private

ANN, BOB, CAROL, DAVE = (f"{name}@example.test" for name in ("ann", "bob", "carol", "dave"))
STARTTLS_ANN = "ann@starttls.test"


def expect(truth, what):
    """Fails with what was expected."""
    if not truth:
        raise Failure(f"not so: {what}")


def login(world, account, protocol="imap"):
    """One IMAP login on the listener without TLS, as a client does it; imaplib raises if it is refused."""
    imap = imaplib.IMAP4("127.0.0.1", world.postkey.listeners()[protocol, "none"].port, timeout=30)
    imap.login(account.address, account.password)
    return imap


def must_be_refused(world, account):
    """Fails unless the login is refused. Returns the text of the refusal."""
    try:
        login(world, account)
    except imaplib.IMAP4.error as error:
        return str(error)
    raise Failure(f"{account.address} can log in")


def refreshes(world):
    """How many refresh requests the authorization server has answered."""
    return world.server.counts()["refresh_token"]


def clients_accounts(world):
    """The accounts that the clients use: one provider with TLS, and one with STARTTLS."""
    return [world.accounts[address] for address in (ANN, STARTTLS_ANN) if address in world.accounts]


# Authorization

def status_shows_no_listener_while_no_daemon_runs(world):
    expect(world.postkey.listeners() == {}, "no listeners")


def an_account_is_authorized_before_the_daemon_runs(world):
    world.accounts[ANN] = world.postkey.authorize(ANN, Person(ANN, world.run.ca))


def the_daemon_starts_and_opens_every_listener(world):
    world.postkey.start()
    listeners = world.postkey.listeners()
    expect(len(listeners) == 9 and all(listener.port for listener in listeners.values()), "nine listeners with ports")


def an_account_is_authorized_while_the_daemon_runs(world):
    world.accounts[STARTTLS_ANN] = world.postkey.authorize(STARTTLS_ANN, Person(STARTTLS_ANN, world.run.ca))


def the_redirect_can_be_pasted(world):
    world.accounts[BOB] = world.postkey.authorize(BOB, Person(BOB, world.run.ca), paste=True)


def confidential(world):
    """The options of an account whose client has a secret."""
    secret = write_private(world.run.folder / "client-secret", world.server.client_secret + "\n")
    return "--client-id", "confidential", "--client-secret-file", str(secret)


def a_client_with_a_secret_is_authorized(world):
    world.accounts[CAROL] = world.postkey.authorize(CAROL, Person(CAROL, world.run.ca), *confidential(world))
    login(world, world.accounts[CAROL]).logout()


def a_chosen_password_works(world):
    password = secrets.token_urlsafe(16)
    world.accounts[DAVE] = world.postkey.authorize(DAVE, Person(DAVE, world.run.ca), "--password-stdin", line=password)
    login(world, world.accounts[DAVE]).logout()


def to_authorize_again_changes_no_password(world):
    shown = world.postkey.authorize(BOB, Person(BOB, world.run.ca))
    expect(shown is None, "no new password")
    login(world, world.accounts[BOB]).logout()


def the_wrong_person_in_the_browser_is_noticed_and_can_be_corrected(world):
    answered = world.server.counts()["authorization_code"]
    world.postkey.authorize(DAVE, [Person(BOB, world.run.ca), Person(DAVE, world.run.ca)])
    expect("bob@example.test has signed in, not dave@example.test" in world.postkey.printed[-1], "the command says so")
    expect(world.server.counts()["authorization_code"] == answered + 2, "both have signed in, and Dave was the second")
    login(world, world.accounts[DAVE]).logout()


def a_person_chooses_the_provider_that_nothing_tells(world):
    asked = world.postkey.choose_provider("eve@elsewhere.test", "nonsense\ndiscovered")
    expect("Which one is it?" in asked and re.search(r"^ +\d+  discovered$", asked, re.MULTILINE), f"a list: {asked}")
    expect("enter a number" in asked, f"it reports an invalid answer: {asked}")
    expect(f"\n  {world.server.issuer}/auth?" in asked, f"then it continues: {asked}")


def an_issuer_is_all_that_has_to_be_known(world):
    for name in ("ann", "bob"):
        address = f"{name}@discovered.test"
        account = world.postkey.authorize(address, Person(address, world.run.ca))
        imap = login(world, account)
        expect(imap.select("INBOX")[0] == "OK", "the mailbox is open")
        imap.logout()
        world.accounts[address] = account
    registered = world.server.registered()
    expect(len(registered) == 1, f"postkey has registered itself once: {registered}")
    expect(registered[0] in world.postkey.printed[-2], "and says under which name")


def every_account_is_ready(world):
    states = {entry["address"]: entry["state"] for entry in world.postkey.status()["accounts"]}
    expect(states == dict.fromkeys((ANN, STARTTLS_ANN, BOB, CAROL, DAVE), "ready"), f"five accounts are ready, but {states}")


AUTHORIZATION = [
    status_shows_no_listener_while_no_daemon_runs, an_account_is_authorized_before_the_daemon_runs,
    the_daemon_starts_and_opens_every_listener, an_account_is_authorized_while_the_daemon_runs, the_redirect_can_be_pasted,
    a_client_with_a_secret_is_authorized, a_chosen_password_works, to_authorize_again_changes_no_password,
    the_wrong_person_in_the_browser_is_noticed_and_can_be_corrected, every_account_is_ready,
    an_issuer_is_all_that_has_to_be_known, a_person_chooses_the_provider_that_nothing_tells,
]


# Tokens

def expire_access_token(world, account):
    """Leaves the account with an access token that has really expired; the next one lives for an hour."""
    # If a session of the account is still open, postkey may refresh the token ahead. It checks only every 15 to 20 seconds.
    for _ in range(3):
        world.server.set_access_token_seconds(3)
        world.postkey.authorize(account.address, Person(account.address, world.run.ca))
        world.server.set_access_token_seconds(3600)
        before = refreshes(world)
        time.sleep(4.1)  # the server counts whole seconds
        if refreshes(world) == before:
            return
    raise Failure("each token of three seconds was refreshed before it expired")


def fifty_logins(world, account):
    """Logs in fifty times at once. All of them have to work."""
    port = world.postkey.listeners()["imap", "none"].port

    def one(_):
        imap = imaplib.IMAP4("127.0.0.1", port, timeout=60)
        imap.login(account.address, account.password)
        imap.logout()

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(one, range(50)))


def a_revoked_access_token_is_replaced_unnoticed(world):
    before = refreshes(world)
    world.server.revoke_access_tokens()
    login(world, world.accounts[ANN]).logout()
    expect(refreshes(world) == before + 1, f"one refresh, but {refreshes(world) - before}")


def fifty_logins_with_a_revoked_token_cost_one_refresh(world):
    before = refreshes(world)
    world.server.revoke_access_tokens()
    fifty_logins(world, world.accounts[STARTTLS_ANN])
    expect(refreshes(world) == before + 1, f"one refresh, but {refreshes(world) - before}")


def fifty_logins_with_an_expired_token_cost_one_refresh(world):
    expire_access_token(world, world.accounts[ANN])
    before = refreshes(world)
    fifty_logins(world, world.accounts[ANN])
    expect(refreshes(world) == before + 1, f"one refresh, but {refreshes(world) - before}")


def many_rotations_in_a_row_keep_the_grant_alive(world):
    # Not one second: the server counts whole seconds, so such a token can end at once.
    world.server.set_access_token_seconds(2)
    world.postkey.authorize(BOB, Person(BOB, world.run.ca))
    world.postkey.authorize(CAROL, Person(CAROL, world.run.ca), *confidential(world))
    before = refreshes(world)
    for _ in range(10):
        time.sleep(2.1)
        for address in (BOB, CAROL):
            login(world, world.accounts[address]).logout()
    world.server.set_access_token_seconds(3600)
    expect(refreshes(world) >= before + 20, f"twenty rotations, but {refreshes(world) - before}")


def a_wrong_password_reaches_no_server(world):
    account = world.accounts[ANN]
    expire_access_token(world, account)
    before = world.server.counts()
    wrong = must_be_refused(world, Account(ANN, "wrong"))
    unknown = must_be_refused(world, Account("nobody@example.test", account.password))
    foreign = must_be_refused(world, Account(BOB, account.password))
    expect(world.server.counts() == before, "no token request")
    expect("AUTHENTICATIONFAILED" in wrong, f"RFC 5530's code, in {wrong}")
    expect(wrong == unknown == foreign, f"one answer for all: {wrong} {unknown} {foreign}")
    login(world, account).logout()


def an_outage_is_temporary_and_does_no_harm(world):
    account = world.accounts[ANN]
    expire_access_token(world, account)
    world.server.set_unavailable(True)
    try:
        refusal = must_be_refused(world, account)
        expect("UNAVAILABLE" in refusal, f"RFC 5530's code, in {refusal}")
    finally:
        world.server.set_unavailable(False)
    wait_until(lambda: can_log_in(world, account), "a login after the outage", seconds=60)


def can_log_in(world, account):
    """Whether a login works now."""
    try:
        login(world, account).logout()
    except imaplib.IMAP4.error:
        return False
    return True


def postfix_keeps_its_queue_through_an_outage(world):
    account = world.accounts[ANN]
    message, mailbox = new_message(ANN, RECIPIENT), world.dovecot.mailbox(RECIPIENT)
    expire_access_token(world, account)
    world.server.set_unavailable(True)
    relay = Relay.by(world.run, "outage", world.postkey.listeners()["smtp", "none"], account)
    try:
        relay.send(ANN, RECIPIENT, message.content)
        deferred = wait_until(lambda: [m for m in relay.queue() if m["queue_name"] == "deferred"], "a deferred message")
        reason = deferred[0]["recipients"][0]["delay_reason"]
        expect("454" in reason, f"RFC 4954's temporary failure, in {reason}")
        expect(not mailbox.find(message.mark), "nothing has arrived yet")
        world.server.set_unavailable(False)
        wait_until(lambda: flushed(relay), "an empty queue", seconds=60)
        expect(below_trace(mailbox.wait_for(message.mark), message), "the message is unchanged")
    finally:
        world.server.set_unavailable(False)
        relay.stop()


def flushed(relay):
    """Flushes the queue. Returns whether it is empty a second later."""
    relay.flush()
    time.sleep(1)
    return not relay.queue()


def a_restart_keeps_everything(world):
    world.postkey.stop()
    world.postkey.start()
    for account in world.accounts.values():
        login(world, account).logout()


def a_kill_after_a_refresh_keeps_everything(world):
    for _ in range(3):
        world.server.revoke_access_tokens()
        login(world, world.accounts[ANN]).logout()
        world.postkey.kill()
        world.postkey.start()
        login(world, world.accounts[ANN]).logout()


def a_live_session_outlives_its_token(world):
    imap = login(world, world.accounts[ANN])
    imap.select()
    expire_access_token(world, world.accounts[ANN])
    expect(imap.noop()[0] == "OK", "the session continues")
    imap.logout()


def an_open_session_has_its_token_refreshed_ahead(world):
    # A token that nothing has logged in with may be a refresh of the minute before, whose refusal would be no reason for another.
    login(world, world.accounts[ANN]).logout()
    world.server.set_access_token_seconds(60)
    try:
        world.server.revoke_access_tokens()
        imap = login(world, world.accounts[ANN])
        before = world.server.counts()["refresh_token"]
        # Due after 24 seconds, and expired after 30; postkey checks every 20.
        wait_until(lambda: world.server.counts()["refresh_token"] > before, "a refresh for which nobody waits", 50)
        login(world, world.accounts[ANN]).logout()
        expect(world.server.counts()["refresh_token"] == before + 1, "the next login finds a fresh token")
        imap.logout()
    finally:
        world.server.set_access_token_seconds(3600)


def each_client_can_have_a_password_of_its_own(world):
    first = world.accounts[BOB]
    generated = world.postkey.add_password(first, "printer")
    chosen = world.postkey.add_password(generated, "script", secrets.token_urlsafe(16))
    for account in (first, generated, chosen):
        login(world, account).logout()
    names = world.postkey.command("password", "list", BOB)
    expect("printer" in names and "script" in names, f"both are in the list: {names}")
    world.postkey.command("password", "remove", BOB, "printer")
    must_be_refused(world, generated)
    for account in (first, chosen):
        login(world, account).logout()


def the_test_command_logs_in(world):
    account = world.accounts[STARTTLS_ANN]
    printed = world.postkey.command("test", account.address, line=account.password)
    expect(printed.count(" ok") == 3, f"three servers are fine: {printed}")
    world.postkey.command("test", account.address, line="wrong password", fails=True)


def a_forgotten_account_is_gone(world):
    account = world.accounts.pop(BOB)
    # He has been authorized more than once, and only the last authorization is postkey's.
    before = world.server.authorized().count(BOB)
    printed = world.postkey.command("forget", BOB, "--revoke", line=account.password)
    expect("has revoked" in printed, f"the authorization is revoked: {printed}")
    expect(world.server.authorized().count(BOB) == before - 1, "the authorization server has revoked it")
    must_be_refused(world, account)
    expect(BOB not in [entry["address"] for entry in world.postkey.status()["accounts"]], "status does not know it")


TOKENS = [
    a_revoked_access_token_is_replaced_unnoticed, fifty_logins_with_a_revoked_token_cost_one_refresh,
    fifty_logins_with_an_expired_token_cost_one_refresh, many_rotations_in_a_row_keep_the_grant_alive,
    a_wrong_password_reaches_no_server, an_outage_is_temporary_and_does_no_harm, postfix_keeps_its_queue_through_an_outage,
    a_live_session_outlives_its_token, an_open_session_has_its_token_refreshed_ahead, a_restart_keeps_everything, a_kill_after_a_refresh_keeps_everything,
    each_client_can_have_a_password_of_its_own, the_test_command_logs_in, a_forgotten_account_is_gone,
]
