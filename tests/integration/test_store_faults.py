"""Faults of the file or its disk: recorded results stay, the reason is reported, and writing resumes by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobtester.errors import StoreError
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec, Scenario
from jobtester.store.database import Database
from tests.harness.delivery import delivery_harness
from tests.harness.disk import fill_disk
from tests.harness.simulated import SimulatedTester, simulated_tester
from tests.harness.waiting import until


def network() -> Scenario:
    """Build a network for a tick of 48 short jobs."""
    return generate(
        seed=5, orchestrators=12, models_per_pipeline=2, pipelines=("llm", "image-to-text"), latency_s=(0.05, 0.1),
        gateways=(GatewaySpec("g", mode="query", retry_window=0.1),),
    )  # fmt: skip


def file_names(folder: Path) -> list[str]:
    """List what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def readiness(tester: SimulatedTester) -> dict[str, Any]:
    """Return the body of /readyz, whose status must agree with it."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{tester.daemon.port}/readyz") as answer,
    ):
        body: dict[str, Any] = await answer.json()
        assert answer.status == (200 if body["ok"] else 503)
        return body


async def fill_mid_tick(tester: SimulatedTester, disk: Path) -> Path:
    """Fill the disk while jobs are in flight, and wait until each has its answer and cannot be recorded."""

    async def some_recorded() -> bool:
        return len(await tester.results()) >= 5

    async def not_writable() -> bool:
        return not tester.daemon.database.is_writable

    async def all_answered() -> bool:
        progress = tester.daemon.coordinator.progress
        assert progress is not None
        return 0 < len(progress.in_flight) == len(tester.network.logged_jobs) - len(await tester.results())

    await until(some_recorded, "some results are recorded")
    filler = fill_disk(disk)
    await until(not_writable, "the full disk is noticed")
    sent = len(tester.network.logged_jobs)
    await until(all_answered, "all jobs in flight are answered")
    limit = tester.daemon.coordinator.planner.inputs.settings.limits.jobs
    assert len(tester.network.logged_jobs) - sent <= limit, "only jobs in flight are sent"
    return filler


async def test_a_full_disk_makes_a_tick_wait(small_disk: Path, tmp_path: Path) -> None:
    """No job starts, readiness says why, nothing is lost; once there is room the same tick finishes all its jobs."""
    path = str(small_disk / "jobtester.db")
    async with (
        simulated_tester(network(), tmp_path, store={"path": path}, limits={"jobs": 4}) as tester,
        tester.serving(tick=True),
    ):
        filler = await fill_mid_tick(tester, small_disk)
        before = [row.id for row in await tester.results()]
        sent = len(tester.network.logged_jobs)
        body = await readiness(tester)
        assert not body["ok"]
        assert "make room" in body["checks"]["store"]["problem"]
        await asyncio.sleep(2.5)  # two tries later nothing has changed
        assert len(tester.network.logged_jobs) == sent < 48
        assert [row.id for row in await tester.results()] == before

        filler.unlink()
        report = await tester.first_report()
        results = await tester.results()
        assert (report.state, report.planned, report.settled) == ("finished", 48, 48)
        assert {row.outcome for row in results} == {"passed"}
        assert len(results) == 48
        assert {row.id for row in results} >= set(before)

        async def all_posted() -> bool:
            return (await tester.daemon.outbox.counts())["delivered"] == 48

        await until(all_posted, "all stats are delivered")
        assert len(tester.network.leaderboard.rows) == 48
        assert (await readiness(tester))["checks"]["store"] == {"ok": True}


async def test_a_daemon_can_be_stopped_while_its_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    """It drops what it cannot record, keeps the rest, and the next daemon opens the file unchanged."""
    path = str(small_disk / "jobtester.db")
    keys: dict[str, Any] = {
        "store": {"path": path},
        "limits": {"jobs": 4, "grace": "200ms"},
        "leaderboard": {"post": False},
    }
    async with simulated_tester(network(), tmp_path, **keys) as tester:
        async with tester.serving(tick=True):
            filler = await fill_mid_tick(tester, small_disk)
            before = [row.id for row in await tester.results()]
        report = tester.daemon.coordinator.reports[0]
        assert report.state == "failed"
        assert "make room" in report.problem
    filler.unlink()
    async with simulated_tester(network(), tmp_path, **keys) as tester:
        assert [row.id for row in await tester.results()] == before


async def test_a_disk_that_is_full_at_the_start_is_reported(small_disk: Path) -> None:
    """The store does not open, and the message says what to do."""
    fill_disk(small_disk)
    with pytest.raises(StoreError, match=r"store\.path: .*(make room|No space left)"):
        await Database(small_disk / "jobtester.db").open()


async def test_a_read_only_disk_is_reported(small_disk: Path) -> None:
    """The message names the key; what is there is not touched."""
    path = small_disk / "jobtester.db"
    first = Database(path)
    await first.open()
    await first.close()
    before = path.read_bytes()
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match=r"store\.path: .*(is read-only|Read-only file system)"):
        await Database(path).open()
    assert path.read_bytes() == before
    assert file_names(small_disk) == ["jobtester.db", "jobtester.db.lock"]


async def test_a_read_only_file_is_reported(tmp_path: Path) -> None:
    """So is a file of another user."""
    path = tmp_path / "jobtester.db"
    first = Database(path)
    await first.open()
    await first.close()
    path.chmod(0o444)
    if os.access(path, os.W_OK):
        pytest.skip("root may write every file; see the test of a read-only disk")
    with pytest.raises(StoreError, match=r"store\.path: .*is read-only"):
        await Database(path).open()


async def test_two_daemons_never_share_a_file(tmp_path: Path) -> None:
    """The second one fails at once, and the first can still write."""
    first, second = Database(tmp_path / "jobtester.db"), Database(tmp_path / "jobtester.db")
    await first.open()
    try:
        with pytest.raises(StoreError, match="in use by another jobtester"):
            await second.open()
        assert await first.check_writable()
    finally:
        await first.close()
    await second.open()
    await second.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_written_to_a_file_that_went_away(tmp_path: Path, replaced: bool) -> None:
    """Moved or replaced under the running daemon: a write fails at once, and succeeds once the file is back."""
    path = tmp_path / "jobtester.db"
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        path.rename(tmp_path / "away")
        if replaced:
            path.write_bytes(b"")
        with pytest.raises(StoreError, match="moved, deleted or replaced"):
            await harness.record()
        assert not await harness.database.check_writable()
        assert "put it back" in harness.database.problem
        (tmp_path / "away").rename(path)
        await harness.record()
        assert harness.database.is_writable
        assert await harness.states() == {"pending": 2}


@pytest.mark.slow
async def test_a_file_that_is_locked_at_the_start_is_reported(tmp_path: Path) -> None:
    """By another program, which the message names as the cause; afterwards the file opens."""
    path = tmp_path / "jobtester.db"
    first = Database(path)
    await first.open()
    await first.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="another program holds it locked"):
            await Database(path).open()
        other.execute("ROLLBACK")
    await first.open()
    await first.close()


@pytest.mark.slow
async def test_a_file_that_is_locked_after_a_post_doubles_nothing(tmp_path: Path) -> None:
    """The answer cannot be recorded; it is recorded later, without another post and without a restart."""
    async with delivery_harness(tmp_path) as harness:
        await harness.record()
        await harness.run()
        harness.set_faults(slow_insert_s=0.3)
        await harness.record()
        with contextlib.closing(sqlite3.connect(tmp_path / "jobtester.db", isolation_level=None)) as other:
            working = asyncio.ensure_future(harness.run())
            await harness.leaderboard.post_progress.wait_for("arrived")
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="another program holds it locked"):
                await working
            assert "locked" in harness.database.problem
            assert harness.stored_numbers() == [1, 2]
            assert await harness.states() == {"delivered": 1, "sending": 1}
            other.execute("ROLLBACK")
        await harness.run(7200)
        assert await harness.states() == {"delivered": 2}
        assert harness.stored_numbers() == [1, 2]
        assert harness.database.problem == ""


def no_header(content: bytes) -> bytes:
    """Overwrite the header."""
    return b"garbage!" * 16 + content[128:]


def no_pages(content: bytes) -> bytes:
    """Overwrite everything after the first page."""
    return content[:4096] + b"\xa5" * (len(content) - 4096)


def first_half(content: bytes) -> bytes:
    """Cut the file in half, as a crashing disk does."""
    return content[: len(content) // 2]


async def test_a_large_damaged_file_is_moved_aside_once_its_damage_was_met(tmp_path: Path) -> None:
    """It is not checked at every start, which takes long; once damage was met, the next start checks all of it."""
    path = tmp_path / "jobtester.db"
    first = Database(path)
    await first.open()
    await first.write(lambda db: db.execute("CREATE TABLE filler AS SELECT zeroblob(70 * 1024 * 1024)"))
    root = await first.read(
        lambda db: db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'results'").fetchone()
    )
    await first.close()
    content = bytearray(path.read_bytes())
    content[(root[0] - 1) * 4096 : root[0] * 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    second, third = Database(path), Database(path)
    await second.open()
    assert second.damaged_copy is None
    with pytest.raises(StoreError, match="the next start moves it aside"):
        await second.read(lambda db: db.execute("SELECT message FROM results").fetchone())
    await second.close()
    await third.open()
    assert third.damaged_copy is not None
    assert await third.check_writable()
    await third.close()
    assert not (tmp_path / "jobtester.db.suspect").exists()


@pytest.mark.parametrize("damage", [no_header, no_pages, first_half])
async def test_a_damaged_file_is_moved_aside(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """It is never overwritten, nor is the second one; the daemon uses a new file, and readiness reports it."""
    path = tmp_path / "jobtester.db"
    async with delivery_harness(tmp_path) as harness:
        await harness.record(5)
    damaged = set()
    for _ in range(2):
        path.write_bytes(damage(path.read_bytes()))
        damaged.add(path.read_bytes())
        async with simulated_tester(network(), tmp_path) as tester:
            body = await readiness(tester)
            assert body["checks"]["store"]["ok"] is False
            assert "jobtester.db.damaged-20" in body["checks"]["store"]["problem"]
            report = await tester.tick()
            assert (report.settled, len(await tester.results())) == (48, 48)
    aside = [name for name in file_names(tmp_path) if ".damaged-" in name and not name.endswith(("-wal", "-shm"))]
    assert {(tmp_path / name).read_bytes() for name in aside} == damaged
    assert len(aside) == 2
    async with simulated_tester(network(), tmp_path) as tester:
        assert (await readiness(tester))["checks"]["store"] == {"ok": True}
        assert len(await tester.results()) == 48
