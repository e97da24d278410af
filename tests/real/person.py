"""A person with a browser: opens the authorization URL, signs in, consents, and returns to the loopback redirect."""

import html.parser
import http.cookiejar
import ssl
import urllib.error
import urllib.parse
import urllib.request

from process import Failure


class Person:
    """Somebody who can sign in as one account at the authorization server."""

    def __init__(self, address, ca):
        self.address = address
        self._ca = ca

    def authorize(self, url):
        """Says yes to everything. Returns the redirect URL, which nobody has visited yet."""
        browser = self._browser()
        page, address = self._open(browser, url)
        for _ in range(5):
            if not same_origin(address, url):
                return address
            form = Form(page)
            page, address = self._open(browser, urllib.parse.urljoin(address, form.action), form.filled_in_by(self.address))
        raise Failure(f"the sign-in did not come to an end at {address}")

    def authorize_and_return(self, url):
        """Says yes to everything and lets the browser follow the redirect. Returns the URL and the page shown there."""
        redirect = self.authorize(url)
        with urllib.request.urlopen(redirect, timeout=10) as response:
            return redirect, response.read().decode()

    def type_in(self, url, code):
        """Types a device's code in, signs in, and says yes to everything."""
        browser = self._browser()
        page, address = self._open(browser, url)
        for _ in range(6):
            if "<form" not in page:
                return
            form = Form(page)
            fields = form.filled_in_by(self.address) | ({"user_code": code} if "user_code" in form.fields else {})
            page, address = self._open(browser, urllib.parse.urljoin(address, form.action), fields)
        raise Failure(f"the sign-in did not come to an end at {address}")

    def _browser(self):
        return urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self._ca)),
            StopBeforeClearHttp(),
        )

    def _open(self, browser, url, fields=None):
        body = urllib.parse.urlencode(fields).encode() if fields else None
        try:
            with browser.open(url, body, timeout=10) as response:
                return response.read().decode(), response.url
        except Redirected as redirected:
            return "", redirected.url
        except urllib.error.HTTPError as error:
            raise Failure(f"{urllib.parse.urlsplit(url).path} answers {error.code}: {error.read().decode()[:2000]}") from error


class Redirected(Exception):
    """The browser is about to leave the authorization server for this URL."""

    def __init__(self, url):
        super().__init__(url)
        self.url = url


class StopBeforeClearHttp(urllib.request.HTTPRedirectHandler):
    """Follows redirects at the authorization server; the loopback redirect, which is clear http, is left to the caller."""

    def redirect_request(self, request, file, code, message, headers, url):
        if url.startswith("http://"):
            raise Redirected(url)
        return super().redirect_request(request, file, code, message, headers, url)


class Form(html.parser.HTMLParser):
    """The first form of a page: where it goes and what it holds."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields = None, {}
        self.feed(page)
        if self.action is None:
            raise Failure(f"a page without a form:\n{page[:2000]}")

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = attributes.get("action", "")  # a form without one goes to its own page
        elif tag == "input" and "name" in attributes:
            self.fields[attributes["name"]] = attributes.get("value") or ""

    def filled_in_by(self, address):
        """The form's fields with the person's name where it is asked for; any password will do."""
        answers = {"login": address, "password": "any"}
        return {name: answers.get(name, value) for name, value in self.fields.items()}


def same_origin(one, other):
    """Whether two URLs have scheme, host and port in common."""
    return urllib.parse.urlsplit(one)[:2] == urllib.parse.urlsplit(other)[:2]
