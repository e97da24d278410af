"""A network between a replica and the database that can be cut: a TCP forwarder."""

import asyncio
import threading

from process import free_port


class Forwarder:
    """Forwards connections from `port` to a target, in a thread of its own.

    While it is cut, it still accepts connections, as a firewall that drops packets seems to do, and keeps what it gets: bytes and
    ends of connections arrive when the network is back, as after a cable was unplugged.
    """

    def __init__(self, target):
        self.port, self._target = free_port(), target
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._pumps = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        server = asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=128)
        asyncio.run_coroutine_threadsafe(server, self._loop).result(10)

    def cut(self):
        """From now on nothing gets through, and nobody is told."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def restore(self):
        """Everything gets through again."""
        self._loop.call_soon_threadsafe(self._flows.set)

    async def _serve(self, reader, writer):
        await self._flows.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((reader, back), (there, writer))]
        self._pumps.update(pumps)
        for pump in pumps:
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, reader, writer):
        """Passes bytes on in one direction, and then the end."""
        try:
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        await self._flows.wait()
        writer.close()
