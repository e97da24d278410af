"""Mail programs that log in again and again, at a steady rate. A process of its own, so that nothing else delays it.

    python3 load.py SETTINGS.json

Settings: ports (of the load balancer, by protocol), accounts (pairs of address and password), rate (logins a second), seconds, and
result, the file for what came of them. With at_once, there is one login for each account instead, so many at a time. Each login is one
by the next protocol; if it is refused temporarily, the same is tried again after
some seconds (`RETRIES`), for at most `PATIENCE` seconds. The result is a list with one entry for each login: its protocol, its address and
its tries, each with its time, how long it took, and its outcome.
"""

import asyncio
import base64
import json
import random
import sys
import time
import zlib

from tokens import PROTOCOLS

RETRIES = (1, 2, 4, 8)  # seconds before each of the next tries, and then before all others; shortened by up to a quarter
PATIENCE = 180
TIMEOUT = 45

# What the codes of a refusal mean: those that are good for another try.
TEMPORARY = {"imap": ("[UNAVAILABLE]", "[LIMIT]", "[INUSE]", "[SERVERBUG]"), "pop3": ("[SYS/TEMP]", "[IN-USE]", "[LOGIN-DELAY]"), "smtp": ()}


class Refused(Exception):
    """The server's words."""


def outcome_of(protocol, words):
    """What a refusal means."""
    if protocol == "smtp":
        return "temporary" if words.startswith("4") else "permanent"
    is_temporary = any(code in words for code in TEMPORARY[protocol]) or words.startswith("* BYE")
    return "temporary" if is_temporary else "permanent"


class Connection:
    """A connection to the load balancer."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer

    async def expect(self, *starts):
        """Reads lines until one begins with one of these. Any other that answers is a refusal."""
        while True:
            line = (await self._reader.readline()).decode("utf-8", "replace").rstrip("\r\n")
            if not line:
                raise ConnectionError("the connection has ended")
            if line.startswith(starts):
                return line
            if not line.startswith(("* OK", "* CAPABILITY", "250-")):
                raise Refused(line)

    def say(self, line):
        """Sends a line."""
        self._writer.write(f"{line}\r\n".encode())


async def imap(connection, address, password):
    """Until the server's yes."""
    await connection.expect("* OK")
    connection.say(f'a LOGIN "{address}" "{password}"')
    await connection.expect("a OK")
    return "z LOGOUT"


async def pop3(connection, address, password):
    """Until the server's yes."""
    await connection.expect("+OK")
    connection.say(f"USER {address}")
    await connection.expect("+OK")
    connection.say(f"PASS {password}")
    await connection.expect("+OK")
    return "QUIT"


async def smtp(connection, address, password):
    """Until the server's yes."""
    await connection.expect("220")
    connection.say("EHLO client.test")
    await connection.expect("250 ")
    connection.say("AUTH PLAIN " + plain(address, password))
    await connection.expect("235")
    return "QUIT"


def plain(address, password):
    """RFC 4616."""
    return base64.b64encode(f"\0{address}\0{password}".encode()).decode()


LEAVING = set()  # tasks, which asyncio only holds weakly
DIALOGUES = {"imap": imap, "pop3": pop3, "smtp": smtp}


def proxy_header(address):
    """Each account is used at an address of its own (PROXY protocol, version 1)."""
    number = zlib.crc32(address.encode()) & 0xffffff
    return f"PROXY TCP4 10.{number >> 16}.{number >> 8 & 255}.{number & 255} 192.0.2.1 50000 993"


async def attempt(protocol, port, address, password):
    """One login. Returns its outcome and the words of a refusal; the goodbye does not count."""
    writer, goodbye = None, None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{proxy_header(address)}\r\n".encode())
        goodbye = await DIALOGUES[protocol](Connection(reader, writer), address, password)
        return "ok", ""
    except Refused as refused:
        return outcome_of(protocol, str(refused)), str(refused)
    except (OSError, asyncio.IncompleteReadError) as error:
        return "cut", str(error)
    finally:
        if goodbye:
            LEAVING.add(task := asyncio.ensure_future(leave(reader, writer, goodbye)))
            task.add_done_callback(LEAVING.discard)
        elif writer:
            writer.close()


async def leave(reader, writer, goodbye):
    """Says goodbye, waits for the server's for a moment, and closes the connection."""
    try:
        writer.write(f"{goodbye}\r\n".encode())
        await asyncio.wait_for(reader.read(-1), 2)
    except (OSError, asyncio.TimeoutError):
        pass
    writer.close()


async def login(protocol, port, address, password):
    """Tries until it works, is refused for good, or patience is at an end."""
    tries, begun = [], time.monotonic()
    while True:
        at, start = time.time(), time.monotonic()
        try:
            outcome, words = await asyncio.wait_for(attempt(protocol, port, address, password), TIMEOUT)
        except asyncio.TimeoutError:
            outcome, words = "cut", f"no answer within {TIMEOUT} s"
        tries.append({"at": at, "seconds": time.monotonic() - start, "outcome": outcome, "words": words})
        # After a permanent refusal a mail program asks its user instead of trying again.
        if outcome in ("ok", "permanent") or time.monotonic() - begun > PATIENCE:
            return {"protocol": protocol, "address": address, "tries": tries}
        await asyncio.sleep(RETRIES[min(len(tries), len(RETRIES)) - 1] * random.uniform(0.75, 1))


async def run(settings):
    """All logins, each begun when it is due, however many are under way."""
    accounts, rate, logins = settings["accounts"], settings["rate"], []
    random.shuffle(accounts)
    start = time.monotonic()
    for number in range(int(rate * settings["seconds"])):
        await asyncio.sleep(max(0, start + number / rate - time.monotonic()))
        protocol = PROTOCOLS[number % len(PROTOCOLS)]
        address, password = accounts[number % len(accounts)]
        logins.append(asyncio.ensure_future(login(protocol, settings["ports"][protocol], address, password)))
    return await asyncio.gather(*logins)


async def run_once(settings):
    """One login for each account, so many at a time."""
    logins, numbered, ports = [], enumerate(settings["accounts"]), settings["ports"]

    async def worker():
        for number, (address, password) in numbered:
            protocol = PROTOCOLS[number % len(PROTOCOLS)]
            logins.append(await login(protocol, ports[protocol], address, password))

    await asyncio.gather(*(worker() for _ in range(settings["at_once"])))
    return logins


def main():
    """Runs what the settings say."""
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    results = asyncio.run(run_once(settings) if settings["at_once"] else run(settings))
    with open(settings["result"], "w", encoding="utf-8") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
