"""First logins, each step of which may reach another replica."""

import re
import ssl
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode, urlsplit

from postkey import Account
from process import wait_until
from stories import answer, expect, is_temporary, wait_for_login

PASSWORD, OTHER = "correct horse battery", "corrected horse battery"

class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *_):
        return None


class Browser:
    """Opens pages at the replica that it is told, whatever replica their address leads to."""

    def __init__(self, world):
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=world.run.ca))
        self._opener = urllib.request.build_opener(Stay, tls)

    def open(self, url, replica=None, form=None):
        """The page: its status, where it redirects, and its text."""
        parts = urlsplit(url)
        if replica:
            url = parts._replace(scheme="http", netloc=f"127.0.0.1:{replica.browser_port}").geturl()
        body = None if form is None else urlencode(form).encode()
        try:
            with self._opener.open(urllib.request.Request(url, body, {"Host": parts.netloc}), timeout=30) as response:
                return response.status, "", response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Location", ""), error.read().decode()


def page_of(replica, account):
    """The page that the refusal of a first login names."""
    words = answer(replica, account)
    expect("[UNAVAILABLE]" in words, f"a first login is refused temporarily: {words}")
    found = re.search(r"open (https://\S+) in a browser", words)
    expect(found, f"the refusal names a page: {words}")
    return found[1]


def consent(browser, page, at_page, at_button, at_return):
    """From the page to the key in the last form, each step at one of these replicas; None is the load balancer."""
    status, _, text = browser.open(page, at_page)
    expect(status == 200 and "Continue" in text, f"the page of a first login: {status} {text}")
    status, provider, text = browser.open(page, at_button, {})
    expect(status == 303, f"its button leads to the provider: {status} {text}")
    returned = browser.open(provider)[1]
    return browser.open(returned, at_return), returned


def key_of(page):
    """The key in a form."""
    status, _, text = page
    found = re.search(r'name="key" value="(\w+)"', text)
    expect(status == 200 and found, f"a form for the password: {status} {text}")
    return found[1]


def type_password(world, browser, key, password, replica=None):
    """What the last form leads to."""
    return browser.open(world.consents.page, replica, {"key": key, "password": password})


def forget(world, *accounts):
    """So that the tests after this one know all accounts."""
    for account in accounts:
        world.replicas[0].command("forget", account.address)


def every_step_of_a_first_login_may_reach_another_replica(world):
    for shift in range(3):
        one, two, three = (world.replicas * 2)[shift:shift + 3]
        account, browser = Account(f"every{shift}@first.test", PASSWORD), Browser(world)
        page = page_of(one, account)
        expect(page_of(two, account) == page, "another replica names the same page")
        returned, _ = consent(browser, page, two, three, one)
        status, place, text = type_password(world, browser, key_of(returned), account.password, two)
        expect((status, place) == (303, "/callback?authorized"), f"the account is set up: {status} {place} {text}")
        for replica in world.replicas:
            wait_until(lambda: answer(replica, account) == "ok", f"a login at {replica.name}", 10)
        expect(browser.open(page, three)[0] == 404, "the page is closed")
        forget(world, account)


def a_load_balancer_may_send_each_step_anywhere(world):
    for number in range(3):
        account, browser = Account(f"balanced{number}@first.test", PASSWORD), Browser(world)
        page = page_of(world.replicas[number], account)
        returned, _ = consent(browser, page, None, None, None)
        status, place, text = type_password(world, browser, key_of(returned), account.password)
        expect((status, place) == (303, "/callback?authorized"), f"the account is set up: {status} {place} {text}")
        wait_for_login(world.replicas[0], account)
        forget(world, account)


def a_password_that_was_corrected_at_another_replica_is_known(world):
    one, two, three = world.replicas
    first, corrected, browser = Account("corrected@first.test", PASSWORD), Account("corrected@first.test", OTHER), Browser(world)
    page = page_of(one, first)
    other_page = page_of(two, corrected)
    key = key_of(consent(browser, page, one, one, one)[0])
    status, _, text = type_password(world, browser, key, "another horse battery", three)
    expect(status == 403 and "not the password" in text, f"a password that nobody has tried: {status} {text}")
    status, place, text = type_password(world, browser, key, OTHER, three)
    expect((status, place) == (303, "/callback?authorized"), f"the corrected one: {status} {place} {text}")
    wait_for_login(one, corrected)
    expect("AUTHENTICATIONFAILED" in answer(three, first), "the first one is no password of the account")
    expect("Already set up" in browser.open(other_page, one)[2], "the other page says so")
    forget(world, corrected)


