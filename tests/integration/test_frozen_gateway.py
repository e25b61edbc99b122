"""A gateway that freezes or goes during a job fails nobody: silence is charged only while the gateway lives."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.store.queries import Queries, ResultFilters


@pytest.mark.parametrize(
    ("alive", "reason"), [(True, "timeout"), pytest.param(False, "gateway_lost", marks=pytest.mark.slow)]
)
async def test_silence_is_judged_by_whether_the_gateway_lives(alive: bool, reason: str, tmp_path: Path) -> None:
    """The same job without an answer: a failure where /healthz answers meanwhile, unscored where nothing does."""
    jobs = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal jobs
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            jobs += head.startswith(b"POST /llm")
            if head.startswith(b"GET /healthz") and (alive or not jobs):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        node: dict[str, Any] = {"address": "0x" + "1" * 40, "service_uri": "https://slow.example"}
        content = {
            "server": {"host": "127.0.0.1", "port": 0},
            "gateways": [{"url": f"http://127.0.0.1:{port}", "targeting": "query", "metrics": False}],
            "leaderboard": {"post": False},
            "store": {"path": str(tmp_path / "jobtester.db")},
            "discovery": {
                "source": "static",
                "orchestrators": [{**node, "capabilities": [{"pipeline": "llm", "model": "m"}]}],
            },
            "pipelines": {"llm": {"timeout": "1s"}},
        }
        async with open_daemon(Configuration.from_tables(content, origin="test")) as running:
            await running.run_once("test")
            (row,) = await Queries(running.database).page(ResultFilters())
        assert (row.reason, jobs) == (reason, 1)


@pytest.mark.parametrize(("alive", "reason"), [(True, "unreachable"), (False, "gateway_lost")])
async def test_a_gateway_that_goes_is_not_taken_for_one_that_lives(alive: bool, reason: str, tmp_path: Path) -> None:
    """It drops the job, and its listener answers a moment longer; the orchestrator cannot be reached by anybody."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /healthz"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                if gone.is_set() and not alive:
                    server.close()
            else:
                gone.set()
        writer.close()

    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as neighbor,
    ):
        capability = {"pipeline": "llm", "model": "m"}
        others = f"http://127.0.0.1:{neighbor.sockets[0].getsockname()[1]}"
        content = {
            "server": {"host": "127.0.0.1", "port": 0},
            "gateways": [
                {
                    "url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
                    "targeting": "query",
                    "metrics": False,
                }
            ],
            "leaderboard": {"post": False},
            "store": {"path": str(tmp_path / "jobtester.db")},
            "discovery": {
                "source": "static",
                "orchestrators": [
                    {
                        "address": "0x" + "1" * 40,
                        "service_uri": "https://nowhere.invalid",
                        "capabilities": [capability],
                    },
                    {"address": "0x" + "2" * 40, "service_uri": others},
                ],
            },
        }
        async with open_daemon(Configuration.from_tables(content, origin="test")) as running:
            await running.run_once("test")
            (row,) = await Queries(running.database).page(ResultFilters())
        assert row.reason == reason, row.message
