"""A browser: keeps cookies, fills in forms, and stops at a redirect to HTTP without TLS, which leads back to postkey."""

import html.parser
import http.cookiejar
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request

from process import Failure


class Ended(Failure):
    """The browser does not return: the person has left, or the server shows a page of its own without a form."""


class Browser:
    """One person's window: `address` is where it is, and `page` what it shows."""

    def __init__(self, ca):
        self.address, self.page = None, ""
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)),
            StopBeforeClearHttp(),
        )

    def follow(self, url, fields=None):
        """Opens a page, or sends a form. Returns the address to which that leads."""
        body = urllib.parse.urlencode(fields).encode() if fields is not None else None
        request = urllib.request.Request(url, body, {"Accept": "text/html", **({"Referer": self.address} if self.address else {})})
        try:
            with self._opener.open(request, timeout=20) as response:
                self.page, self.address = response.read().decode("utf-8", "replace"), response.url
        except Redirected as redirected:
            self.page, self.address = "", redirected.url
        except urllib.error.HTTPError as error:
            raise Ended(f"{urllib.parse.urlsplit(url).path} answers {error.code}: {error.read().decode()[:500]}") from None
        return self.address

    def form(self):
        """The form of the page."""
        return Form(self.page)

    def submit(self, answers, press=None):
        """Fills in the form of the page, and presses a button of it. Returns the address to which that leads."""
        form = self.form()
        fields = form.fields | answers | ({press[0]: press[1]} if press else {})
        return self.follow(urllib.parse.urljoin(self.address, form.action), fields)

    def open_json(self, url, content, method):
        """Sends JSON as a page's script does, and returns the JSON of the answer, if it has any."""
        request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"}, method=method)
        try:
            with self._opener.open(request, timeout=20) as response:
                body = response.read()
        except urllib.error.HTTPError as error:
            raise Failure(f"{method} {url}: {error.code} {error.read().decode()[:500]}") from None
        return json.loads(body) if body else None

    @staticmethod
    def parameter(url, name):
        """A parameter of a URL, or None."""
        return urllib.parse.parse_qs(urllib.parse.urlsplit(url).query).get(name, [None])[0]


class Redirected(Exception):
    """The server redirects to this URL, which the browser does not open."""

    def __init__(self, url):
        super().__init__(url)
        self.url = url


class StopBeforeClearHttp(urllib.request.HTTPRedirectHandler):
    """Follows the server's redirects, except those to HTTP without TLS: the caller decides about them."""

    def redirect_request(self, request, file, code, message, headers, url):
        if url.startswith("http://"):
            raise Redirected(url)
        return super().redirect_request(request, file, code, message, headers, url)


class Form(html.parser.HTMLParser):
    """The first form of a page: where it is sent, and its fields except buttons and checkboxes."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields = None, {}
        self.feed(page)
        if self.action is None:
            raise Ended(f"a page without a form:\n{page[:1500]}")

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form" and self.action is None:
            self.action = attributes.get("action") or ""  # a form without one is sent to its own page
        elif tag == "input" and "name" in attributes and attributes.get("type") not in ("submit", "checkbox"):
            self.fields[attributes["name"]] = attributes.get("value") or ""
