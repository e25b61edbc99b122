"""Recording, delivering and receiving results, on a real file and real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import tempfile
import time
from pathlib import Path

import aiohttp
from aiohttp import web

from benchmarks.network import Remote, network
from benchmarks.rows import Row, row
from benchmarks.tester import Lag, tester
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.leaderboard.client import LeaderboardClient
from jobtester.leaderboard.delivery import Delivery
from jobtester.leaderboard.options import DeliveryOptions
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox
from jobtester.store.results import Results

_RESULTS = 6_000
_POSTS = 2_000
_IN_FLIGHT = 64
_SECRET = "bench"


async def measure() -> list[Row]:
    """Record and deliver, then receive."""
    async with network("query", seed=1, orchestrators=1, pipelines=["llm"]) as remote:
        return [*await _kept(remote), *await _received(remote)]


def made(number: int) -> Result:
    """Make up a result."""
    job = Job(
        id=secrets.token_hex(8),
        tick="bench",
        orchestrator=Orchestrator(f"0x{number % 200:040x}", f"https://o{number % 200}.example:8935", ()),
        capability=Capability("llm", f"model-{number % 10}"),
        pipeline_name="Llm",
        timeout_s=60,
        expected_s=1,
        price_wei=1000,
    )
    return Result(
        job,
        Verdict.from_code("ok"),
        Attribution(AttributionKind.PROVEN, ("metric: its series moved",)),
        "g",
        "query",
        time.time(),
        0.5,
        200,
        request='{"prompt": "what is six times seven?"}',
        response='{"answer": "' + "42" * 200 + '"}',
    )


async def _kept(remote: Remote) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "bench.db")
        await database.open()
        try:
            results, outbox = Results(database), Outbox(database)
            todo = [made(number) for number in range(_RESULTS)]
            async with Lag() as lag:
                began = time.perf_counter()
                for start in range(0, _RESULTS, _IN_FLIGHT):
                    await asyncio.gather(
                        *(results.record(one, Stat.from_result(one, "FRA")) for one in todo[start : start + _IN_FLIGHT])
                    )
                recording = _RESULTS / (time.perf_counter() - began)
            client = LeaderboardClient(remote.leaderboard, "demo-secret")
            delivery = Delivery.create(outbox, client, DeliveryOptions("FRA"))
            await delivery.open()
            stop = asyncio.Event()
            began = time.perf_counter()
            running = asyncio.ensure_future(delivery.run(stop))
            while (await outbox.counts())["delivered"] < _POSTS:  # noqa: ASYNC110 -- only the table tells
                await asyncio.sleep(0.02)
            delivered = (await outbox.counts())["delivered"]
            rate = delivered / (time.perf_counter() - began)
            stop.set()
            await running
            await delivery.close()
        finally:
            await database.close()
    return [
        row("recording, results per second (with their stats, on the disk)", recording, "/s", least=2000),
        row("longest block of the event loop meanwhile", lag.longest * 1000, "ms", most=20),
        row("delivery, stats per second", rate, "/s", least=300),
    ]


async def _received(remote: Remote) -> list[Row]:
    bodies = [Stat.from_result(made(number), "FRA").body for number in range(_POSTS)]
    async with tester(remote, server={"results_secret": _SECRET}) as running:
        ours = await _rate(f"http://127.0.0.1:{running.daemon.port}/api/post_stats", bodies)

    async def bare(request: web.Request) -> web.Response:
        body = await request.read()
        signed = hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
        right = hmac.compare_digest(signed, request.headers["Authorization"])
        return web.Response(text="ok" if right else "no")

    app = web.Application()
    app.router.add_post("/", bare)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        theirs = await _rate(f"http://127.0.0.1:{runner.addresses[0][1]}/", bodies)
    finally:
        await runner.cleanup()
    return [
        row("receiver, results per second", ours, "/s"),
        row("receiver ÷ bare handler that checks the HMAC", ours / theirs, "×", least=0.5),
    ]


async def _rate(url: str, bodies: list[bytes]) -> float:
    """Post all bodies and give how many a second were taken."""
    todo = iter(bodies)

    async def worker(session: aiohttp.ClientSession) -> None:
        for body in todo:
            signed = hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
            async with session.post(url, data=body, headers={"Authorization": signed}) as response:
                assert response.status == 200, await response.text()
                await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(_IN_FLIGHT)))
        return len(bodies) / (time.perf_counter() - began)
