"""Suspect the tester first: failures wait for proof that the path works, in real ticks and across restarts."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.daemon.daemon import Daemon
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from jobtester.store.outbox import Outbox
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import Results
from tests.harness.simulated import config_tables, connect_gateways
from tests.harness.store import open_database
from tests.harness.waiting import until

MODEL = "meta-llama/Meta-Llama-3.1-8B-Instruct"


def network(*faults: str) -> Scenario:
    """Build an orchestrator for each fault, the empty one passing."""
    nodes = tuple(
        OrchestratorSpec(
            address=f"0x{number + 1:040x}",
            service_uri=f"https://o{number}.sim.example:8935",
            models=(ModelSpec("llm", MODEL, latency_s=(0.0, 0.01)),),
            fault=fault,
        )
        for number, fault in enumerate(faults)
    )
    return Scenario("suspicion", 1, (GatewaySpec("gateway", mode="query", retry_window=0.05),), nodes)


@asynccontextmanager
async def running_tester(network: Network, folder: Path, **sections: Any) -> AsyncIterator[Daemon]:
    """Start a tester over a network, with the store and the file that the one before left behind."""
    content = config_tables(network, folder, **sections)
    (folder / "config.toml").write_text(tomli_w.dumps(content))
    async with open_daemon(Configuration.from_tables(content, origin="test")) as one:
        connect_gateways(network, one)
        yield one


def change_faults(network: Network, *faults: str) -> None:
    """Change the faults of the orchestrators."""
    for node, fault in zip(network.orchestrators, faults, strict=True):
        node.restart(fault=fault)


def posted_rates(network: Network) -> list[int]:
    """Return the success of every stat that the Leaderboard has."""
    return [row.stat["success_rate"] for row in network.leaderboard.rows]


async def outbox_counts(daemon: Daemon) -> dict[str, int]:
    """Count what is in the outbox by state."""
    return {state: count for state, count in (await daemon.outbox.counts()).items() if count}


async def run_jobtester(*arguments: str, folder: Path) -> tuple[int | None, str]:
    """Run the shipped command beside whatever runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobtester", *arguments,
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_a_tick_in_which_all_failed_alike_is_held_and_unscored_when_the_path_works_again(tmp_path: Path) -> None:
    """Nothing of it is posted, not even after a restart; the next tick that passes makes it unscored for good."""
    async with Network(network(*["wrong_answer"] * 12)) as net:
        async with running_tester(net, tmp_path) as daemon:
            report = await daemon.run_once("test")
            assert (report.state, report.outcomes) == ("suspect", {"failed": 12})
            assert await outbox_counts(daemon) == {"suspect": 12}
        async with running_tester(net, tmp_path) as daemon:
            assert await outbox_counts(daemon) == {"suspect": 12}
            again = await daemon.run_once("test")
            assert again.state == "suspect"
            assert await outbox_counts(daemon) == {"suspect": 24}
            assert posted_rates(net) == []
        async with running_tester(net, tmp_path) as daemon:
            change_faults(net, *[""] * 6, *["wrong_answer"] * 6)
            third = await daemon.run_once("test")
            assert (third.state, third.outcomes) == ("finished", {"passed": 6, "failed": 6})
            assert await outbox_counts(daemon) == {"delivered": 12}
            for tick in (report.tick, again.tick):
                rows = await Queries(daemon.database).page(ResultFilters(tick=tick), limit=100)
                assert {(row.outcome, row.reason) for row in rows} == {("unscored", "tick_suspect")}
        assert sorted(posted_rates(net)) == [0] * 6 + [1] * 6


async def test_a_person_may_release_it_beside_the_running_daemon(tmp_path: Path) -> None:
    """`jobtester tick release` has the daemon post what it held, once; a second time there is nothing to release."""
    async with Network(network(*["wrong_answer"] * 10)) as net, running_tester(net, tmp_path) as daemon:
        serving = asyncio.ensure_future(daemon.serve())
        try:
            await until(lambda: daemon.scheduler.request_tick("test"), "a tick can be started")
            await until(
                lambda: any(report.state == "suspect" for report in daemon.coordinator.reports), "the tick is suspect"
            )
            assert posted_rates(net) == []
            code, listed = await run_jobtester("outbox", "list", "--state", "suspect", folder=tmp_path)
            assert (code, "10 suspect" in listed) == (0, True)
            assert await run_jobtester("tick", "release", folder=tmp_path) == (0, "10 stats released\n")
            await until(lambda: len(posted_rates(net)) == 10, "the stats are posted")
            assert await run_jobtester("tick", "release", folder=tmp_path) == (1, "0 stats released\n")
        finally:
            daemon.stop()
            await serving
        assert posted_rates(net) == [0] * 10
        assert await outbox_counts(daemon) == {"delivered": 10}


