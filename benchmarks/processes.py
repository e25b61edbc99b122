"""Run a module of the benchmarks in a process of its own: once, for what it measures, or for a block, by commands."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

_MAX_LINE_BYTES = 2**30


async def run_module(module: str, *arguments: str) -> Any:
    """Run a module to its end, and return the JSON that it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return json.loads(out)


@dataclass(slots=True)
class CommandedProcess:
    """A module that answers each line of JSON with one. `started` is what it printed when it was ready."""

    started: Any
    _process: asyncio.subprocess.Process
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def send_command(self, **command: Any) -> Any:
        """Send a command and return its response."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            return json.loads(await self._process.stdout.readline())


@asynccontextmanager
async def commanded_module(module: str, *arguments: str) -> AsyncIterator[CommandedProcess]:
    """Run a module until the block ends, which closes its standard input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_MAX_LINE_BYTES,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield CommandedProcess(json.loads(await process.stdout.readline()), process)
    finally:
        process.stdin.close()
        await process.wait()
