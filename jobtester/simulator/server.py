"""How every port of the simulated network listens."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from jobtester.simulator.timed_sockets import TimedListener


class DrainingSite(web.SockSite):
    """A site that serves the connections accepted before it stops.

    asyncio removes the handlers of a server that closes at once, which leaves a connection that was accepted in the
    same turn of the loop open and unserved: its client would wait until its own timeout.
    """

    async def stop(self) -> None:
        """Stop accepting, let accepted connections reach their handlers, then stop."""
        if isinstance(self._server, asyncio.Server):
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            for _ in range(2):  # the connection gets its transport in one turn of the loop, its handler in the next
                await asyncio.sleep(0)
        await super().stop()


async def start_listening(runner: web.AppRunner, host: str, port: int) -> int:
    """Set the runner up, listen, and return the port. Port 0 takes any free one."""
    await runner.setup()
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    await DrainingSite(runner, TimedListener(fileno=listening.detach())).start()
    return int(runner.addresses[0][1])
