"""Mail servers that know one mechanism, XOAUTH2, and after the login little more than the goodbye."""

import asyncio
import base64
import binascii

PROTOCOLS = ("imap", "pop3", "smtp")


def bearer(encoded):
    """The user and the token of an XOAUTH2 message; empty if it is none."""
    try:
        fields = base64.b64decode(encoded).decode().split("\1")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    named = dict(field.partition("=")[::2] for field in fields if field)
    return named.get("user", ""), named.get("auth", "").removeprefix("Bearer ")


class Server:
    """One connection. `opens` judges a user and a token."""

    def __init__(self, reader, writer, opens):
        self._reader, self._writer, self._opens = reader, writer, opens

    async def line(self):
        """The client's next line without its end; None after its last one."""
        line = await self._reader.readline()
        return line.decode("utf-8", "replace").rstrip("\r\n") if line else None

    def say(self, *lines):
        """Sends lines."""
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def log_in(self, initial, prompt):
        """Whether the message opens the mailbox. The client sends it with its command, or after the prompt."""
        if not initial:
            self.say(prompt)
            initial = await self.line() or ""
        return self._opens(*bearer(initial))

    async def serve(self):
        """The whole conversation."""
        raise NotImplementedError


class Imap(Server):
    """RFC 3501."""

    CAPABILITIES = "IMAP4rev1 SASL-IR IDLE AUTH=XOAUTH2"

    async def serve(self):
        self.say(f"* OK [CAPABILITY {self.CAPABILITIES}] ready")
        while (line := await self.line()) is not None:
            tag, _, rest = line.partition(" ")
            words = rest.split(" ")
            match words[0].upper():
                case "AUTHENTICATE":
                    is_open = await self.log_in("".join(words[2:]), "+ ")
                    self.say(f"{tag} OK [CAPABILITY {self.CAPABILITIES}] done" if is_open
                             else f"{tag} NO [AUTHENTICATIONFAILED] this token opens nothing here")
                case "CAPABILITY":
                    self.say(f"* CAPABILITY {self.CAPABILITIES}", f"{tag} OK done")
                case "LOGOUT":
                    return self.say("* BYE until later", f"{tag} OK done")
                case _:
                    self.say(f"{tag} OK done")


class Pop3(Server):
    """RFC 1939."""

    async def serve(self):
        self.say("+OK ready")
        while (line := await self.line()) is not None:
            words = line.split(" ")
            match words[0].upper():
                case "CAPA":
                    self.say("+OK", "SASL XOAUTH2", "RESP-CODES", "USER", ".")
                case "AUTH":
                    is_open = await self.log_in("".join(words[2:]), "+ ")
                    self.say("+OK done" if is_open else "-ERR [AUTH] this token opens nothing here")
                case "QUIT":
                    return self.say("+OK until later")
                case _:
                    self.say("+OK 0 0")


class Smtp(Server):
    """RFC 5321."""

    async def serve(self):
        self.say("220 mail.test ESMTP ready")
        while (line := await self.line()) is not None:
            words = line.split(" ")
            match words[0].upper():
                case "EHLO":
                    self.say("250-mail.test", "250-8BITMIME", "250 AUTH XOAUTH2")
                case "AUTH":
                    is_open = await self.log_in("".join(words[2:]), "334 ")
                    self.say("235 2.7.0 done" if is_open else "535 5.7.8 this token opens nothing here")
                case "QUIT":
                    return self.say("221 2.0.0 until later")
                case _:
                    self.say("250 2.0.0 done")


def server(protocol, opens):
    """What asyncio calls for each connection. `opens` judges a protocol, a user and a token."""
    kind = {"imap": Imap, "pop3": Pop3, "smtp": Smtp}[protocol]

    async def serve(reader, writer):
        try:
            await kind(reader, writer, lambda user, token: opens(protocol, user, token)).serve()
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return serve
