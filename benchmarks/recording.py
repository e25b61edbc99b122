"""Measure recording, delivery and receiving of results, on a real file and real sockets."""

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
from benchmarks.rows import Row
from benchmarks.tester import LoopLag, tester
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
    """Return the rates of recording and delivery, then those of receiving."""
    async with network("query", seed=1, orchestrators=1, pipelines=["llm"]) as remote:
        return [*await _measure_recording(remote), *await _measure_receiving(remote)]


def make_result(number: int) -> Result:
    """Return a passed result; the number chooses its orchestrator and model."""
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


async def _measure_recording(remote: Remote) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "bench.db")
        await database.open()
        try:
            results, outbox = Results(database), Outbox(database)
            made_results = [make_result(number) for number in range(_RESULTS)]
            async with LoopLag() as lag:
                began = time.perf_counter()
                for start in range(0, _RESULTS, _IN_FLIGHT):
                    await asyncio.gather(
                        *(
                            results.record(result, Stat.from_result(result, "FRA"))
                            for result in made_results[start : start + _IN_FLIGHT]
                        )
                    )
                recording_rate = _RESULTS / (time.perf_counter() - began)
            client = LeaderboardClient(remote.leaderboard, "demo-secret")
            delivery = Delivery.create(outbox, client, DeliveryOptions("FRA"))
            await delivery.open()
            stop = asyncio.Event()
            began = time.perf_counter()
            running = asyncio.ensure_future(delivery.run(stop))
            while (await outbox.counts())["delivered"] < _POSTS:  # noqa: ASYNC110 -- only the table tells
                await asyncio.sleep(0.02)
            delivered = (await outbox.counts())["delivered"]
            delivery_rate = delivered / (time.perf_counter() - began)
            stop.set()
            await running
            await delivery.close()
        finally:
            await database.close()
    return [
        Row.with_bar(
            "recording, results per second (with their stats, on the disk)", recording_rate, "/s", at_least=2000
        ),
        Row.with_bar("longest block of the event loop meanwhile", lag.longest * 1000, "ms", at_most=20),
        Row.with_bar("delivery, stats per second", delivery_rate, "/s", at_least=300),
    ]


async def _measure_receiving(remote: Remote) -> list[Row]:
    bodies = [Stat.from_result(make_result(number), "FRA").body for number in range(_POSTS)]
    async with tester(remote, server={"results_secret": _SECRET}) as running:
        tester_rate = await _post_all(f"http://127.0.0.1:{running.daemon.port}/api/post_stats", bodies)

    async def bare(request: web.Request) -> web.Response:
        body = await request.read()
        signed = hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
        is_genuine = hmac.compare_digest(signed, request.headers["Authorization"])
        return web.Response(text="ok" if is_genuine else "no")

    app = web.Application()
    app.router.add_post("/", bare)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        bare_rate = await _post_all(f"http://127.0.0.1:{runner.addresses[0][1]}/", bodies)
    finally:
        await runner.cleanup()
    return [
        Row.with_bar("receiver, results per second", tester_rate, "/s"),
        Row.with_bar("receiver ÷ bare handler that checks the HMAC", tester_rate / bare_rate, "×", at_least=0.5),
    ]


async def _post_all(url: str, bodies: list[bytes]) -> float:
    """Post all bodies, and return how many per second were accepted."""
    remaining = iter(bodies)

    async def worker(session: aiohttp.ClientSession) -> None:
        for body in remaining:
            signed = hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
            async with session.post(url, data=body, headers={"Authorization": signed}) as response:
                assert response.status == 200, await response.text()
                await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(_IN_FLIGHT)))
        return len(bodies) / (time.perf_counter() - began)
