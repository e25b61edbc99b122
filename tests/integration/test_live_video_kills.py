"""Runner, gateway and tester die at random moments of a stream: no wrong side is charged, and nothing is left."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
from pathlib import Path

import pytest

from jobtester.simulator.network import Network
from jobtester.simulator.scenario import Scenario
from jobtester.store.queries import Queries, ResultFilters
from tests.harness.busy_machine import repeat_when_frames_are_late, require_frames_on_time
from tests.harness.live_tester import (
    FPS,
    assert_nothing_is_left,
    find_decoders,
    is_decoder,
    live_tables,
    live_tester,
    misattributed_streams,
)
from tests.harness.ports import free_port
from tests.harness.process import start_command, write_config
from tests.harness.store import open_database
from tests.harness.waiting import until
from tests.integration.test_live_video import network, node

# By default a tenth of the kills, so that the whole suite stays quick: STRESS=1 does them all.
KILLS = int(os.environ.get("KILLS", 90 if os.environ.get("STRESS") else 8))
TESTER_KILLS = 10 if os.environ.get("STRESS") else 2
STREAM_S = 5.0
ORCHESTRATOR_FAULTS = {"no_frames", "stream_ended", "stream_error", "check:gap", "check:frame_rate"}


def short_network(port: int = 0) -> Scenario:
    """Return a network of one orchestrator, which is never left out of the pool; `port` is what its gateway calls."""
    scenario = network(node(1))
    (gateway,) = scenario.gateways
    live = dataclasses.replace(gateway.live, pool_refresh_s=0.001, callback_port=port)
    return dataclasses.replace(scenario, gateways=(dataclasses.replace(gateway, live=live),))


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_death_in_the_middle_of_a_stream_is_charged_to_nobody_else(tmp_path: Path) -> None:
    """Only a dead orchestrator may fail; a dead gateway leaves its streams unscored, and both are tested again."""
    rng = random.Random(11)
    per_model = {"*": {"video": {"duration": "4s", "max_gap": "1500ms"}}}
    async with live_tester(short_network(), tmp_path, per_model=per_model) as tester:
        gateway, orchestrator = tester.network.gateways["g0"], tester.network.orchestrators[0]
        reasons, descriptors = [], 0
        for number in range(KILLS):
            victim = rng.choice(("orchestrator", "gateway", "gateway, back at once"))
            begun = len(tester.network.live_log.jobs)
            running = asyncio.ensure_future(tester.tick())
            await until(lambda begun=begun: len(tester.network.live_log.jobs) > begun, "the stream")  # type: ignore[misc]
            await asyncio.sleep(rng.uniform(0, STREAM_S))
            if victim == "orchestrator":
                orchestrator.die()
            else:
                await gateway.stop()
                if victim != "gateway":
                    await gateway.start()
            tick = (await running).tick
            await gateway.start()
            orchestrator.restart()
            (row,) = await tester.results(tick)
            reasons.append((victim, row.reason))
            assert row.outcome != "failed" or (victim == "orchestrator" and row.reason in ORCHESTRATOR_FAULTS), row
            assert_nothing_is_left()
            if number == 0:
                descriptors = count_descriptors()
        assert misattributed_streams(tester.network, await tester.results()) == []
        await until(lambda: count_descriptors() < descriptors + 8, f"few open files after {reasons}")
        assert len({reason for _, reason in reasons}) > 1, reasons


@pytest.mark.slow
@pytest.mark.timeout(1800)
@repeat_when_frames_are_late
async def test_a_killed_tester_leaves_nothing_behind(tmp_path: Path) -> None:
    """No decoder outlives it, the port is free, the gateway ends the stream, and the next run scores."""
    rng = random.Random(5)
    port = free_port()
    async with Network(short_network(port)) as stage:
        write_config(stage, tmp_path, **live_tables(port))
        for _ in range(TESTER_KILLS):
            begun = len(stage.live_log.jobs)
            process = await start_run(tmp_path)
            job = await until(lambda begun=begun: next(iter(stage.live_log.jobs[begun:]), None), "the stream")  # type: ignore[misc]
            await asyncio.sleep(rng.uniform(0, STREAM_S))
            decoders = find_decoders(process.pid)
            process.kill()
            await process.wait()
            await until(lambda job=job: job.ended_at, "the gateway ends the stream")  # type: ignore[misc]
            await until(lambda decoders=decoders: not any(map(is_decoder, decoders)), "the decoders end")  # type: ignore[misc]
        process = await start_run(tmp_path)
        await asyncio.wait_for(process.wait(), 60)
        async with open_database(tmp_path / "jobtester.db") as database:
            require_frames_on_time(*await Queries(database).page(ResultFilters(), limit=1))
        assert process.returncode == 0
        job = stage.live_log.jobs[-1]
        assert sum(output.frames for output in job.outputs) > FPS


async def start_run(folder: Path) -> asyncio.subprocess.Process:
    """Start one tick in a process of its own."""
    return await start_command(
        "run", folder=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )


def count_descriptors() -> int:
    """Return how many files and sockets this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
