"""A tester of live video: with a simulated network, or with a gateway that behaves as badly as a test wants."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.daemon.daemon import Daemon
from jobtester.domain.orchestrators import LIVE_VIDEO
from jobtester.simulator.live_video.live_log import LoggedLiveJob
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import Scenario
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import ResultRow
from tests.harness.ports import free_port
from tests.harness.simulated import SimulatedTester, simulated_tester

GRACE_S = 1.0
TARGET = "https://127.0.0.1:8935"
ADDRESS = f"0x{7:040x}"
FPS = 20  # a frame is late only after 50 ms; of fewer a container may say that its input is too slow
SHORT_VIDEO: dict[str, Any] = {
    "width": 128, "height": 128, "fps": FPS, "duration": "5s", "max_gap": "2s", "max_reaction": "3s",
    "passes_through": True,
}  # fmt: skip


def live_tables(port: int, *, per_model: dict[str, Any] | None = None, **live_video: Any) -> dict[str, Any]:
    """Return the tables that live video needs: small pictures, a few seconds, and a listener on this machine.

    The parameters change so late that no reaction is waited for; `per_model` overrides that for some models.
    """
    table = {
        "callback_host": "127.0.0.1", "host": "127.0.0.1", "port": port, "spacing": "100ms", "pool_refresh": "36s",
        **live_video,
    }  # fmt: skip
    rules = {"timeout": "6s", "cold_timeout": "6s", "video": SHORT_VIDEO, "per_model": per_model or {}}
    return {"live_video": table, "pipelines": {LIVE_VIDEO: rules}}


@asynccontextmanager
async def live_tester(
    scenario: Scenario,
    folder: Path,
    *,
    streams: int = 2,
    per_model: dict[str, Any] | None = None,
    live_video: dict[str, Any] | None = None,
    gateways: Sequence[dict[str, Any]] = (),
    **sections: Any,
) -> AsyncIterator[SimulatedTester]:
    """Run a simulated network whose gateways call a tester of live video back."""
    port = free_port()
    specs = [
        dataclasses.replace(spec, live=dataclasses.replace(spec.live, callback_port=port)) for spec in scenario.gateways
    ]
    scenario = dataclasses.replace(scenario, gateways=tuple(specs))
    added = list(gateways) or [{"streams": streams} for _ in specs]
    tables = live_tables(port, per_model=per_model, **(live_video or {}))
    async with simulated_tester(scenario, folder, gateways=added, **{**tables, **sections}) as tester:
        yield tester


def find_live_job(network: Network, row: ResultRow) -> LoggedLiveJob:
    """Return the simulator's entry of a result, the newest if the job was sent more than once."""
    return next(job for job in reversed(network.live_log.jobs) if job.stream_id.startswith(row.id))


def misattributed_streams(network: Network, results: Sequence[ResultRow]) -> list[ResultRow]:
    """Return every scored result whose stream somebody else served, or nobody, by the simulator's own log."""
    return [
        row
        for row in results
        if row.outcome != "unscored"
        and {session.service_uri for session in find_live_job(network, row).sessions} != {row.service_uri}
    ]


@dataclass
class StartedStream:
    """A stream as a hostile gateway sees it."""

    stream_id: str
    input_url: str
    output_url: str
    client: aiohttp.ClientSession
    callback_url: str
    is_posting: bool = False

    async def post_output(self, chunks: AsyncIterator[bytes]) -> int:
        """Post an output chunk by chunk; return the status, 0 if the connection broke."""
        self.is_posting = True
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            async with self.client.post(self.output_url, data=chunks) as response:
                return response.status
        return 0

    async def read_input(self, seconds: float = 60.0) -> int:
        """Read the input for so long; return how many bytes came."""
        count = 0
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(seconds), self.client.get(self.input_url) as response:
                async for chunk in response.content.iter_any():
                    count += len(chunk)
        return count

    async def ask(self, question: str, password: str = "") -> int:
        """Ask about the input as of a MediaMTX server, `get` or `kick`; return the status."""
        credentials = base64.b64encode(f"admin:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"} if password else {}
        url = f"{self.callback_url}/v3/rtmpconns/{question}/{self.stream_id}"
        async with self.client.request("GET" if question == "get" else "POST", url, headers=headers) as response:
            return response.status


async def _answer_health(_request: web.Request) -> web.Response:
    return web.Response()


Behavior = Callable[[StartedStream], Awaitable[None]]


