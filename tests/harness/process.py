"""The shipped command as people run it: the daemon as a process with its log, and commands beside it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import tomli_w

from jobtester.simulator.network import Network
from tests.harness.metrics import without_region
from tests.harness.simulated import config_tables
from tests.harness.waiting import until

ROOT = Path(__file__).parents[2]
_COMMAND_TIMEOUT_S = 200.0
_LOG_TIMEOUT_S = 100.0
_LONGEST_LINE = 1 << 20
VALID_CONFIG = """
region = "FRA"
[schedule]
interval = "1h"
[server]
host = "127.0.0.1"
port = 0
[[gateways]]
name = "g"
url = "http://127.0.0.1:1"
cli_url = "http://127.0.0.1:1"
[leaderboard]
post = false
[discovery]
patience = "0s"
"""


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment without anything that configures the tester or its tables, but for `variables`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JOBTESTER_", "COLUMNS"))}
    return {**clean, "PYTHONPATH": str(ROOT), **variables}


def write_config(network: Network, folder: Path, **sections: Any) -> None:
    """Write the folder's config.toml for a network."""
    (folder / "config.toml").write_text(tomli_w.dumps(config_tables(network, folder, **sections)))


def run_command(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder and wait for its end."""
    return subprocess.run(
        [sys.executable, "-m", "jobtester", *arguments],
        cwd=folder, env=clean_environment(**variables), capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )  # fmt: skip


async def run_command_in_thread(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command and wait for its end, while the simulated network of this process goes on."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "jobtester", *arguments],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )


async def start_command(
    *arguments: str,
    folder: Path,
    stdout: int | None = None,
    stderr: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Start the command in a folder."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobtester", *arguments,
        cwd=folder, env=clean_environment(**(environment or {})), stdout=stdout, stderr=stderr, limit=_LONGEST_LINE,
    )  # fmt: skip


class DaemonProcess:
    """A running daemon; `lines` is its log so far, a line that is not JSON as the event `noise`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._lines_read = 0
        self._line_added = asyncio.Condition()
        self.reader = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, folder: Path) -> DaemonProcess:
        """Start `jobtester serve` with the folder's config.toml."""
        return cls(await start_command("serve", folder=folder, stderr=asyncio.subprocess.PIPE))

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if not line.endswith(b"\n"):
                break  # it was killed while it wrote this
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": "noise", "text": line.decode("utf-8", "replace")})
            async with self._line_added:
                self._line_added.notify_all()

    @property
    def port(self) -> int:
        """Return the port that the log names."""
        return int(self.events("serving")[0]["port"])

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of this name so far."""
        return [line for line in self.lines if line["event"] == name]

    async def next_event(self, name: str) -> dict[str, Any]:
        """Wait for the next log line of this name, after the one that was waited for last."""
        self._lines_read = await self._wait_for_line(name, self._lines_read) + 1
        return self.lines[self._lines_read - 1]

    async def any_event(self, name: str) -> None:
        """Wait until there is or has been a log line of this name."""
        await self._wait_for_line(name, 0)

    async def _wait_for_line(self, name: str, start: int) -> int:
        def index() -> int | None:
            return next((at for at in range(start, len(self.lines)) if self.lines[at]["event"] == name), None)

        try:
            async with asyncio.timeout(_LOG_TIMEOUT_S), self._line_added:
                await self._line_added.wait_for(lambda: index() is not None)
        except TimeoutError:
            raise AssertionError(f"no {name} in {json.dumps(self.lines, indent=1)}") from None
        at = index()
        assert at is not None
        return at

    async def wait_delivered(self, count: int) -> None:
        """Wait until that many stats are delivered, as /metrics reports."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        expected_line = f'jobtester_outbox_entries{{state="delivered"}} {float(count)}'
        async with aiohttp.ClientSession() as session:

            async def is_delivered() -> bool:
                async with session.get(url) as response:
                    return expected_line in without_region(await response.text()).splitlines()

            await until(is_delivered, f"{count} stats are delivered", pause_s=0.1)

    async def kill(self) -> None:
        """Kill the process, and read the rest of its log."""
        self.process.kill()
        await self.process.wait()
        await self.reader

    async def stop(self) -> None:
        """Stop the process in order; it has to exit with 0 and without a traceback in its log."""
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.wait(), _LOG_TIMEOUT_S)
        await self.reader
        assert self.process.returncode == 0, self.lines[-20:]
        assert not [line for line in self.lines if "Traceback" in json.dumps(line)]


@asynccontextmanager
async def running_daemon(folder: Path) -> AsyncIterator[DaemonProcess]:
    """Run the daemon of a folder until the block is left; it then has to stop in order."""
    daemon = await DaemonProcess.start(folder)
    try:
        await daemon.any_event("serving")
        yield daemon
    finally:
        await daemon.stop()
