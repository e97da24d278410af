"""The provider's authorization server, in a process of its own.

    python3 provider.py SETTINGS.json

Each refresh replaces the refresh token. The second use of one ends the grant, and the report says who used it both times. Each
replica has a client secret of its own, so that a request says which replica has sent it. The driver's routes are on the port of the
token endpoint: see `Provider.ADMIN`.
"""

import asyncio
import json
import re
import secrets
import sys
import time
import urllib.parse

from tokens import AccessTokens


LENGTH = re.compile(rb"\ncontent-length: *(\d+)", re.IGNORECASE)


class Grant:
    """A person's consent: the one refresh token that is good, and what became of those before it."""

    def __init__(self, address):
        self.address, self.ended, self.used = address, False, {}
        self.refresh_token = secrets.token_urlsafe(16)


class Provider:
    """The authorization server."""

    # The driver's routes, and what each does with the fields of its request.
    ADMIN = {
        "/admin/grant": "grant",      # {"addresses": [...]}: a refresh token for each
        "/admin/hold": "hold",        # {"spent": bool}: requests wait from now on, before or after their token is spent
        "/admin/release": "release",  # all that wait go on
        "/admin/life": "set_life",    # {"seconds": n}: of access tokens that are issued from now on
        "/admin/report": "report",    # what has happened so far
        "/admin/answers": "answers",  # when each refresh was answered, by the number of its access token
    }

    def __init__(self, settings):
        self.clients = settings["secrets"]  # a replica's name by its client secret
        self.seconds, self.pause, self.access = settings["seconds"], settings["pause"], AccessTokens(settings["secret"])
        self.grants, self.by_address, self.twice = {}, {}, []
        self.refreshes, self.unknown, self.uses = {}, 0, []
        self.held, self.holds = [], None
        self.released = asyncio.Event()

    # What the driver can ask for

    def grant(self, addresses):
        """New grants, in place of those that there were."""
        return {address: self._new_grant(address) for address in addresses}

    def _new_grant(self, address):
        if before := self.by_address.get(address):
            before.ended = True
        grant = self.by_address[address] = Grant(address)
        self.grants[grant.refresh_token] = grant
        return grant.refresh_token

    def hold(self, spent):
        """From now on requests wait: before anything has happened, or with the answer ready to be sent."""
        self.released.clear()
        self.holds = "spent" if spent else "unspent"
        return {}

    def release(self):
        """Everything that waits goes on, and nothing else waits."""
        self.holds = None
        self.released.set()
        return {}

    def set_life(self, seconds):
        """The life of access tokens from now on."""
        self.seconds = seconds
        return {}

    def report(self):
        """What has happened so far."""
        return {"twice": self.twice, "refreshes": self.refreshes, "unknown": self.unknown, "held": self.held,
                "ended": [address for address, grant in self.by_address.items() if grant.ended]}

    def answers(self):
        """When each refresh was answered, by the number of its access token."""
        return [use["answered"] for use in self.uses]

    # Token requests

    async def token(self, fields, is_gone):
        """The answer to a token request: its status, and its content. None if the client has gone before it was looked at."""
        replica, begun = self.clients.get(fields.get("client_secret")), time.time()
        if replica is None:
            return 401, {"error": "invalid_client"}
        grant = self.grants.get(fields.get("refresh_token"))
        address = grant.address if grant else ""
        await self._wait("unspent", address)
        if is_gone():
            return None
        use = {"replica": replica, "begun": begun, "spent": None, "answered": None, "number": None}
        answer = self.refresh(fields.get("refresh_token", ""), use)
        await asyncio.sleep(self.pause)
        await self._wait("spent", address)
        use["answered"] = time.time()
        return answer

    async def _wait(self, where, address):
        if self.holds == where:
            self.held.append(address)
            await self.released.wait()
            self.held.remove(address)

    def refresh(self, token, use):
        """The answer to a use of a refresh token, which is noted in `use`."""
        grant = self.grants.get(token)
        if grant is None:
            self.unknown += 1
            return 400, {"error": "invalid_grant", "error_description": "this token was never issued"}
        if first := grant.used.get(token):
            self.twice.append({"address": grant.address, "first": first, "second": use})
            grant.ended = True
        if grant.ended:
            return 400, {"error": "invalid_grant", "error_description": "the grant has ended"}
        use["spent"], use["number"] = time.time(), len(self.uses)
        self.uses.append(use)
        grant.used[token] = use
        grant.refresh_token = secrets.token_urlsafe(16)
        self.grants[grant.refresh_token] = grant
        self.refreshes[use["replica"]] = self.refreshes.get(use["replica"], 0) + 1
        access = self.access.make(use["number"], grant.address, use["spent"] + self.seconds)
        return 200, {"access_token": access, "token_type": "Bearer", "expires_in": self.seconds, "scope": "mail",
                     "refresh_token": grant.refresh_token}

    # HTTP

    async def serve(self, reader, writer):
        """One connection, request after request."""
        try:
            while True:
                path, body = await self._request(reader)
                answer = await self._answer(path, body, lambda: reader.at_eof() or writer.is_closing())
                if answer is None:
                    break
                status, content = answer[0], json.dumps(answer[1]).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
                             b"Content-Length: %d\r\n\r\n%s" % (status, len(content), content))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, path, body, is_gone):
        if path == "/token":
            return await self.token(dict(urllib.parse.parse_qsl(body.decode())), is_gone)
        if path in self.ADMIN:
            return 200, getattr(self, self.ADMIN[path])(**json.loads(body or b"{}"))
        return 404, {}

    @staticmethod
    async def _request(reader):
        """The path and the body of a request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        return head.split(b" ", 2)[1].decode(), await reader.readexactly(int(length[1]) if length else 0)


async def main():
    """Serves until it is ended."""
    with open(sys.argv[1], encoding="utf-8") as file:
        settings = json.load(file)
    provider = Provider(settings)
    await asyncio.start_server(provider.serve, "127.0.0.1", settings["port"], backlog=1024, limit=1 << 24)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