@dataclass
class HostileGateway:
    """A gateway that takes every stream, says what `status` returns of it, and does with it what `behave` does."""

    behave: Behavior
    status: Callable[[], Awaitable[web.StreamResponse] | web.StreamResponse] = field(default=lambda: good_status())
    streams: list[StartedStream] = field(default_factory=list)
    updates: list[Any] = field(default_factory=list)
    port: int = 0
    hangs_at_start: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _client: aiohttp.ClientSession | None = None

    async def _start(self, request: web.Request) -> web.Response:
        assert self._client is not None
        form = await request.post()
        query = parse_qs(str(form["query"]))
        input_url = str(form["rtmp_url"])
        stream = StartedStream(
            query["streamId"][0], input_url, query["rtmpOutput"][0], self._client, input_url.rpartition("/in/")[0]
        )
        self.streams.append(stream)
        if self.hangs_at_start:
            await asyncio.sleep(600)
        task = asyncio.create_task(self._run(stream))
        self._tasks.add(task)
        return web.Response()

    async def _run(self, stream: StartedStream) -> None:
        with contextlib.suppress(aiohttp.ClientError):  # the tester has ended the stream
            await self.behave(stream)

    async def _answer_status(self, _request: web.Request) -> web.StreamResponse:
        answer = self.status()
        return answer if isinstance(answer, web.StreamResponse) else await answer

    async def _take_update(self, request: web.Request) -> web.Response:
        self.updates.append(await request.json())
        return web.Response()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen while the body runs."""
        app = web.Application()
        app.router.add_get("/healthz", _answer_health)
        app.router.add_post("/live/video-to-video/{stream}/start", self._start)
        app.router.add_get("/live/video-to-video/{stream}/status", self._answer_status)
        app.router.add_post("/live/video-to-video/{stream}/update", self._take_update)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as self._client:
            try:
                yield
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await runner.cleanup()


def good_status(**changes: Any) -> web.Response:
    """Return the status of a stream that the target serves well."""
    return web.json_response(
        {
            "state": "ONLINE", "start_time": 1, "inference_status": {"fps": 23.5, "restart_count": 0},
            "orchestrator_info": {"address": ADDRESS, "url": TARGET}, "gateway_status": {}, **changes,
        }
    )  # fmt: skip


def hostile_tables(gateway: HostileGateway, folder: Path, port: int | None = None, **live_video: Any) -> dict[str, Any]:
    """Return a configuration for one orchestrator behind a hostile gateway; the tester is to listen on `port`."""
    url = f"http://127.0.0.1:{gateway.port}"
    return {
        "region": "FRA",
        "schedule": {"interval": "1h", "run_at_start": False, "offset": f"{(time.time() + 1800) % 3600:.0f}s"},
        "server": {"host": "127.0.0.1", "port": 0},
        "gateways": [{"name": "g", "url": url, "targeting": "query", "streams": 1}],
        "limits": {"grace": f"{GRACE_S:g}s"},
        "leaderboard": {"url": url, "post": False},
        "store": {"path": str(folder / "jobtester.db")},
        "discovery": {
            "source": "static",
            "orchestrators": [
                {
                    "address": ADDRESS, "service_uri": TARGET,
                    "capabilities": [{"pipeline": LIVE_VIDEO, "model": "noop", "warm": True}],
                }
            ],
        },
        **live_tables(free_port() if port is None else port, **live_video),
    }  # fmt: skip


@asynccontextmanager
async def hostile_tester(gateway: HostileGateway, folder: Path, **live_video: Any) -> AsyncIterator[Daemon]:
    """Run a tester of one orchestrator behind a hostile gateway."""
    async with gateway.listening():
        loaded = Configuration.from_tables(hostile_tables(gateway, folder, **live_video), origin="test")
        async with open_daemon(loaded) as daemon:
            yield daemon


async def run_one(daemon: Daemon) -> ResultRow:
    """Run a tick of one job and return its result."""
    report = await daemon.run_once("test")
    rows = await Queries(daemon.database).page(ResultFilters(tick=report.tick), limit=10)
    assert len(rows) == 1, report
    return rows[0]


def assert_nothing_is_left() -> None:
    """Assert that no thread, no child process and no task of a stream runs."""
    threads = [thread.name for thread in threading.enumerate() if "video" in thread.name]
    tasks = [
        task.get_name() for task in asyncio.all_tasks() if "video" in task.get_name() or "frame" in task.get_name()
    ]
    assert (threads, tasks, find_decoders(os.getpid())) == ([], [], [])


def find_decoders(pid: int) -> list[int]:
    """Return the decoder processes among the children of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if is_decoder(int(child))]


def is_decoder(pid: int) -> bool:
    """Return True while a decoder process runs under this id."""
    with contextlib.suppress(OSError):
        return b"jobtester.video" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