def an_answer_and_a_form_are_used_once(world):
    one, two, three = world.replicas
    account, browser = Account("once@first.test", PASSWORD), Browser(world)
    page, before = page_of(one, account), world.consents.report()
    returned, address = consent(browser, page, one, one, two)
    for replica in (one, three, two):
        status, _, text = browser.open(address, replica)
        expect(status == 404 and "Not this page" in text, f"the same answer at {replica.name}: {status}")
    key = key_of(returned)
    with ThreadPoolExecutor() as pool:
        posts = list(pool.map(lambda replica: type_password(world, Browser(world), key, PASSWORD, replica), world.replicas))
    done = [place for _, place, _ in posts if place == "/callback?authorized"]
    others = [status for status, place, _ in posts if not place]
    expect(len(done) == 1 and set(others) <= {404, 409}, f"one post makes the account: {[post[:2] for post in posts]}")
    wait_for_login(three, account)
    after = world.consents.report()
    expect(after["exchanged"][len(before["exchanged"]):] == [account.address], "one exchange")
    expect(after["refused"] == before["refused"] and after["revoked"] == before["revoked"], "nothing is used twice or revoked")
    forget(world, account)


def a_consent_that_one_replica_ends_is_ended_everywhere_and_revoked(world):
    one, two, three = world.replicas
    account, browser, before = Account("ended@first.test", PASSWORD), Browser(world), len(world.consents.report()["revoked"])
    page = page_of(one, account)
    key = key_of(consent(browser, page, one, two, three)[0])
    pages = [type_password(world, browser, key, f"wrong password {number}", two) for number in range(5)]
    expect([status for status, _, _ in pages] == [403] * 5 and "None of these" in pages[-1][2], "five wrong passwords end it")
    for replica in (three, one):
        status, _, _ = type_password(world, browser, key, PASSWORD, replica)
        expect(status == 404, f"the right one is too late at {replica.name}: {status}")
    wait_until(lambda: world.consents.report()["revoked"][before:] == [account.address], "the tokens are revoked once", 10)
    expect(browser.open(page, three)[0] == 404, "the page is closed")
    expect(page_of(three, account) != page, "the next login begins again")


def a_replica_that_ends_takes_no_first_login_with_it(world):
    one, two, three = world.replicas
    account, browser = Account("survives@first.test", PASSWORD), Browser(world)
    page = page_of(one, account)
    one.kill()
    try:
        key = key_of(consent(browser, page, two, two, three)[0])
    finally:
        one.start()
    three.stop()
    try:
        status, place, text = type_password(world, browser, key, PASSWORD, one)
    finally:
        three.start()
    expect((status, place) == (303, "/callback?authorized"), f"the account is set up: {status} {place} {text}")
    for replica in world.replicas:
        wait_for_login(replica, account)
    forget(world, account)


def without_the_database_a_first_login_is_put_off(world):
    one, two, _ = world.replicas
    account, browser = Account("away@first.test", PASSWORD), Browser(world)
    page = page_of(one, account)
    world.database.stop()
    try:
        unseen = answer(two, Account("unseen@first.test", PASSWORD))
        expect(is_temporary(unseen) and "browser" not in unseen, f"no page that only one replica knows: {unseen}")
        expect(browser.open(page, two)[0] == 503, "a page that began elsewhere cannot be shown")
    finally:
        world.database.start()
    wait_until(lambda: browser.open(page, two)[0] == 200, "the page, when the database is back", 30)


TESTS = [
    every_step_of_a_first_login_may_reach_another_replica, a_load_balancer_may_send_each_step_anywhere,
    a_password_that_was_corrected_at_another_replica_is_known, an_answer_and_a_form_are_used_once,
    a_consent_that_one_replica_ends_is_ended_everywhere_and_revoked, a_replica_that_ends_takes_no_first_login_with_it,
    without_the_database_a_first_login_is_put_off,
]
