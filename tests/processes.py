"""The shipped command as a process of its own, with what it logs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

_HOME = Path(__file__).parents[1]


async def start(
    *arguments: str,
    folder: Path,
    stdout: int | None = None,
    stderr: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Start the shipped command in a folder, with nothing of ours in its environment but what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBTESTER_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobtester", *arguments,
        cwd=folder, env={**clean, "PYTHONPATH": str(_HOME), **(environment or {})}, stdout=stdout, stderr=stderr,
    )  # fmt: skip


class Serving:
    """A running daemon; `lines` is its log so far, a line that is not JSON as the event `noise`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._seen = 0
        self._grew = asyncio.Condition()
        self.reader = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, folder: Path) -> Serving:
        """Start `jobtester serve` with the folder's config.toml."""
        return cls(await start("serve", folder=folder, stderr=asyncio.subprocess.PIPE))

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if not line.endswith(b"\n"):
                break  # it was killed while it wrote this
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": "noise", "text": line.decode("utf-8", "replace")})
            async with self._grew:
                self._grew.notify_all()

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for the next log line of this name, after the one that was waited for last."""
        self._seen = await self._find(name, self._seen) + 1
        return self.lines[self._seen - 1]

    async def ever(self, name: str) -> None:
        """Wait until there is or has been a log line of this name."""
        await self._find(name, 0)

    async def _find(self, name: str, since: int) -> int:
        def found() -> int | None:
            return next((at for at in range(since, len(self.lines)) if self.lines[at]["event"] == name), None)

        try:
            async with asyncio.timeout(60), self._grew:
                await self._grew.wait_for(lambda: found() is not None)
        except TimeoutError:
            raise AssertionError(f"no {name} in {json.dumps(self.lines, indent=1)}") from None
        at = found()
        assert at is not None
        return at

    async def all_delivered(self, count: int) -> None:
        """Wait until that many stats are delivered, by what /metrics tells."""
        port = next(line["port"] for line in self.lines if line["event"] == "serving")
        wanted = f'jobtester_outbox_entries{{state="delivered"}} {float(count)}'
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    if wanted in (await answer.text()).splitlines():
                        return
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """Kill it outright, and read what it had still said."""
        self.process.kill()
        await self.process.wait()
        await self.reader

    async def stop(self) -> None:
        """Stop it in order; it has to end well, and must not have met anything it did not expect."""
        self.process.terminate()
        await asyncio.wait_for(self.process.wait(), 60)
        await self.reader
        assert self.process.returncode == 0, self.lines[-20:]
        assert not [line for line in self.lines if "Traceback" in json.dumps(line)]
