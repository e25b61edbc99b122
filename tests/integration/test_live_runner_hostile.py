"""What orchestrators list may be anything: each has one reason, nobody else pays for it, and the loop goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jobtester.daemon.bootstrap import open_daemon
from tests.harness.hostile_lists import KINDS, SOUND, hostile_lists
from tests.harness.live_runners import config, runner_discovery
from tests.harness.waiting import TIMEOUT_S

# What the log says of each list; the other kinds are skipped with a reason.
PROBLEMS = {
    "huge": "the answer is larger than 1048576 bytes",
    "endless": "the answer is larger than 1048576 bytes",
    "slow": "the answer is not complete within",
    "html": "the list of live runners is not JSON",
    "compressed": "the list of live runners is not JSON",
    "deep": "the list of live runners is not JSON",
    "wrong_types": "the list of live runners is not a list of tables",
    "no_list": "runners is not a list",
    "many": "10000 live runners are listed, of which the first 200 are read",
    "redirect": "the list of live runners is at another URL (HTTP status 307), which is not followed",
    "huge_price": "someone/hello-world: the price is not a whole number of wei below 2**64",
}
SKIPS = {"own_port": "foreign_url", "own_host": "foreign_url", "other_host": "foreign_url", "deep_metadata": "unpaid"}


@asynccontextmanager
async def trap() -> AsyncIterator[tuple[int, list[str]]]:
    """Listen where nothing may connect to; yield the port, and what came."""
    came: list[str] = []

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(str(writer.get_extra_info("peername")))
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], came


async def test_each_list_has_one_reason_and_costs_nobody_else(tmp_path: Path) -> None:
    """In one tick: the one sound orchestrator passes, no other has a result, and nothing follows where they lead."""
    async with trap() as (port, came), hostile_lists(port) as nodes:
        async with runner_discovery(timeout_s=2.0) as discovery:
            listings = {kind: await discovery.list_runners(nodes[kind].service_uri) for kind in KINDS}
        problems = {kind: listing.problems for kind, listing in listings.items() if listing.problems}
        assert {kind: len(lines) for kind, lines in problems.items()} == dict.fromkeys(PROBLEMS, 1)
        for kind, expected in PROBLEMS.items():
            assert problems[kind][0].startswith(expected), kind
        tables = [{"address": node.address, "service_uri": node.service_uri} for node in nodes.values()]
        live_runner = {"enabled": True, "networks": ["127.0.0.0/8", "::1/128"], "timeout": "2s"}
        async with open_daemon(config(tmp_path, tables, live_runner=live_runner)) as daemon:
            planner = daemon.coordinator.planner
            plan = await planner.plan("plan", await planner.discover())
            report = await asyncio.wait_for(daemon.run_once("test"), TIMEOUT_S)
        assert not came
    kinds = {node.address: kind for kind, node in nodes.items()}
    skips = {kinds[skip.orchestrator]: skip.reason for skip in plan.skipped}
    assert skips == SKIPS | {"many": "no_definition"}
    assert [kinds[job.orchestrator.address] for job in plan.jobs] == [SOUND]
    assert (report.planned, report.outcomes["passed"]) == (1, 1)


async def measure_longest_block(until_done: asyncio.Event) -> tuple[float, float]:
    """Return the most CPU seconds, and the most seconds, that passed between two turns of the event loop.

    CPU time is not longer for other processes that keep this one waiting, but does not see a call that only waits.
    """
    cpu_s = clock_s = 0.0
    while not until_done.is_set():
        cpu, clock = time.process_time(), time.perf_counter()
        await asyncio.sleep(0.001)
        cpu_s, clock_s = max(cpu_s, time.process_time() - cpu), max(clock_s, time.perf_counter() - clock)
    return cpu_s, clock_s


async def test_the_event_loop_is_never_held_up() -> None:
    """All of them at once, five times over: the longest block stays near that of an idle loop."""
    async with trap() as (port, _), hostile_lists(port) as nodes, runner_discovery(timeout_s=1.0) as discovery:
        await discovery.add_runners(list(nodes.values()))  # what is loaded at the first use is not measured
        blocks = []
        for work in (asyncio.sleep(1), discovery.add_runners(list(nodes.values()) * 5)):
            is_done = asyncio.Event()
            measuring = asyncio.create_task(measure_longest_block(is_done))
            await work
            is_done.set()
            blocks.append(await measuring)
    (idle_cpu_s, idle_s), (cpu_s, clock_s) = blocks
    print(f"longest block: {cpu_s * 1000:.1f} ms CPU, {clock_s * 1000:.1f} ms")  # noqa: T201
    print(f"idle: {idle_cpu_s * 1000:.1f} ms CPU, {idle_s * 1000:.1f} ms")  # noqa: T201
    assert cpu_s < idle_cpu_s + 0.1
    assert clock_s < idle_s + 1.0
