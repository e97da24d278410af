"""Accounts that are not simply one person's mailbox: one that Ann shares, and a domain whose people set themselves up."""

import html
import imaplib
import poplib
import re
import secrets
import smtplib
import urllib.error
import urllib.parse
import urllib.request

from browser import Form
from clients import RECIPIENT, below_trace
from life import ANN, expect
from message import new_message
from person import Person
from postkey import Account
from process import Failure

OFFICE = "office@example.test"
EVE, FRED = "eve@whole.test", "fred@whole.test"


def port(world, protocol):
    """The port of the listener without TLS."""
    return world.postkey.listeners()[protocol, "none"].port


def imap_login(world, account):
    """An IMAP login; imaplib raises if it is refused."""
    imap = imaplib.IMAP4("127.0.0.1", port(world, "imap"), timeout=30)
    imap.login(account.address, account.password)
    return imap


def pop3_login(world, account):
    """A POP3 login; poplib raises if it is refused."""
    pop3 = poplib.POP3("127.0.0.1", port(world, "pop3"), timeout=30)
    pop3.user(account.address)
    pop3.pass_(account.password)
    return pop3


def smtp_login(world, account):
    """An SMTP login; smtplib raises if it is refused."""
    smtp = smtplib.SMTP("127.0.0.1", port(world, "smtp"), timeout=30)
    smtp.login(account.address, account.password)
    return smtp


def office(world):
    """The shared mailbox, with its delegate's password."""
    return Account(OFFICE, world.accounts[ANN].password)


def a_delegate_reads_the_shared_mailbox(world):
    message, mailbox = new_message(OFFICE, OFFICE), world.dovecot.mailbox(OFFICE)
    mailbox.clear()
    mailbox.put(message.content)
    imap = imap_login(world, office(world))
    imap.select()
    expect(message.mark in imap.fetch("1", "(BODY[])")[1][0][1], "IMAP shows the office's message")
    imap.logout()
    pop3 = pop3_login(world, office(world))
    expect(message.mark in b"\n".join(pop3.retr(1)[1]), "POP3 shows it, too")
    pop3.quit()


def a_delegate_sends_for_the_shared_mailbox(world):
    message, mailbox = new_message(OFFICE, RECIPIENT), world.dovecot.mailbox(RECIPIENT)
    smtp = smtp_login(world, office(world))
    smtp.sendmail(OFFICE, [RECIPIENT], message.content)
    smtp.quit()
    expect(below_trace(mailbox.wait_for(message.mark), message), "the message is unchanged")


def a_delegates_mailboxes_share_one_refresh(world):
    before = world.server.counts()["refresh_token"]
    world.server.revoke_access_tokens()
    for account in (office(world), world.accounts[ANN], office(world)):
        imap_login(world, account).logout()
    expect(world.server.counts()["refresh_token"] == before + 1, "one refresh for both")


def nobody_elses_password_opens_the_shared_mailbox(world):
    for password in [account.password for address, account in world.accounts.items() if address != ANN]:
        try:
            imap_login(world, Account(OFFICE, password))
        except imaplib.IMAP4.error as error:
            expect("AUTHENTICATIONFAILED" in str(error), f"RFC 5530's code, in {error}")
        else:
            raise Failure("another account's password opens the office")


def first_login(log_in, world, account):
    """A login that has to be refused. Returns the page that the refusal names."""
    try:
        log_in(world, account)
    except (imaplib.IMAP4.error, poplib.error_proto, smtplib.SMTPAuthenticationError) as error:
        page = re.search(r"http://127\.0\.0\.1:\d+/\?authorize=\w+", str(error))
        expect(page, f"a page, in {error}")
        expect(re.search(r"UNAVAILABLE|SYS/TEMP|454", str(error)), f"a temporary code, in {error}")
        return page[0]
    raise Failure(f"{account.address} can log in")


def authorization_url(page, account):
    """Opens the mail program's page and presses its button. Returns where that leads."""
    with urllib.request.urlopen(page, timeout=10) as response:
        text = response.read().decode()
    expect(account.address in html.unescape(text), f"the address is on the page:\n{text}")
    Form(text)
    return post(page, {})


def post(page, fields):
    """Sends a form. Returns where that leads, or the answer."""
    try:
        answer = urllib.request.build_opener(NoRedirects()).open(page, urllib.parse.urlencode(fields).encode(), timeout=10)
    except urllib.error.HTTPError as error:
        return error.headers["Location"] or error.read().decode()
    return answer.read().decode()


def sign_in(world, page, account, person, passwords):
    """Signs in as this person, and types these passwords on return. Returns the last page."""
    redirect, shown = Person(person, world.run.ca).authorize_and_return(authorization_url(page, account))
    for password in passwords:
        form = Form(shown)
        shown = post(urllib.parse.urljoin(redirect, form.action), form.fields | {"password": password})
    if shown.startswith("/"):
        with urllib.request.urlopen(urllib.parse.urljoin(redirect, shown), timeout=10) as response:
            shown = response.read().decode()
    return shown


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Returns a redirect instead of following it."""

    def redirect_request(self, *_):
        return None


def each_protocol_can_be_the_first_to_log_in(world):
    for name, log_in in (("imap", imap_login), ("pop3", pop3_login), ("smtp", smtp_login)):
        account = Account(f"{name}-first@whole.test", secrets.token_urlsafe(16))
        before = world.server.counts()["authorization_code"]
        page = first_login(log_in, world, account)
        expect(page == first_login(imap_login, world, Account(account.address, "another password")), "the same page")
        shown = sign_in(world, page, account, account.address, ["not tried by anybody", account.password])
        expect("Done" in shown, f"the browser shows it:\n{shown}")
        expect(world.server.counts()["authorization_code"] == before + 1, "one code is exchanged")
        for again in (imap_login, pop3_login, smtp_login):
            again(world, account)
        world.accounts[account.address] = account
        world.postkey.authorized.append(account)


def the_wrong_person_does_not_become_the_account(world):
    account = Account(EVE, secrets.token_urlsafe(16))
    page = first_login(imap_login, world, account)
    shown = sign_in(world, page, account, FRED, [])
    expect("somebody else" in shown, f"the browser shows it:\n{shown}")
    expect(page == first_login(imap_login, world, account), "the same page still waits")
    shown = sign_in(world, page, account, EVE, [account.password])
    expect("Done" in shown, f"the browser shows it:\n{shown}")
    imap_login(world, account).logout()
    world.accounts[EVE] = account
    world.postkey.authorized.append(account)


def accounts_of_a_whole_domain_survive_a_restart(world):
    world.postkey.stop()
    world.postkey.start()
    imap_login(world, world.accounts[EVE]).logout()


TESTS = [
    a_delegate_reads_the_shared_mailbox, a_delegate_sends_for_the_shared_mailbox, a_delegates_mailboxes_share_one_refresh,
    nobody_elses_password_opens_the_shared_mailbox, each_protocol_can_be_the_first_to_log_in,
    the_wrong_person_does_not_become_the_account, accounts_of_a_whole_domain_survive_a_restart,
]
