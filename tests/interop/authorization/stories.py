"""What happens to a person and an account at each authorization server, from the first consent to the end."""

import imaplib
import json
import re
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager

from browser import Ended
from process import Failure, wait_until


def variants(server):
    """The configurations of a server: (suffix of the domain, further keys of the provider's table)."""
    redirect = {"redirect_uri": server.redirect_uri} if hasattr(server, "redirect_uri") else {}
    parameters = {"authorization_parameters": server.parameters} if hasattr(server, "parameters") else {}
    known = [("code", {"client_id": "native", **redirect, **parameters})]
    if server.has_device_grant:
        client = "device" if server.name == "django" else "native"
        endpoint = {"device_authorization_endpoint": server.device_endpoint} if hasattr(server, "device_endpoint") else {}
        known.append(("device", {"client_id": client, "flow": "device-code", **endpoint}))
    if server.has_registration:
        known.append(("unknown", {}))
    if hasattr(server, "unknown_scope"):
        known.append(("less", known[0][1] | {"scope": [*server.scope, server.unknown_scope]}))
    return known


def of(server):
    """The stories of one server, in their order."""
    stories = [
        ann_consents_and_her_mail_opens, a_token_that_ended_early_costs_one_refresh, refreshes_follow_each_other,
        somebody_else_signs_in_first, consent_is_refused, less_is_granted_than_was_asked_for,
    ]
    if server.has_device_grant:
        stories.append(a_code_is_typed_in_elsewhere)
    if server.has_registration:
        ends = hasattr(server, "registered_end")
        stories.append(a_client_that_registered_itself_gets_no_refresh_token if ends else postkey_registers_itself)
    stories += [the_server_is_away_for_a_moment, forget_revokes]
    if hasattr(server, "end_authorizations"):
        stories.append(an_ended_authorization_is_noticed_and_given_again)
    return stories


def expect(condition, what):
    """Fails with what was expected."""
    if not condition:
        raise Failure(f"expected: {what}")


def address(server, person, suffix="code"):
    """A person's address in one of the server's domains."""
    return f"{person}@{suffix}.{server.name}.test"


