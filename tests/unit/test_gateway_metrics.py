"""A gateway's metrics are parsed only where they change, and read once for all jobs that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from jobtester.domain.jobs import PipelineModel
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.gateway_metrics import (
    MetricsReader,
    MetricsSnapshot,
    OrchestratorLabels,
    SeriesChange,
    SeriesHistory,
    SeriesKey,
    parse_metrics,
)


def test_metrics_text_is_read_with_its_escapes() -> None:
    """Unrelated and broken lines are skipped."""
    text = (
        "# HELP x y\n"
        'livepeer_ai_request_latency_score{model_name="a \\"q\\" \\\\ b",orchestrator_address="0x1",'
        'orchestrator_uri="https://a",pipeline="llm"} 0.25\n'
        'livepeer_ai_request_errors{error_code="OrchestratorCapped",model_name="m",orchestrator_uri="u",'
        'pipeline="llm"} 3\n'
        "livepeer_ai_request_latency_score{broken\nlivepeer_ai_request_latency_score{} NaN-ish\n"
        "process_start_time_seconds 1.7e+09\n"
    )
    snapshot = parse_metrics(text.encode(), 5.0)
    assert set(snapshot.changed) == {
        (SeriesKey(True, PipelineModel("llm", 'a "q" \\ b'), OrchestratorLabels("https://a", "0x1"), ""), 0.25),
        (SeriesKey(False, PipelineModel("llm", "m"), OrchestratorLabels("u", ""), "OrchestratorCapped"), 3.0),
    }
    assert snapshot.gateway_started_at == 1.7e9


def test_only_what_is_new_in_a_reading_is_fresh() -> None:
    """A series that says the same as before is not looked at again, whatever stands around it."""
    text = 'livepeer_ai_request_latency_score{{pipeline="llm"}} {}\nprocess_start_time_seconds 1.7e+09'
    first = parse_metrics(text.format("0.25").encode(), 1.0)
    again = parse_metrics(text.format("0.25").encode() + b"\n", 2.0, first.lines)
    moved = parse_metrics(text.format("0.5").encode(), 3.0, again.lines)
    assert [len(snapshot.changed) for snapshot in (first, again, moved)] == [1, 0, 1]
    assert again.gateway_started_at == moved.gateway_started_at == 1.7e9


def test_what_moved_since_a_reading_is_what_moved_after_it() -> None:
    """Gauges move to any other value, running sums only up; what stood at the first reading did not move."""
    history, pipeline_model = SeriesHistory(), PipelineModel("llm", "m")
    gauge, total = (
        SeriesKey(True, pipeline_model, OrchestratorLabels("a", ""), ""),
        SeriesKey(False, pipeline_model, OrchestratorLabels("b", ""), "cause"),
    )
    first = history.add(MetricsSnapshot(1.0, changed=((gauge, 0.5), (total, 3.0))))
    assert history.changes_since(first, pipeline_model) == SeriesChange(frozenset(), {})
    second = history.add(MetricsSnapshot(2.0, changed=((gauge, 0.4), (total, 2.0))))
    assert history.changes_since(first, pipeline_model) == SeriesChange(frozenset({gauge.orchestrator}), {})
    history.add(MetricsSnapshot(3.0, changed=((total, 3.0),)))
    assert history.changes_since(first, pipeline_model) == SeriesChange(
        frozenset({gauge.orchestrator}), {total.orchestrator: ("cause",)}
    )
    assert history.changes_since(second, pipeline_model) == SeriesChange(frozenset(), {total.orchestrator: ("cause",)})
    assert history.changes_since(first, PipelineModel("llm", "other")) == SeriesChange(frozenset(), {})


@dataclass
class MetricsPort:
    """A CLI port that counts how often /metrics is read."""

    status: int = 200
    reads: int = 0
    url: str = ""

    async def respond(self, _: web.Request) -> web.Response:
        """Respond with one success series, whose value is the number of the reading."""
        self.reads += 1
        text = f'livepeer_ai_request_latency_score{{pipeline="llm",model_name="m",orchestrator_uri="u"}} {self.reads}'
        return web.Response(text=text, status=self.status)


@pytest.fixture
async def port() -> AsyncIterator[MetricsPort]:
    """Run a CLI port."""
    running = MetricsPort()
    app = web.Application()
    app.router.add_get("/metrics", running.respond)
    async with TestServer(app) as server:
        running.url = str(server.make_url("")).rstrip("/")
        yield running


@pytest.fixture
async def reader(port: MetricsPort) -> AsyncIterator[MetricsReader]:
    """Return a reader of the CLI port that does not pause."""
    client = GatewayClient("g", port.url, port.url)
    await client.open()
    yield MetricsReader(client, pause_s=0.0)
    await client.close()


async def test_jobs_that_end_together_share_a_reading(port: MetricsPort, reader: MetricsReader) -> None:
    """A reading that began after a job's end shows the job, whichever job asked for it."""
    ended = time.monotonic()
    readings = await asyncio.gather(*(reader.read_after(ended) for _ in range(20)))
    assert port.reads == 1
    assert {reading.number if reading else None for reading in readings} == {0}
    later = await reader.read_after(time.monotonic())
    assert later is not None
    assert (port.reads, later.number) == (2, 1)
    assert readings[0] is not None
    change = reader.history.changes_since(readings[0], PipelineModel("llm", "m"))
    assert change.passed == {OrchestratorLabels("u", "")}


async def test_unavailable_metrics_are_no_reading(port: MetricsPort, reader: MetricsReader) -> None:
    """The problem stays readable until /metrics answers again; the history goes on from the last reading."""
    port.status = 404
    assert await reader.read_after(time.monotonic()) is None
    assert "run the gateway with -monitor" in reader.problem
    assert reader.latest is None
    port.status = 200
    assert await reader.read_after(time.monotonic()) is not None
    assert reader.problem == ""
