"""Many jobs against thirty orchestrators with random faults: every verdict agrees with the simulator's own log."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from jobtester.simulator.job_log import LoggedRunnerRequest
from jobtester.simulator.scenario import GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario
from jobtester.store.results import ResultRow
from tests.harness.live_runners import LOOPBACK, REASON_BY_FAULT
from tests.harness.simulated import simulated_tester
from tests.harness.waiting import until

pytestmark = pytest.mark.slow

ORCHESTRATORS = 30
# By default a fifth of the jobs, so that the whole suite stays quick: STRESS=1 sends them all, more than a thousand.
RUNNERS = 40 if os.environ.get("STRESS") else 8
APPS = (
    ("livepeer-example/hello-world", "hello-world"),
    ("livepeer-example/openai-chat-completions", "openai-chat"),
    ("livepeer-example/openai-text-embeddings", "openai-embeddings"),
    ("livepeer-example/fal-flux-schnell", "fal-text-to-image"),
)
DEFINITIONS = ("hello-world", "runner-chat-completions", "runner-text-embeddings", "runner-text-to-image")
PAYMENT_FAULTS = ("runner_price_unavailable", "runner_repeats_402", "runner_asks_more")
REASONS = {
    fault: reason.partition(":")[0]
    for fault, reason in REASON_BY_FAULT.items()
    if fault not in PAYMENT_FAULTS and (not fault or fault.startswith("runner_"))
}
NEVER_SENT = ("runner_unhealthy", "runner_other_host", "runner_other_port")
# These lists are answered with an error, cannot be read, or come last before TLS breaks.
NODE_FAULTS = ("discovery_fails", "discovery_html", "tls_breaks")


def make_scenario(seed: int) -> Scenario:
    """Draw the orchestrators; most runners are sound, the others have a fault that may come or not."""
    draw = random.Random(seed)
    faults = [fault for fault in (*REASONS, *NEVER_SENT) if fault]
    nodes = []
    for number in range(ORCHESTRATORS):
        runners = []
        for version in range(RUNNERS):
            app, kind = draw.choice(APPS)
            fault = draw.choice(faults) if draw.random() < 0.5 else ""
            # Hidden or gone runners are so for everybody and always.
            is_constant = fault in NEVER_SENT or fault == "runner_gone"
            runners.append(
                RunnerSpec(
                    app=app, version=f"1.{version}", app_kind=kind, capacity=draw.randint(1, 4),  # type: ignore[arg-type]
                    latency_s=(0.0, 0.05), fault=fault, fault_probability=1.0 if is_constant else draw.uniform(0.4, 1),
                )
            )  # fmt: skip
        nodes.append(
            OrchestratorSpec(
                address=f"0x{number + 1:040x}",
                service_uri="https://127.0.0.1:0",
                runners=tuple(runners),
                fault=NODE_FAULTS[number] if number < len(NODE_FAULTS) else "",
            )
        )
    return Scenario("stress", seed, (GatewaySpec("gateway", mode="stock"),), tuple(nodes))


def expected_reason(request: LoggedRunnerRequest) -> str:
    """Return what a request deserves by the simulator's log."""
    # Nothing checks what hello-world says, so there a wrong answer is as good as any.
    if request.fault == "runner_wrong" and request.app.endswith("hello-world"):
        return "ok"
    return REASONS[request.fault]


@pytest.mark.timeout(600)
async def test_every_verdict_agrees_with_the_log(tmp_path: Path) -> None:
    """Each result names the orchestrator that served the job by the log; a job is sent once, and again if deferred."""
    scenario = make_scenario(seed=20)
    broken = {node.address for node in scenario.orchestrators if node.fault == "tls_breaks"}
    silent = {node.address for node in scenario.orchestrators if node.fault.startswith("discovery")}
    async with simulated_tester(
        scenario,
        tmp_path,
        live_runner={"enabled": True, "networks": list(LOOPBACK)},
        pipelines={name: {"timeout": "12s", "cold_timeout": "12s"} for name in DEFINITIONS},
        limits={"jobs": 64, "per_orchestrator": 4, "busy_backoff": "20ms", "busy_retries": 1, "max_response": "1MiB"},
    ) as tester:
        report = await tester.tick()
        rows = await tester.results()
        log: dict[str, list[LoggedRunnerRequest]] = {}
        expected = sum(row.deferred + 1 for row in rows if row.orchestrator not in broken)
        # A job that the tester has given up is logged when its orchestrator notices.
        await until(lambda: len(tester.network.runner_requests) >= expected, "every request is logged")
        for request in tester.network.runner_requests:
            log.setdefault(request.request_id, []).append(request)
    assert report.settled == report.planned == len(rows)
    assert len(rows) >= ORCHESTRATORS * RUNNERS * 0.7
    assert not silent & {row.orchestrator for row in rows}
    assert set(log) <= {row.id for row in rows}
    assert find_disagreements(rows, log, broken) == []
    assert {request.fault for requests in log.values() for request in requests} == set(REASONS)
    assert len(tester.network.leaderboard.rows) == sum(row.outcome != "unscored" for row in rows)
    print(Counter(row.reason for row in rows))  # noqa: T201


def find_disagreements(
    rows: list[ResultRow], log: dict[str, list[LoggedRunnerRequest]], broken: set[str]
) -> list[tuple[str, str, object]]:
    """Return the results that the log contradicts, each with its reason and what the log has."""
    wrong: list[tuple[str, str, object]] = []
    for row in rows:
        requests = log.get(row.id, [])
        if row.orchestrator in broken:
            if row.reason != "unreachable" or requests:
                wrong.append((row.id, row.reason, requests))
            continue
        last = requests[-1] if requests else None
        is_served_by_it = last is not None and (last.address, last.app, last.version) == (
            row.orchestrator, row.pipeline, row.model
        )  # fmt: skip
        reason = row.reason.partition(":")[0]
        if last is None or not is_served_by_it or reason != expected_reason(last) or len(requests) != row.deferred + 1:
            wrong.append((row.id, row.reason, requests))
    return wrong
