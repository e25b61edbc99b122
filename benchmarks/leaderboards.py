"""Run simulated Leaderboards in a process of their own, whose faults and outages a benchmark commands."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import CommandedProcess, commanded_module
from jobtester.simulator.leaderboard.faults import Faults
from jobtester.simulator.leaderboard.leaderboard import Leaderboard


@dataclass(slots=True)
class RemoteLeaderboards:
    """Leaderboards in another process, by their URLs."""

    process: CommandedProcess
    urls: list[str]

    async def command(self, number: int, do: str, **options: Any) -> Any:
        """Send a command to one Leaderboard, and return the answer."""
        return await self.process.send_command(number=number, do=do, **options)


@asynccontextmanager
async def leaderboards(count: int = 1, *, secret: str = "bench") -> AsyncIterator[RemoteLeaderboards]:
    """Start healthy Leaderboards."""
    async with commanded_module("benchmarks.leaderboards", str(count), secret) as process:
        yield RemoteLeaderboards(process, process.started)


class _SilentServer:
    """Act as a Leaderboard whose machine hangs: accept connections and send nothing."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, port: int) -> None:
        """Listen on a port."""

        async def keep(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)

        self._server = await asyncio.start_server(keep, "127.0.0.1", port, reuse_address=True)

    async def stop(self) -> None:
        """Free the port. Open connections stay silent: a new process does not know those of the old one."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def connections(self) -> int:
        """Return how many connections were ever accepted."""
        return len(self._writers)


async def _run_command(leaderboard: Leaderboard, silent: _SilentServer, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command, and return what the Leaderboard has."""
    match command["do"]:
        case "faults":
            leaderboard.faults = Faults(**command["faults"])
        case "stop":
            await leaderboard.stop()
        case "hang":
            await leaderboard.stop()
            await silent.start(leaderboard.port)
        case "start":
            await silent.stop()
            await leaderboard.start()
    since = command.get("since", 0.0)
    return {
        "now": time.time(),
        "rows": len(leaderboard.rows),
        "distinct": len({row.body for row in leaderboard.rows}),
        "first_at": min((row.insert_time for row in leaderboard.rows if row.insert_time >= since), default=None),
        "posts": dict(leaderboard.posts),
        "silent_connections": silent.connections,
    }


async def _serve(count: int, secret: str) -> None:
    servers = [(Leaderboard(secret=secret, seed=number), _SilentServer()) for number in range(count)]
    for leaderboard, _ in servers:
        await leaderboard.start()
    print(json.dumps([leaderboard.url for leaderboard, _ in servers]), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        leaderboard, silent = servers[command["number"]]
        print(json.dumps(await _run_command(leaderboard, silent, command)), flush=True)
    for leaderboard, silent in servers:
        await silent.stop()
        await leaderboard.stop()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