@pytest.mark.parametrize(
    ("faults", "suspect"),
    [
        (["wrong_answer"] * 9, False),
        (["wrong_answer"] * 9 + ["garbage_json"], False),
        (["wrong_answer"] * 8 + ["gateway_500"] * 2, True),
        (["gateway_500"] * 12, False),
        (["wrong_answer"] * 8 + [""] * 2, False),
    ],
    ids=["nine", "two reasons", "others unscored", "nothing failed", "one in five passed"],
)
async def test_what_is_suspect(faults: list[str], suspect: bool, tmp_path: Path) -> None:
    """Ten jobs at least, less than one in five passed, one reason among the failures; otherwise all is posted."""
    async with Network(network(*faults)) as net, running_tester(net, tmp_path) as daemon:
        report = await daemon.run_once("test")
        assert report.state == ("suspect" if suspect else "finished")
        scored = report.outcomes["failed"] + report.outcomes["passed"]
        assert len(posted_rates(net)) == (0 if suspect else scored)


async def test_posting_suspect_ticks_may_be_asked_for(tmp_path: Path) -> None:
    """`leaderboard.post_suspect = true` posts them at the tick's end."""
    async with Network(network(*["wrong_answer"] * 12)) as net:
        async with running_tester(net, tmp_path, leaderboard={"post_suspect": True}) as daemon:
            assert (await daemon.run_once("test")).state == "finished"
        assert posted_rates(net) == [0] * 12


@pytest.mark.slow
async def test_failures_wait_for_a_pass_and_one_pass_among_many_is_not_enough(tmp_path: Path) -> None:
    """A pass is posted at once. A few failures are posted with it; nearly all of many, all alike, stay put."""
    limits = {"busy_retries": 20, "busy_backoff": "100ms", "busy_patience": "50s"}
    for failing, freed in ((3, {"delivered": 4}), (12, {"delivered": 1, "suspect": 12})):
        folder = tmp_path / str(failing)
        folder.mkdir()
        async with (
            Network(network("busy", *["wrong_answer"] * failing)) as net,
            running_tester(net, folder, limits=limits) as daemon,
        ):
            ticking = asyncio.ensure_future(daemon.run_once("test"))

            async def failures_recorded(daemon: Daemon = daemon, failing: int = failing) -> bool:
                return len(await Queries(daemon.database).page(ResultFilters(), limit=100)) >= failing

            await until(failures_recorded, "the failures are recorded")
            assert await outbox_counts(daemon) == {"held": failing}
            assert posted_rates(net) == []
            change_faults(net, "", *["wrong_answer"] * failing)
            report = await ticking
            assert report.outcomes == {"passed": 1, "failed": failing}
            assert await outbox_counts(daemon) == freed
            assert sorted(posted_rates(net)) == [0] * (freed["delivered"] - 1) + [1]


def result(number: int, code: str) -> Result:
    """Make a result of a tick that dies."""
    capability = Capability("llm", MODEL)
    orchestrator = Orchestrator(f"0x{number + 1:040x}", f"https://o{number}", (capability,))
    job = Job(f"j{number}", "t", orchestrator, capability, "Llm", 1.0, 1.0)
    return Result(job, Verdict.from_code(code), Attribution(AttributionKind.PRESUMED), "g", "query", time.time(), 0.5)


@pytest.mark.parametrize(
    ("codes", "hold", "left"),
    [
        (["check:chat"] * 12, True, {"suspect": 12}),
        (["check:chat"] * 12, False, {"pending": 12}),
        (["check:chat"] * 9, True, {"pending": 9}),
        (["check:chat"] * 9 + ["bad_json"], True, {"pending": 10}),
        (["check:chat"] * 9 + ["busy"] * 3, True, {"suspect": 9}),
        (["check:chat"] * 12 + ["ok"] * 2, True, {"suspect": 12, "pending": 2}),
        (["check:chat"] * 8 + ["ok"] * 2, True, {"pending": 10}),
    ],
)
async def test_what_a_dead_tester_held_is_judged_by_the_same_rule(
    codes: list[str], hold: bool, left: dict[str, int], tmp_path: Path
) -> None:
    """A process that died in the middle of a tick leaves held stats; the next one settles them first of all."""
    path = tmp_path / "jobtester.db"
    async with open_database(path) as database:
        for number, code in enumerate(codes):
            recorded = result(number, code)
            stat = Stat.from_result(recorded, "FRA") if recorded.verdict.scored else None
            await Results(database).record(recorded, stat, state="pending" if code == "ok" else "held")
    async with open_database(path) as database:
        outbox = Outbox(database)
        await outbox.recover(hold=hold)
        assert {state: count for state, count in (await outbox.counts()).items() if count} == left
