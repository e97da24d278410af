"""The provider's mail servers, in a process of their own. They know one mechanism, XOAUTH2, and after the login little more than the goodbye.

    python3 mail_servers.py SETTINGS.json

Settings: ports (by protocol), certificate and key, secret (see tokens.py), and driver, a port without TLS. There the driver sends the
numbers of tokens as JSON in one line, and gets when each of them has opened a mailbox first, or null.
"""

import asyncio
import base64
import binascii
import json
import ssl
import sys
import time

from tokens import PROTOCOLS, AccessTokens


def bearer(encoded):
    """The user and the token of an XOAUTH2 message; empty if it is none."""
    try:
        fields = base64.b64decode(encoded).decode().split("\1")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    named = dict(field.partition("=")[::2] for field in fields if field)
    return named.get("user", ""), named.get("auth", "").removeprefix("Bearer ")


class Server(asyncio.Protocol):
    """One connection. Callbacks in place of tasks and streams, because these servers share the machine with what is measured."""

    GREETING, PROMPT = "", ""

    def __init__(self, opens):
        self._opens, self._transport, self._rest, self._tag = opens, None, b"", None

    def connection_made(self, transport):
        self._transport = transport
        self.say(self.GREETING)

    def data_received(self, data):
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            if self._tag is None:
                self.answer(text)
            else:
                tag, self._tag = self._tag, None
                self.say(self.verdict(tag, self._opens(*bearer(text))))

    def say(self, *lines):
        """Sends lines."""
        self._transport.write("".join(f"{line}\r\n" for line in lines).encode())

    def leave(self, *lines):
        """Says goodbye and closes the connection."""
        self.say(*lines)
        self._transport.close()

    def log_in(self, tag, initial):
        """Judges the message that came with the command, or asks for it."""
        if initial:
            self.say(self.verdict(tag, self._opens(*bearer(initial))))
        else:
            self._tag = tag
            self.say(self.PROMPT)

    def answer(self, line):
        """Answers a command."""
        raise NotImplementedError

    def verdict(self, tag, is_open):
        """The answer to a login."""
        raise NotImplementedError


class Imap(Server):
    """RFC 3501."""

    CAPABILITIES = "IMAP4rev1 SASL-IR IDLE AUTH=XOAUTH2"
    GREETING, PROMPT = f"* OK [CAPABILITY {CAPABILITIES}] ready", "+ "

    def answer(self, line):
        tag, _, rest = line.partition(" ")
        words = rest.split(" ")
        match words[0].upper():
            case "AUTHENTICATE":
                self.log_in(tag, "".join(words[2:]))
            case "CAPABILITY":
                self.say(f"* CAPABILITY {self.CAPABILITIES}", f"{tag} OK done")
            case "LOGOUT":
                self.leave("* BYE until later", f"{tag} OK done")
            case _:
                self.say(f"{tag} OK done")

    def verdict(self, tag, is_open):
        return f"{tag} OK [CAPABILITY {self.CAPABILITIES}] done" if is_open else f"{tag} NO [AUTHENTICATIONFAILED] this token opens nothing here"


class Pop3(Server):
    """RFC 1939."""

    GREETING, PROMPT = "+OK ready", "+ "

    def answer(self, line):
        words = line.split(" ")
        match words[0].upper():
            case "CAPA":
                self.say("+OK", "SASL XOAUTH2", "RESP-CODES", "USER", ".")
            case "AUTH":
                self.log_in("", "".join(words[2:]))
            case "QUIT":
                self.leave("+OK until later")
            case _:
                self.say("+OK 0 0")

    def verdict(self, tag, is_open):
        return "+OK done" if is_open else "-ERR [AUTH] this token opens nothing here"


class Smtp(Server):
    """RFC 5321."""

    GREETING, PROMPT = "220 mail.test ESMTP ready", "334 "

    def answer(self, line):
        words = line.split(" ")
        match words[0].upper():
            case "EHLO":
                self.say("250-mail.test", "250-8BITMIME", "250 AUTH XOAUTH2")
            case "AUTH":
                self.log_in("", "".join(words[2:]))
            case "QUIT":
                self.leave("221 2.0.0 until later")
            case _:
                self.say("250 2.0.0 done")

    def verdict(self, tag, is_open):
        return "235 2.7.0 done" if is_open else "535 5.7.8 this token opens nothing here"


class Mailboxes:
    """What all servers know: when a token has opened a mailbox first."""

    def __init__(self, secret):
        self._tokens, self._used = AccessTokens(secret), {}

    def opens(self, user, token):
        """Whether an access token opens this mailbox now."""
        number = self._tokens.number(user, token)
        if number is not None:
            self._used.setdefault(number, time.time())
        return number is not None

    async def serve_driver(self, reader, writer):
        """One question of the driver."""
        asked = json.loads(await reader.readline() or "[]")
        writer.write(json.dumps([self._used.get(number) for number in asked]).encode())
        await writer.drain()
        writer.close()


async def main():
    """Serves until it is ended."""
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    mailboxes = Mailboxes(settings["secret"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings["certificate"], settings["key"])
    loop = asyncio.get_running_loop()
    for protocol, kind in zip(PROTOCOLS, (Imap, Pop3, Smtp)):
        await loop.create_server(lambda kind=kind: kind(mailboxes.opens), "127.0.0.1", settings["ports"][protocol], ssl=context, backlog=1024)
    await asyncio.start_server(mailboxes.serve_driver, "127.0.0.1", settings["driver"], limit=1 << 24)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
