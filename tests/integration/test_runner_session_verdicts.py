"""A thousand jobs in sessions and with payments at thirty orchestrators: every verdict agrees with the log."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Literal

import pytest

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.simulator.job_log import LoggedRunnerRequest
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario
from tests.harness.simulated import SimulatedTester, config_tables

ORCHESTRATORS = 30
FAULTS = (
    "", "runner_down", "runner_busy", "runner_wrong", "runner_fails", "runner_resets", "runner_redirects",
    "runner_price_unavailable", "runner_repeats_402", "runner_asks_more", "session_lost", "session_conflict",
    "runner_says_busy", "runner_says_missing",
)  # fmt: skip
KINDS: tuple[tuple[Literal["single-shot", "persistent"], int, Literal["fixed", "seconds"]], ...] = (
    ("single-shot", 0, "fixed"), ("persistent", 0, "fixed"), ("single-shot", 9, "fixed"), ("persistent", 9, "seconds"),
)  # fmt: skip
OWN_ERRORS = {
    "runner not found": "app_gone", "runner session not found": "app_gone",
    "no capacity available for runner": "busy",
    "dial tcp 127.0.0.1:5000: connect: connection refused": "app_down",
    "live runner price unavailable: no price feed": "app_price_unavailable",
}  # fmt: skip


def scenario() -> Scenario:
    """Build orchestrators with an app for each fault and each way to serve and to pay; half of the requests meet it."""
    runners = tuple(
        RunnerSpec(app=f"x/app-{number}", version="1", app_kind="echo", mode=mode, price=price, unit=unit,
                   latency_s=(0.0, 0.01), fault=fault, fault_probability=0.5)
        for number, (fault, (mode, price, unit)) in enumerate(itertools.product(FAULTS, KINDS))
        if number * 3 % 5 < 3
    )  # fmt: skip
    nodes = tuple(
        OrchestratorSpec(address=f"0x{number:040x}", service_uri="https://127.0.0.1:0", models=(), runners=runners)
        for number in range(1, ORCHESTRATORS + 1)
    )
    return Scenario(name="scale", seed=7, gateways=(GatewaySpec(name="g", mode="query"),), orchestrators=nodes)


def expect(requests: list[LoggedRunnerRequest]) -> str:
    """Return the reason that a job deserves by the last request that it sent, stops and payments aside."""
    last = requests[-1]
    if last.error:
        return OWN_ERRORS[last.error]
    if last.outcome in ("broken", "disconnected"):
        return "app_cut_short"
    if last.status == 402:
        return "price_refused" if last.fault == "runner_asks_more" else "payment_required"
    if last.status == 200:
        return "check:json" if last.fault == "runner_wrong" else "ok"
    by_status = {307: "refuted", 404: "app_refused", 409: "session_conflict", 500: "app_error", 503: "app_error"}
    return by_status[last.status or 0]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_verdict_agrees_with_the_log(tmp_path: Path) -> None:
    """No session is left, nobody is paid twice for a job, and each job counts as what the orchestrator did with it."""
    say: dict[str, Any] = {"runner": True, "apps": ["x/*"], "uri": "/say", "timeout": "60s"}
    say |= {"parameters": {"text": "hello"}, "checks": [{"check": "json", "path": "text"}]}
    async with Network(scenario()) as network:
        tables = config_tables(
            network,
            tmp_path,
            live_runner={
                "enabled": True, "networks": ["127.0.0.0/8"], "payment": {"signer_url": network.signer.url},
                "timeout": "60s",
            },
            pipelines={"say": say},
            limits={"jobs": 32, "per_orchestrator": 2},
        )  # fmt: skip
        async with open_daemon(Configuration.from_tables(tables, origin="test")) as daemon:
            tester = SimulatedTester(network, daemon)
            report = await tester.tick()
            rows = await tester.results()
        assert not [runner for port in network.service_ports for runner in port.runners if runner.sessions]
        by_job: defaultdict[str, list[LoggedRunnerRequest]] = defaultdict(list)
        for request in network.runner_requests:
            if request.kind in ("app", "reserve", "call"):
                by_job[request.request_id].append(request)
    assert report.skipped == {}
    assert len(rows) >= 1_000
    verdicts = {row.id: row.reason for row in rows}
    expected = {job: expect(by_job[job]) for job in verdicts}
    wrong = {job: (verdicts[job], expected[job]) for job in verdicts if verdicts[job] not in _also(expected[job])}
    assert wrong == {}
    assert len(set(verdicts.values())) >= 12
    assert max(sum(request.paid_wei > 0 for request in requests) for requests in by_job.values()) == 1
    print(len(rows), Counter(verdicts.values()))  # noqa: T201


def _also(reason: str) -> tuple[str, ...]:
    """Return the reasons that an expected one may go by: what is no JSON fails the check before it looks at a field."""
    return (reason, "bad_json") if reason == "check:json" else (reason,)