@contextmanager
def authorizing(world, who, seconds=30):
    """`postkey authorize` while it runs. Yields the process, and waits for its end afterwards."""
    command = [world.binary, "--config", world.postkey.configuration, "authorize", who, "--no-browser",
               "--timeout", f"{seconds}s"]
    child = subprocess.Popen(command, env=world.postkey._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
    watchdog = threading.Timer(60, child.kill)
    watchdog.start()
    child.output = ""
    try:
        yield child
        child.output += child.stdout.read()
        child.wait(30)
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()


def next_url(child, pattern=r"\s*(https://\S+)\s*"):
    """The next address that the command shows on a line of its own."""
    for line in child.stdout:
        child.output += line
        if found := re.fullmatch(pattern, line.rstrip("\n")):
            return found[1]
    raise Failure(f"authorize ended without an address:\n{child.output}")


def visit(url):
    """The browser follows its last redirect, to postkey."""
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read().decode("utf-8", "replace")


def password_in(output):
    """The app password that a command has shown."""
    found = re.search(r"^\s+password\s+([0-9a-z-]{20,})\b", output, re.MULTILINE)
    if not found:
        raise Failure(f"no app password in:\n{output}")
    return found[1]


def authorize(world, server, person, suffix="code"):
    """Authorizes an account by the code grant; returns its app password."""
    who = address(server, person, suffix)
    with authorizing(world, who) as child:
        visit(server.sign_in(next_url(child), who))
    expect(child.returncode == 0, f"authorize {who} succeeds:\n{child.output}")
    expect(re.search(r"^\s*IMAP\s.*\bok$", child.output, re.MULTILINE), f"and the mailbox opened:\n{child.output}")
    return password_in(child.output)


def log_in(world, who, password):
    """Logs in by IMAP, opens the mailbox, and leaves."""
    imap = imaplib.IMAP4("127.0.0.1", world.postkey.status()["listeners"][0]["address"].rpartition(":")[2], timeout=60)
    try:
        imap.login(who, password)
        expect(imap.select("INBOX")[0] == "OK", "the mailbox is open")
    finally:
        imap.logout()


def refused(world, who, password):
    """The message with which a login is refused."""
    try:
        log_in(world, who, password)
    except imaplib.IMAP4.error as error:
        return str(error)
    raise Failure(f"{who} was let in")


def state(world, who):
    """The account in the output of status."""
    return next(entry for entry in world.postkey.status()["accounts"] if entry["address"] == who)


def ann_consents_and_her_mail_opens(world, server):
    server.password = authorize(world, server, "ann")
    log_in(world, address(server, "ann"), server.password)


def a_token_that_ended_early_costs_one_refresh(world, server):
    server.end_access_tokens()
    log_in(world, address(server, "ann"), server.password)
    log_in(world, address(server, "ann"), server.password)


def refreshes_follow_each_other(world, server):
    for _ in range(3):
        server.end_access_tokens()
        log_in(world, address(server, "ann"), server.password)
    expect(server.living_authorizations(address(server, "ann")) >= 1, "the authorization is alive")


def somebody_else_signs_in_first(world, server):
    cleo, ben = address(server, "cleo"), address(server, "ben")
    with authorizing(world, cleo) as child:
        visit(server.sign_in(next_url(child), ben))
        visit(server.sign_in(next_url(child), cleo))
    expect(child.returncode == 0, f"the right one is accepted in the end:\n{child.output}")
    expect(ben in child.output, f"and ben is named:\n{child.output}")
    log_in(world, cleo, password_in(child.output))


def next_second():
    """Returns in the next second. canaille issues the same access token twice within a second, and ends it with the first."""
    now = int(time.time())
    wait_until(lambda: int(time.time()) > now, "the next second")


def less_is_granted_than_was_asked_for(world, server):
    """Because the server leaves a scope out, or because the person does."""
    by_server = hasattr(server, "unknown_scope")
    who = address(server, "cleo" if by_server else "emil", "less" if by_server else "code")
    before = len(server.refresh_scopes())
    with authorizing(world, who) as child:
        visit(server.sign_in(next_url(child), who, scope=None if by_server else server.person_grants))
    expect(child.returncode == 0, f"authorize succeeds:\n{child.output}")
    missing = server.unknown_scope if by_server else "mail"
    expect(f"granted less than was requested: it left out {missing}. " in child.output, f"it says what is missing:\n{child.output}")
    password = password_in(child.output)
    for _ in range(2):
        server.end_access_tokens()
        log_in(world, who, password)
    asked = server.refresh_scopes()[before:]
    expect(len(asked) == 3, f"a refresh while the person was there, and two more: {asked}")
    expect(all(missing not in (scope or "") for scope in asked), f"none asks for more than was granted: {asked}")
    next_second()
    doctor = world.postkey.command("doctor", who, "--json", line=password)
    words = next(finding["text"] for finding in json.loads(doctor)["findings"] if finding["subject"] == "token's scope")
    granted, _, rest = words.partition("; ")
    expect(missing not in granted.split() and set(granted.split()) < {*server.scope, missing}, f"what was granted is kept: {words}")
    expect(rest == f"the logins work without {missing}", f"doctor goes by the logins: {words}")


def consent_is_refused(world, server):
    who = address(server, "dora")
    with authorizing(world, who, seconds=5) as child:
        try:
            visit(server.sign_in(next_url(child), who, consents=False))
        except Ended:
            pass
    expect(child.returncode != 0, f"authorize fails:\n{child.output}")
    expect(who not in [entry["address"] for entry in world.postkey.status()["accounts"]], "there is no account")


def a_code_is_typed_in_elsewhere(world, server):
    who = address(server, "ann", "device")
    with authorizing(world, who) as child:
        url = next_url(child)
        code = ""
        while not code:
            line = child.stdout.readline()
            expect(line, f"a code is shown:\n{child.output}")
            child.output += line
            code = line.strip() if re.fullmatch(r"\s+\S{4,20}\s*", line) else ""
        server.type_in(url, code, who)
    expect(child.returncode == 0, f"authorize succeeds:\n{child.output}")
    password = password_in(child.output)
    log_in(world, who, password)
    server.end_access_tokens()
    log_in(world, who, password)


def postkey_registers_itself(world, server):
    who = address(server, "emil", "unknown")
    with authorizing(world, who) as child:
        visit(server.sign_in(next_url(child), who))
    expect(child.returncode == 0, f"authorize succeeds:\n{child.output}")
    password = password_in(child.output)
    log_in(world, who, password)
    server.end_access_tokens()
    log_in(world, who, password)


def a_client_that_registered_itself_gets_no_refresh_token(world, server):
    who = address(server, "emil", "unknown")
    with authorizing(world, who) as child:
        visit(server.sign_in(next_url(child), who))
    expect(child.returncode != 0 and server.registered_end in child.output, f"the person learns it at once:\n{child.output}")
    log_in(world, who, password_in(child.output))


def the_server_is_away_for_a_moment(world, server):
    if server.name in ("canaille", "oidc"):
        return  # they keep everything in memory
    server.end_access_tokens()
    server.stop()
    try:
        words = refused(world, address(server, "ann"), server.password)
    finally:
        server.start()
    expect("UNAVAILABLE" in words, f"RFC 5530's code, in {words}")
    wait_until(lambda: lets_in(world, address(server, "ann"), server.password), "a login when it is back", 30)


def lets_in(world, who, password):
    """Whether a login works now."""
    try:
        log_in(world, who, password)
    except imaplib.IMAP4.error:
        time.sleep(0.5)
        return False
    return True


def forget_revokes(world, server):
    password, who = authorize(world, server, "fay"), address(server, "fay")
    before = server.living_authorizations(who)
    output = world.postkey.command("forget", who, "--revoke", line=password)
    after = server.living_authorizations(who)
    if "withdrawn" in output or "revoked" in output:
        expect(after < before, f"what the command says is so: {output}")
    else:
        expect("client_id" not in output, f"no advice that cannot help: {output}")
    refused(world, who, password)


def an_ended_authorization_is_noticed_and_given_again(world, server):
    password, who = authorize(world, server, "gus"), address(server, "gus")
    log_in(world, who, password)
    server.end_authorizations()
    server.end_access_tokens()

    def is_noticed():
        words = refused(world, who, password)
        entry = state(world, who)
        return "authorize" in words and entry["state"] == "ended"

    wait_until(is_noticed, "status says that the authorization has ended", 120)
    with authorizing(world, who) as child:
        visit(server.sign_in(next_url(child), who))
    expect(child.returncode == 0, f"authorizing again repairs the account:\n{child.output}")
    log_in(world, who, password)
