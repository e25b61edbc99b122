"""The shipped daemon is killed outright while it holds sessions, and yet none stays open and none is paid twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from jobtester.simulator.live_runner.runner import LiveRunner
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario
from tests.harness.process import DaemonProcess, write_config
from tests.harness.waiting import until

KILLS = int(os.environ.get("KILLS", "50"))
STOP_LIMIT_S = 5.0  # the longest that stopping what was left may take, beside the start itself
LATENCY = (0.02, 0.3)
APPS: tuple[tuple[str, int, Literal["fixed", "seconds"]], ...] = (
    ("free", 0, "fixed"),
    ("paid", 1000, "fixed"),
    ("metered", 10, "seconds"),
)
PIPELINES = {"say": {"runner": True, "apps": ["x/*"], "uri": "/say", "timeout": "20s", "parameters": {"text": "hello"}}}


def scenario() -> Scenario:
    """Build orchestrators whose apps keep sessions, unpaid and paid, and one app that is paid by the request."""
    runners = [
        RunnerSpec(app=f"x/{name}", version="1", app_kind="echo", mode="persistent", capacity=2, price=price, unit=unit,
                   latency_s=LATENCY)
        for name, price, unit in APPS
    ]  # fmt: skip
    runners.append(RunnerSpec(app="x/single", version="1", app_kind="echo", price=7, latency_s=LATENCY))
    nodes = tuple(
        OrchestratorSpec(
            address=f"0x{number:040x}", service_uri="https://127.0.0.1:0", models=(), runners=tuple(runners)
        )
        for number in range(1, 6)
    )
    return Scenario(name="sessions", seed=3, gateways=(GatewaySpec(name="g", mode="query"),), orchestrators=nodes)


def read_journal(folder: Path) -> dict[str, tuple[str, str]]:
    """Return (runner URL, control URL) by job from a copy of the daemon's file, which nobody else opens."""
    with tempfile.TemporaryDirectory() as aside:
        for name in ("jobtester.db", "jobtester.db-wal"):
            if (folder / name).exists():
                shutil.copy(folder / name, aside)
        with contextlib.closing(sqlite3.connect(Path(aside) / "jobtester.db")) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'runner_sessions'").fetchone():
                return {}
            return {job: (url, control) for job, url, control in db.execute(
                "SELECT job, runner_url, control_url FROM runner_sessions")}  # fmt: skip


@dataclass
class KillStatistics:
    """What the kills met."""

    kills: int = 0
    with_open_sessions: int = 0
    sessions_left: int = 0
    answers_lost: int = 0
    longest_stop_s: float = 0.0
    events: Counter[str] = field(default_factory=Counter)


class SessionWatch:
    """The sessions of a simulated network, from the orchestrators' side."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def runners(self) -> list[LiveRunner]:
        """Every runner."""
        return [runner for port in self.network.service_ports for runner in port.runners]

    def open_sessions(self) -> dict[str, LiveRunner]:
        """Return the open sessions by id."""
        return {session: runner for runner in self.runners for session in runner.sessions}

    def charges(self) -> Counter[str]:
        """Return how often each job has paid for a request that needs a slot."""
        return Counter(
            request.request_id
            for request in self.network.runner_requests
            if request.kind in ("reserve", "app") and request.paid_wei and request.status == 200
        )


async def kill_in_the_middle(folder: Path, watch: SessionWatch, statistics: KillStatistics, rng: random.Random) -> None:
    """Start the daemon, which stops what the one before has left, and kill it at a random moment."""
    open_sessions = watch.open_sessions()
    journal = read_journal(folder)
    journaled = {control.rsplit("/", 1)[-1] for _, control in journal.values() if control}
    # A process that is killed before the answer of an unpaid reservation has come never learns of its session.
    lost = {session: runner for session, runner in open_sessions.items() if session not in journaled}
    assert all(not runner.spec.price for runner in lost.values()), "what is paid for is always known"
    assert len(lost) <= sum(not control for _, control in journal.values()), "each has a row from before"
    statistics.with_open_sessions += bool(open_sessions)
    statistics.sessions_left += len(open_sessions)
    statistics.answers_lost += len(lost)
    for session, runner in lost.items():
        runner.stop_session(session)
    daemon = await DaemonProcess.start(folder)
    try:
        async with asyncio.timeout(60):
            await daemon.next_event("serving")
            started = time.monotonic()
            remaining = set(open_sessions) - set(lost)
            await until(lambda: not remaining & set(watch.open_sessions()), "what was left open is stopped")
            took_s = time.monotonic() - started
            statistics.longest_stop_s = max(statistics.longest_stop_s, took_s)
            assert took_s <= STOP_LIMIT_S
            await daemon.any_event("tick_started")
            await asyncio.sleep(rng.uniform(0, 1.2))
    finally:
        await daemon.kill()
    statistics.kills += 1
    statistics.events.update(line["event"] for line in daemon.lines)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [3, pytest.param(KILLS, marks=pytest.mark.slow)])
async def test_whatever_moment_it_dies_at_no_session_stays_open(tmp_path: Path, kills: int) -> None:
    """Every session whose end can be known is stopped at the next start, none is paid twice, the journal gets empty."""
    seed = int(os.environ.get("CRASH_SEED", "0")) or random.Random().randrange(1, 10**6)
    rng, statistics = random.Random(seed), KillStatistics()
    print(f"CRASH_SEED={seed}")  # noqa: T201 -- by which to repeat it
    schedule: dict[str, Any] = {"interval": "500ms", "offset": "0s", "deadline": "30s", "run_at_start": True}
    async with Network(scenario()) as network:
        watch = SessionWatch(network)
        payment = {"signer_url": network.signer.url}
        sections: dict[str, Any] = {
            "live_runner": {"enabled": True, "networks": ["127.0.0.0/8"], "payment": payment},
            "pipelines": PIPELINES,
            "logs": {"format": "json"},
        }
        write_config(network, tmp_path, schedule=schedule, **sections)
        while statistics.kills < kills:
            await kill_in_the_middle(tmp_path, watch, statistics, rng)
        lost = {session: runner for session, runner in watch.open_sessions().items() if not runner.spec.price}
        write_config(network, tmp_path, schedule={"run_at_start": False}, **sections)
        daemon = await DaemonProcess.start(tmp_path)
        try:
            await daemon.any_event("serving")
            await until(lambda: not read_journal(tmp_path), "the journal is empty", pause_s=0.2)
        finally:
            await daemon.stop()
        open_sessions = watch.open_sessions()
        print(statistics)  # noqa: T201
        assert set(open_sessions) <= set(lost), "only unpaid sessions whose answer was lost may be left"
        assert len(open_sessions) <= 2 * len(scenario().orchestrators)
        assert {job: count for job, count in watch.charges().items() if count > 1} == {}, "paid twice"
        fixed = Counter(
            payment.challenge.manifest_id for payment in network.service_ports[0]._ledger.payments.values()
            if payment.challenge.is_fixed
        )  # fmt: skip
        assert not [manifest for manifest, count in fixed.items() if count > 1], "signed twice"
        assert statistics.events["noise"] == 0
        assert statistics.events["job_crashed"] == 0
        assert statistics.with_open_sessions >= kills / 10 or kills < KILLS
