"""A person with a browser: opens the authorization URL, signs in, consents, and returns to the loopback redirect."""

import urllib.parse
import urllib.request

from browser import Browser
from process import Failure


class Person:
    """Somebody who can sign in as one account at the authorization server."""

    def __init__(self, address, ca):
        self.address = address
        self._ca = ca

    def authorize(self, url):
        """Consents to everything. Returns the redirect URL, which nobody has visited yet."""
        browser = Browser(self._ca)
        browser.follow(url)
        for _ in range(5):
            if not same_origin(browser.address, url):
                return browser.address
            self._fill_in(browser)
        raise Failure(f"the sign-in did not come to an end at {browser.address}")

    def authorize_and_return(self, url):
        """Consents to everything and follows the redirect. Returns the URL and the page shown there."""
        redirect = self.authorize(url)
        with urllib.request.urlopen(redirect, timeout=10) as response:
            return redirect, response.read().decode()

    def type_in(self, url, code):
        """Types a device's code in, signs in, and consents to everything."""
        browser = Browser(self._ca)
        browser.follow(url)
        for _ in range(6):
            if "<form" not in browser.page:
                return
            self._fill_in(browser, code)
        raise Failure(f"the sign-in did not come to an end at {browser.address}")

    def _fill_in(self, browser, code=None):
        """Sends the page's form, with what it asks for; any password is accepted."""
        answers = {"login": self.address, "password": "any", "user_code": code}
        browser.submit({name: answers[name] for name in browser.form().fields if name in answers})


def same_origin(one, other):
    """Whether two URLs have scheme, host and port in common."""
    return urllib.parse.urlsplit(one)[:2] == urllib.parse.urlsplit(other)[:2]
