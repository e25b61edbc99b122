"""After a stop no job leaves any more, wherever it waits, and nothing stays in flight that is not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.results import Result
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.simulated import SimulatedTester, simulated_tester


@dataclass(slots=True)
class Signals:
    """Watches a tick and sets an event for what happens first of each kind."""

    was_recorded: asyncio.Event = field(default_factory=asyncio.Event)
    was_deferred: asyncio.Event = field(default_factory=asyncio.Event)
    was_sent: asyncio.Event = field(default_factory=asyncio.Event)

    def on_planned(self, _plan: Plan) -> None:
        """Ignore the plan."""

    def on_sent(self, _job: Job, _gateway: str) -> None:
        """Set the event of a job that was sent."""
        self.was_sent.set()

    def on_deferred(self, _job: Job, _gateway: str, _reason: str) -> None:
        """Set the event of a deferred job."""
        self.was_deferred.set()

    def on_recorded(self, _result: Result) -> None:
        """Set the event of a recorded result."""
        self.was_recorded.set()

    def on_skipped(self, _skip: Skip) -> None:
        """Ignore a skipped job."""


def nodes(count: int, *, fault: str = "", latency_s: float = 0.0) -> tuple[OrchestratorSpec, ...]:
    """Return orchestrators with one model each."""
    return tuple(
        OrchestratorSpec(
            address=f"0x{number:040x}",
            service_uri=f"https://node-{number}.example:8935",
            models=(ModelSpec("llm", "m", latency_s=(latency_s, latency_s)),),
            fault=fault,
        )
        for number in range(1, count + 1)
    )


async def stop_after(tester: SimulatedTester, happened: asyncio.Event) -> float:
    """Run a tick, stop the tester once something has happened, and return the seconds that the stop took."""
    running = asyncio.ensure_future(tester.tick())
    await asyncio.wait_for(happened.wait(), 60)
    for _ in range(20):
        await asyncio.sleep(0)  # the next in line takes its place
    began = time.monotonic()
    tester.daemon.stop()
    await asyncio.wait_for(running, 120)
    return time.monotonic() - began


async def test_a_job_that_waits_for_its_lease_is_skipped(tmp_path: Path) -> None:
    """The lease could move in a minute; the tester does not wait for that, and sends nothing more."""
    scenario = Scenario("lease", 1, (GatewaySpec("g", retry_window=0.1),), nodes(3, latency_s=30.0))
    gateway = {"after_disconnect": "60s", "retry_window": "100ms", "settle": "100ms"}
    quick = {"llm": {"timeout": "1s", "cold_timeout": "1s"}}
    async with simulated_tester(scenario, tmp_path, gateways=[gateway], pipelines=quick) as tester:
        signals = Signals()
        tester.daemon.coordinator.observers = (signals,)
        took_s = await stop_after(tester, signals.was_recorded)
        report = tester.daemon.coordinator.reports[-1]
        assert took_s < 30, "it waited for the lease"
        assert len(await tester.results()) == 1
        assert (report.state, dict(report.skipped)) == ("aborted", {"stopped": 2})
        stored = await tester.daemon.coordinator.planner.skips.at(report.started_at)
        assert [(skip.model, skip.reason) for skip in stored] == [("m", "stopped")] * 2, "the pages show who"
        assert len(tester.network.logged_jobs) <= 1


async def test_a_job_that_waits_out_a_busy_orchestrator_is_not_sent_again(tmp_path: Path) -> None:
    """Its first answer is kept as what it came to."""
    scenario = Scenario("busy", 1, (GatewaySpec("g", retry_window=0.1),), nodes(2, fault="busy"))
    pauses = {"busy_backoff": "60s", "busy_patience": "3m", "busy_retries": 3}
    async with simulated_tester(scenario, tmp_path, limits=pauses) as tester:
        signals = Signals()
        tester.daemon.coordinator.observers = (signals,)
        took_s = await stop_after(tester, signals.was_deferred)
        assert took_s < 30, "it waited for the next try"
        assert {row.reason for row in await tester.results()} <= {"busy"}


@contextlib.asynccontextmanager
async def vanishing_gateway() -> AsyncIterator[str]:
    """Yield the address of a job port that answers once and is gone then."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        server.close()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_job_that_never_left_is_not_in_flight(tmp_path: Path) -> None:
    """Its gateway went away before it could be sent: it waits, and is skipped at the stop."""
    scenario = Scenario("vanishing", 1, (GatewaySpec("g", mode="query", retry_window=0.1),), nodes(3))
    async with vanishing_gateway() as url, simulated_tester(scenario, tmp_path, gateways=[{"url": url}]) as tester:
        signals = Signals()
        tester.daemon.coordinator.observers = (signals,)
        running = asyncio.ensure_future(tester.tick())
        await asyncio.wait_for(signals.was_deferred.wait(), 60)
        progress = tester.daemon.coordinator.progress
        assert progress is not None
        tester.daemon.stop()
        report = await asyncio.wait_for(running, 60)
        assert dict(report.skipped) == {"stopped": 3}
        assert progress.in_flight == {}
        assert tester.daemon.coordinator.metrics.in_flight._value.get() == 0


async def test_a_job_whose_connection_does_not_stand_yet_is_not_sent(tmp_path: Path) -> None:
    """The handshake of TLS would end after the stop; then the job's bytes must not follow."""
    begun = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read()
        writer.close()

    scenario = Scenario("handshake", 1, (GatewaySpec("g", mode="query", retry_window=0.1),), nodes(1))
    async with simulated_tester(scenario, tmp_path, limits={"grace": "30s"}) as tester:
        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        gateway = tester.daemon.coordinator.gateways[0]

        class ToMute(Signals):
            """Leads the job to a port that never completes a handshake."""

            def on_sent(self, job: Job, where: str) -> None:
                """Change the address when the job is on its way."""
                gateway.client.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                super().on_sent(job, where)

        tester.daemon.coordinator.observers = (ToMute(),)
        took_s = await stop_after(tester, begun)
        assert took_s < 20, "the grace is for jobs that were sent"
        assert dict(tester.daemon.coordinator.reports[-1].skipped) == {"stopped": 1}
        assert await tester.results() == []
        server.close()


@pytest.mark.parametrize("readings", [0, 1])
async def test_a_reading_of_metrics_does_not_hold_up_a_stop(tmp_path: Path, readings: int) -> None:
    """The gateway's metrics hang while the tick begins, or while a job is judged: neither is waited for in full."""
    asked, count = asyncio.Event(), 0

    async def metrics(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        await reader.readuntil(b"\r\n\r\n")
        count += 1
        if count > readings:
            asked.set()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()
        await reader.read()
        writer.close()

    scenario = Scenario("mute", 1, (GatewaySpec("g", mode="query", retry_window=0.1),), nodes(1))
    node = scenario.orchestrators[0]
    discovery = {
        "source": "static",
        "orchestrators": [
            {
                "address": node.address,
                "service_uri": node.service_uri,
                "capabilities": [{"pipeline": "llm", "model": "m"}],
            }
        ],
    }
    async with await asyncio.start_server(metrics, "127.0.0.1", 0) as server:
        gateway = {"cli_url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
        limits = {"grace": "100ms"}
        async with simulated_tester(
            scenario, tmp_path, gateways=[gateway], discovery=discovery, limits=limits
        ) as tester:
            took_s = await stop_after(tester, asked)
            assert took_s < 4, "a reading may take five seconds"
            reasons = [row.reason for row in await tester.results()]
            assert reasons == (["shutdown"] if readings else [])
            assert tester.daemon.coordinator.reports[-1].state == "aborted"
