"""SIGTERM in the middle of a tick: the daemon ends in order, and nothing that was begun is without its record."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest
import tomli_w

from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.process import DaemonProcess
from tests.harness.simulated import config_tables


def network() -> Scenario:
    """Build eight quick orchestrators with six models each, and two that take very long."""

    def node(number: int, latency_s: float) -> OrchestratorSpec:
        return OrchestratorSpec(
            address=f"0x{number:040x}",
            service_uri=f"https://node-{number}.example:8935",
            models=tuple(ModelSpec("llm", f"m{model}", latency_s=(latency_s, latency_s)) for model in range(6)),
        )

    nodes = tuple(node(number, 60.0 if number <= 2 else 0.3) for number in range(1, 11))
    return Scenario("stopping", 1, (GatewaySpec("g", mode="query", retry_window=0.1),), nodes)


def query_store(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the file of a daemon that has ended."""
    with contextlib.closing(sqlite3.connect(folder / "jobtester.db")) as db:
        return db.execute(query).fetchall()


@pytest.mark.parametrize("up", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_sigterm_in_the_middle_of_a_tick(tmp_path: Path, up: bool) -> None:
    """Running jobs get their grace, then are unscored with reason shutdown; every scored one is posted once.

    What the Leaderboard could not take before the end is posted by the next daemon.
    """
    async with Network(network()) as running:
        content = config_tables(running, tmp_path, limits={"jobs": 10, "grace": "2s"}, schedule={"run_at_start": True})
        content["pipelines"] = {"llm": {"timeout": "90s", "cold_timeout": "90s"}}
        (tmp_path / "config.toml").write_text(tomli_w.dumps(content))
        running.leaderboard.faults.slow_insert_s = 0.5  # posting takes longer than a job
        if not up:
            await running.leaderboard.stop()
        daemon = await DaemonProcess.start(tmp_path)
        for _ in range(12):  # by then the gateway is trusted, and every orchestrator has a job in flight
            await daemon.next_event("job_done")
        await daemon.stop()
        assert [line["event"] for line in daemon.lines if line["event"] in ("stopping", "tick_done", "stopped")] == [
            "stopping", "tick_done", "stopped",
        ]  # fmt: skip
        assert next(line["state"] for line in daemon.lines if line["event"] == "tick_done") == "aborted"

        outcomes = dict(query_store(tmp_path, "SELECT outcome, count(*) FROM results GROUP BY outcome"))
        assert query_store(tmp_path, "SELECT DISTINCT reason FROM results WHERE outcome = 'unscored'") == [
            ("shutdown",)
        ]
        assert outcomes["unscored"] == 2, "the two that take very long were in flight"
        assert 12 <= outcomes["passed"] < 48, "others ended well, and most had not begun"
        assert sum(outcomes.values()) == sum(line["event"] == "job_done" for line in daemon.lines)
        states = dict(query_store(tmp_path, "SELECT state, count(*) FROM outbox GROUP BY state"))
        assert states == {"delivered" if up else "pending": outcomes["passed"]}
        if not up:
            await running.leaderboard.start()
            content["schedule"]["run_at_start"] = False
            (tmp_path / "config.toml").write_text(tomli_w.dumps(content))
            following = await DaemonProcess.start(tmp_path)
            await following.next_event("serving")
            await following.wait_delivered(outcomes["passed"])
            await following.stop()
        rows = [row.stat["round_trip_time"] for row in running.leaderboard.rows]
        scored = query_store(tmp_path, "SELECT round_trip_s FROM results WHERE outcome = 'passed'")
        assert sorted(rows) == sorted(took for (took,) in scored)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])
async def test_sigterm_while_discovery_gets_no_answer(tmp_path: Path, answer: bytes) -> None:
    """Nothing has begun that would need a grace, so it ends without waiting for answers, or for patience to end."""
    asked = asyncio.Event()

    async def cli_port(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        asked.set()
        await reader.read()
        writer.close()

    async with Network(network()) as running, await asyncio.start_server(cli_port, "127.0.0.1", 0) as server:
        content = config_tables(running, tmp_path, limits={"grace": "10m"}, discovery={"patience": "10m"})
        content["schedule"]["run_at_start"] = True
        content["gateways"][0]["cli_url"] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        (tmp_path / "config.toml").write_text(tomli_w.dumps(content))
        daemon = await DaemonProcess.start(tmp_path)
        await asyncio.wait_for(asked.wait(), 30)
        await daemon.stop()
    (done,) = [line for line in daemon.lines if line["event"] == "tick_done"]
    assert (done["state"], done["planned"]) == ("aborted", 0)


MOMENTS = int(os.environ.get("STOP_MOMENTS", "4"))
_GRACE_S = 1.0
_SLACK_S = 10.0  # for a slow, busy machine; a quiet one needs less than two


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(MOMENTS))
async def test_sigterm_at_a_random_moment_of_a_tick(
    tmp_path: Path, moment: int, record_property: Callable[[str, object], None]
) -> None:
    """It ends within its grace and a little, sends no job after the signal, and has a record of each that it sent.

    `STOP_MOMENTS` says how many moments are tried. Every other one is with a gateway that needs the lease.
    """
    random = Random(moment)
    nodes = tuple(
        OrchestratorSpec(
            address=f"0x{number:040x}",
            service_uri=f"https://node-{number}.example:8935",
            models=tuple(ModelSpec("llm", f"m{model}", latency_s=(0.05, 2.0)) for model in range(4)),
        )
        for number in range(1, 9)
    )
    mode: Literal["query", "tester"] = "query" if moment % 2 else "tester"
    scenario = Scenario("moments", moment, (GatewaySpec("g", mode=mode, retry_window=0.1),), nodes)
    async with Network(scenario) as running:
        content = config_tables(
            running, tmp_path, limits={"jobs": 8, "grace": f"{_GRACE_S}s"}, schedule={"run_at_start": True}
        )
        (tmp_path / "config.toml").write_text(tomli_w.dumps(content))
        daemon = await DaemonProcess.start(tmp_path)
        serving = await daemon.next_event("serving")
        running.gateways["g"].webhook_url = f"http://127.0.0.1:{serving['port']}/orchestrators"
        await asyncio.sleep(random.uniform(0.0, 4.0))
        signaled_at = time.monotonic()
        daemon.process.terminate()
        await asyncio.wait_for(daemon.process.wait(), 60)
        took_s = time.monotonic() - signaled_at
        await daemon.reader
        await asyncio.sleep(0.2)  # whatever is still on its way would come now
        late = [job.received_at - signaled_at for job in running.logged_jobs if job.received_at > signaled_at + 0.5]
        sent = {job.request_id for job in running.logged_jobs}
        record_property("ended_s", took_s)
    assert daemon.process.returncode == 0, daemon.lines[-20:]
    assert not [line for line in daemon.lines if "Traceback" in json.dumps(line)]
    assert late == []
    assert took_s <= _GRACE_S + _SLACK_S
    assert sent <= {row for (row,) in query_store(tmp_path, "SELECT id FROM results")}
