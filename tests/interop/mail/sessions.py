"""Single sessions: logins with every protocol, limits of connections, and clients that end their half."""

import imaplib
import poplib
import smtplib
import socket

from process import Failure, wait_until

LOGINS = ["dovecot23", "dovecot23-starttls", "dovecot24", "dovecot24-starttls", "dovecot24jwt", "dovecot24jwt-starttls"]


REFUSALS = (imaplib.IMAP4.error, poplib.error_proto, smtplib.SMTPResponseException)


def tests(world):
    """All of them: name, function, arguments."""
    for provider in LOGINS:
        yield f"IMAP, POP3 and SMTP, {provider}", logs_in, world, provider
        yield f"a half-close is answered, {provider}", half_close_is_answered, world, provider
    for provider in ("dovecot23", "dovecot24", "postfix", "exim", "smtpserver"):
        yield f"a token that ended early is replaced, {provider}", ended_token_is_replaced, world, provider
    for log_in in (imap, pop3, smtp):
        yield f"a dead token that is called trouble is replaced, {log_in.__name__.upper()}", trouble_is_an_end, world, log_in
    for provider in ("limited23", "limited24"):
        for log_in in LIMITS:
            yield f"a limit is no bad token, {log_in.__name__.upper()}, {provider}", limit_is_no_bad_token, world, provider, log_in


def imap(world, account):
    """An IMAP login."""
    session = imaplib.IMAP4("127.0.0.1", world.listener("imap", "none").port, timeout=40)
    session.login(account.address, account.password)
    return session.logout


def pop3(world, account):
    """A POP3 login."""
    session = poplib.POP3("127.0.0.1", world.listener("pop3", "none").port, timeout=40)
    session.user(account.address)
    session.pass_(account.password)
    return session.quit


def smtp(world, account):
    """An SMTP login."""
    session = smtplib.SMTP("127.0.0.1", world.listener("smtp", "none").port, timeout=40)
    session.login(account.address, account.password)
    return session.quit


def logs_in(world, provider):
    """All protocols."""
    account = world.account(provider)
    for log_in in (imap, pop3, smtp):
        log_in(world, account)()


def half_close_is_answered(world, provider):
    """As `printf ... | nc` does: everything is sent, the half is closed, and everything is answered."""
    account = world.account(provider)
    user, password = account.address, account.password
    cases = [("imap", f"a LOGIN {user} {password}\r\nb SELECT INBOX\r\nc NOOP\r\nd LOGOUT\r\n", "d OK"),
             ("pop3", f"USER {user}\r\nPASS {password}\r\nSTAT\r\nQUIT\r\n", "+OK")]
    if world.whole:
        # Without a goodbye it takes half a minute until the provider counts as done.
        cases.append(("imap", f"a LOGIN {user} {password}\r\nb SELECT INBOX\r\nc NOOP\r\n", "c OK"))
    for protocol, sent, last in cases:
        with socket.create_connection(("127.0.0.1", world.listener(protocol, "none").port), 40) as connection:
            connection.sendall(sent.encode())
            connection.shutdown(socket.SHUT_WR)
            answers = connection.makefile("rb").read().decode()
        if not answers.rstrip("\r\n").rpartition("\n")[2].startswith(last):
            raise Failure(f"{protocol} is answered:\n{answers}")


def ended_token_is_replaced(world, provider):
    """The server refuses postkey's token, accepts the next one, and logs no complaint."""
    account, server = world.account(provider), world.servers[provider]
    smtp(world, account)()
    offset, issued = server.log.stat().st_size, world.tokens.issued
    world.tokens.end(account.address)
    smtp(world, account)()
    if world.tokens.issued != issued + 1:
        raise Failure(f"{world.tokens.issued - issued} tokens were asked for")
    complaints = [line for line in server.troubles(offset) if "Token validation failed" not in line]
    if complaints:
        raise Failure("the server complains:\n" + "\n".join(complaints))


def trouble_is_an_end(world, log_in):
    """Dovecot 2.3 learns nothing about a dead token, and treats that as its own failure. What the vault holds counts as old."""
    account = world.account("dovecot23")
    world.postkey.stop()
    world.postkey.start()
    world.tokens.end(account.address)
    offset, issued, world.tokens.names_dead = world.servers["dovecot23"].log.stat().st_size, world.tokens.issued, False
    try:
        log_in(world, account)()
    finally:
        world.tokens.names_dead = True
    if world.tokens.issued != issued + 1:
        raise Failure(f"{world.tokens.issued - issued} tokens were asked for")
    said = world.servers["dovecot23"].log.read_bytes()[offset:].decode("utf-8", "replace")
    if "oauth2 failed: Introspection failed: No username returned" not in said:
        raise Failure(f"Dovecot does not call it its own trouble:\n{said}")


# The refusal of one session too many: RFC 5530, RFC 2449 section 8.1.2, RFC 4954 section 6.
LIMITS = {imap: "[LIMIT]", pop3: "[IN-USE]", smtp: "454, b'4.7.0"}


def limit_is_no_bad_token(world, provider, log_in):
    """A second session is one too many: it costs no token, makes no mail program drop its password, and works after the first ends."""
    account = world.account(provider)
    leave = log_in(world, account)
    issued = world.tokens.issued
    try:
        words = refused(world, account, log_in)
    finally:
        leave()
    if LIMITS[log_in] not in words or "Maximum number of" not in words:
        raise Failure(f"the client hears {LIMITS[log_in]} and the server's words: {words}")
    wait_until(lambda: lets_in(world, account, log_in), "the next login after the first has ended")
    if world.tokens.issued != issued:
        raise Failure(f"{world.tokens.issued - issued} tokens were spent")


def refused(world, account, log_in):
    """The words with which a login is refused."""
    try:
        leave = log_in(world, account)
    except REFUSALS as refusal:
        return str(refusal)
    leave()
    raise Failure("there is no limit")


def lets_in(world, account, log_in):
    """Whether a login works now."""
    try:
        log_in(world, account)()
    except REFUSALS:
        return False
    return True
