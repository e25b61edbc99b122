"""The shipped daemon while its wall clock changes: summer time begins and ends, and somebody sets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import tomli_w

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from tests.harness.process import DaemonProcess, start_command
from tests.harness.simulated import config_tables
from tests.harness.waiting import until
from tests.harness.wall_clock import WallClock

HALF_HOURS = {"cron": "*/30 * * * *", "timezone": "Europe/Berlin", "deadline": "5m", "run_at_start": False}
HOURS = {"interval": "1h", "deadline": "5m", "run_at_start": False}


class DaemonWithClock:
    """A daemon whose wall clock the test sets."""

    def __init__(self, clock: WallClock, running: DaemonProcess, port: int) -> None:
        self.clock, self.running, self.port = clock, running, port

    async def assert_healthy(self) -> None:
        """Assert that it answers, as it has to at any time."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
            session.get(f"http://127.0.0.1:{self.port}/healthz") as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def wait_scheduled(self) -> None:
        """Wait until it has a next tick: from then on it is the daemon that has to notice what the clock does."""
        url = f"http://127.0.0.1:{self.port}/api/status"
        async with aiohttp.ClientSession() as session:

            async def next_tick() -> float | None:
                async with session.get(url) as response:
                    instant: float | None = (await response.json())["next_tick_at"]
                    return instant

            await until(next_tick, "a tick is scheduled")

    async def next_tick(self) -> datetime:
        """Wait for the end of the next tick; return when it began."""
        done = await self.running.next_event("tick_done")
        return datetime.fromtimestamp(done["started_at"], UTC)

    async def ticks_at(self, shown: str, due: str) -> None:
        """Set the clock and assert that one tick starts when it is due, and that the daemon answers."""
        self.clock.set(shown)
        began, instant = await self.next_tick(), datetime.fromisoformat(due)
        assert timedelta(seconds=-1) <= began - instant < timedelta(minutes=2), (began, instant)
        await self.assert_healthy()


@asynccontextmanager
async def daemon_with_clock(folder: Path, start: str, schedule: dict[str, object]) -> AsyncIterator[DaemonWithClock]:
    """Start the daemon at an instant of its wall clock; it has to stop in order at SIGTERM."""
    clock = WallClock.in_folder(folder)
    clock.set(start)
    async with Network(generate(seed=3, orchestrators=1, pipelines=("llm",))) as network:
        content = config_tables(network, folder, schedule=schedule, leaderboard={"post": False})
        del content["schedule"]["offset"]
        if "cron" in schedule:
            del content["schedule"]["interval"]
        (folder / "config.toml").write_text(tomli_w.dumps(content))
        running = DaemonProcess(
            await start_command("serve", folder=folder, stderr=asyncio.subprocess.PIPE, environment=clock.environment)
        )
        try:
            port = (await running.next_event("serving"))["port"]
            for gateway in network.gateways.values():
                gateway.webhook_url = f"http://127.0.0.1:{port}/orchestrators"
            daemon = DaemonWithClock(clock, running, port)
            await daemon.wait_scheduled()
            yield daemon
            await running.stop()
        finally:
            if running.process.returncode is None:
                await running.kill()


@pytest.mark.slow
async def test_ticks_go_on_through_the_end_of_summer_time(tmp_path: Path) -> None:
    """Every half hour of real time, in both passes of the repeated hour; SIGTERM works."""
    async with daemon_with_clock(tmp_path, "2026-10-25T01:40:00+02:00", HALF_HOURS) as daemon:
        await daemon.ticks_at("2026-10-25T01:59:57+02:00", "2026-10-25T02:00+02:00")
        await daemon.ticks_at("2026-10-25T02:29:57+02:00", "2026-10-25T02:30+02:00")
        await daemon.ticks_at("2026-10-25T02:59:57+02:00", "2026-10-25T02:00+01:00")
        await daemon.ticks_at("2026-10-25T02:29:57+01:00", "2026-10-25T02:30+01:00")
        await daemon.ticks_at("2026-10-25T02:59:57+01:00", "2026-10-25T03:00+01:00")


async def test_it_may_start_inside_the_repeated_hour(tmp_path: Path) -> None:
    """It answers, ticks at the next half hour, and stops."""
    async with daemon_with_clock(tmp_path, "2026-10-25T02:10:00+01:00", HALF_HOURS) as daemon:
        await daemon.assert_healthy()
        await daemon.ticks_at("2026-10-25T02:29:57+01:00", "2026-10-25T02:30+01:00")


@pytest.mark.slow
async def test_ticks_go_on_through_the_begin_of_summer_time(tmp_path: Path) -> None:
    """01:30, 03:00, 03:30: half an hour of real time each."""
    async with daemon_with_clock(tmp_path, "2026-03-29T01:10:00+01:00", HALF_HOURS) as daemon:
        await daemon.ticks_at("2026-03-29T01:29:57+01:00", "2026-03-29T01:30+01:00")
        await daemon.ticks_at("2026-03-29T01:59:57+01:00", "2026-03-29T03:00+02:00")
        await daemon.ticks_at("2026-03-29T03:29:57+02:00", "2026-03-29T03:30+02:00")


@pytest.mark.slow
async def test_a_clock_that_is_set_makes_no_storm_and_no_pause(tmp_path: Path) -> None:
    """Forward by hours, as after a sleep: one tick, the rest counted as missed. Back by years: from there on."""
    async with daemon_with_clock(tmp_path, "2030-01-01T09:30:00+00:00", HOURS) as daemon:
        await daemon.ticks_at("2030-01-01T19:30:00+00:00", "2030-01-01T19:30+00:00")
        missed = [line for line in daemon.running.lines if line["event"] == "ticks_missed"]
        assert [line["count"] for line in missed] == [9]
        daemon.clock.set("2026-01-01T07:20:00+00:00")
        await daemon.running.next_event("clock_set_back")
        await daemon.ticks_at("2026-01-01T07:59:57+00:00", "2026-01-01T08:00+00:00")
        assert sum(line["event"] == "tick_done" for line in daemon.running.lines) == 2
