"""A port of the simulated network, which may be closed while somebody is just connecting."""

from __future__ import annotations

import asyncio

from aiohttp import web


class Listener(web.TCPSite):
    """Lets in who was accepted before it stops: asyncio leaves such a connection open and unserved."""

    async def stop(self) -> None:
        """Accept nobody any more, and then stop."""
        if isinstance(self._server, asyncio.Server):
            for one in self._server.sockets:
                asyncio.get_running_loop().remove_reader(one.fileno())
            for _ in range(2):  # the connection gets its transport in one turn of the loop, its handler in the next
                await asyncio.sleep(0)
        await super().stop()
