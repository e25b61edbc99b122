"""The shipped program as people run it: the daemon as a process with its log in a file, and commands beside it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import tomli_w

from jobtester.simulator.network import Network
from tests.running import tables

_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 200.0


def environment(**more: str) -> dict[str, str]:
    """Give an environment in which nothing configures the tester but `more`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBTESTER_")}
    return {**clean, "PYTHONPATH": str(_ROOT), **more}


def configure(network: Network, folder: Path, **sections: Any) -> None:
    """Write the folder's config.toml for a network."""
    (folder / "config.toml").write_text(tomli_w.dumps(tables(network, folder, **sections)))


async def command(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run one command in a folder and wait for it; the simulated network goes on meanwhile."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "jobtester", *arguments],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        timeout=_PATIENCE_S,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Serving:
    """A daemon as a process."""

    process: asyncio.subprocess.Process
    log: Path
    port: int

    def lines(self) -> list[str]:
        """Give what it has logged so far."""
        return self.log.read_text("utf-8", "replace").splitlines()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give the log's events of a name."""
        found = [orjson.loads(line) for line in self.lines() if line.startswith("{") and line.endswith("}")]
        return [line for line in found if line["event"] == name]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Serving]:
    """Run the daemon of a folder until the block is left; it then has to stop in order, without one traceback."""
    log = folder / "serving.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "jobtester", "serve", cwd=folder, stderr=file, env=environment()
        )
    running = Serving(process, log, 0)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not running.events("serving"):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        yield Serving(process, log, int(running.events("serving")[0]["port"]))
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), _PATIENCE_S)
    assert process.returncode == 0
    assert not [line for line in running.lines() if "Traceback" in line]
