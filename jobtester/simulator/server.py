"""How every port of the simulated network listens."""

from __future__ import annotations

import asyncio

from aiohttp import web


class DrainingSite(web.TCPSite):
    """A site that serves the connections accepted before it stops.

    asyncio removes the handlers of a server that closes at once, which leaves a connection that was accepted in the
    same turn of the loop open and unserved: its client would wait until its own timeout.
    """

    async def stop(self) -> None:
        """Stop accepting, let accepted connections reach their handlers, then stop."""
        if isinstance(self._server, asyncio.Server):
            for socket in self._server.sockets:
                asyncio.get_running_loop().remove_reader(socket.fileno())
            for _ in range(2):  # the connection gets its transport in one turn of the loop, its handler in the next
                await asyncio.sleep(0)
        await super().stop()


async def start_listening(runner: web.AppRunner, host: str, port: int) -> int:
    """Set the runner up, listen, and return the port. Port 0 takes any free one."""
    await runner.setup()
    await DrainingSite(runner, host, port, reuse_address=True).start()
    return int(runner.addresses[0][1])
