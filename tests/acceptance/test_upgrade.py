"""A database and a config.toml of an earlier version go on working after the upgrade, with nothing to change.

The files were written by the program of version 0.1.0: tests/earlier_version.
"""

from __future__ import annotations

import sqlite3
import time
import tomllib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from jobtester.store.queries import Queries
from tests.harness.process import ROOT, run_command
from tests.harness.simulated import simulated_tester
from tests.harness.waiting import until

EARLIER = ROOT / "tests/earlier_version"
_INSTANTS = {
    "ticks": ("started_at", "finished_at"),
    "results": ("started_at", "recorded_at"),
    "outbox": ("created_at", "due_at", "first_sent_at", "last_sent_at", "settled_at"),
    "pulse": ("at",),
}


def write_earlier_store(path: Path) -> None:
    """Create the earlier store as if its last tick had ended a minute ago, so that nothing in it is too old."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript((EARLIER / "store.sql").read_text("utf-8"))
        (newest,) = db.execute("SELECT max(recorded_at) FROM results").fetchone()
        for table, columns in _INSTANTS.items():
            changes = ", ".join(f"{column} = {column} + {time.time() - 60 - newest}" for column in columns)
            db.execute(f"UPDATE {table} SET {changes}")


def values(tables: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return each value by its key path; a list of tables by number."""
    leaves: dict[str, Any] = {}
    for key, value in tables.items():
        children = (
            enumerate(value) if isinstance(value, list) and value and isinstance(value[0], dict) else [("", value)]
        )
        for number, child in children:
            where = f"{path}{key}{number}"
            leaves |= values(child, f"{where}.") if isinstance(child, dict) else {where: child}
    return leaves


@pytest.mark.parametrize("name", ["config.toml", "every_key.toml"])
def test_an_earlier_config_toml_means_the_same(name: str, tmp_path: Path) -> None:
    """The file that was shipped, and one with every key: no problem, and each value is in force as it was written."""
    earlier = (EARLIER / name).read_text("utf-8")
    (tmp_path / "config.toml").write_text(earlier, "utf-8")
    config_show = run_command("config", "show", folder=tmp_path, JOBTESTER_LEADERBOARD__SECRET="secret-of-the-test")
    assert config_show.returncode == 0, config_show.stderr
    assert not config_show.stderr
    written, in_force = values(tomllib.loads(earlier)), values(tomllib.loads(config_show.stdout))
    assert len(written) > 15
    if name == "every_key.toml":  # the other one writes durations as people do
        assert {key: in_force.get(key) for key in written} == written
    else:
        assert set(written) <= set(in_force)


def test_the_one_renamed_key_is_named(tmp_path: Path) -> None:
    """What has to change in an earlier config.toml is said in one line, with the new name."""
    earlier = (EARLIER / "config.toml").read_text("utf-8")
    content = earlier.replace("[limits]\n", '[limits]\nmax_artefact = "1MiB"\n')
    assert content != earlier
    (tmp_path / "config.toml").write_text(content, "utf-8")
    shown = run_command("config", "show", folder=tmp_path, JOBTESTER_LEADERBOARD__SECRET="secret-of-the-test")
    assert shown.returncode == 2
    (line,) = [line for line in shown.stderr.splitlines() if "max_artefact" in line]
    assert "did you mean max_artifact?" in line


async def test_an_earlier_store_goes_on(tmp_path: Path) -> None:
    """Each result is shown as before, a stat that waited is posted once, and a tick adds to the same history."""
    write_earlier_store(tmp_path / "jobtester.db")
    with closing(sqlite3.connect(tmp_path / "jobtester.db")) as db:
        waiting = [orjson.loads(body) for (body,) in db.execute("SELECT body FROM outbox WHERE state = 'pending'")]
        before = {row[0]: row for row in db.execute("SELECT id, outcome, reason, round_trip_s, request FROM results")}
    assert len(waiting) == 4
    assert len(before) == 8
    network = generate(
        seed=1, orchestrators=2, models_per_pipeline=1, pipelines=("llm",), latency_s=(0.0, 0.01), fault_share=0.0,
        gateways=(GatewaySpec(name="tester", mode="query"),),
    )  # fmt: skip
    async with simulated_tester(network, tmp_path, delivery={"audit": 0}) as tester, tester.serving(tick=True):
        report = await tester.first_report()
        assert report.settled == 2

        async def all_delivered() -> bool:
            return not await tester.daemon.outbox.count_waiting()

        await until(all_delivered, "the stats that waited are posted")
        posted = [orjson.loads(row.body) for row in tester.network.leaderboard.rows]
        assert [stat for stat in posted if stat in waiting] == waiting
        assert len(posted) == len(waiting) + 2

        migrated = {row.id: row for row in await tester.results() if row.id in before}
        assert {
            row.id: (row.id, row.outcome, row.reason, row.round_trip_s, row.request) for row in migrated.values()
        } == before
        assert len(await tester.results()) == len(before) + 2
        latest = {row.orchestrator for row, *_ in await Queries(tester.daemon.database).latest()}
        assert {row.orchestrator for row in migrated.values()} <= latest
        base = f"http://127.0.0.1:{tester.daemon.port}"
        async with aiohttp.ClientSession(base, raise_for_status=True) as session:
            for row in migrated.values():
                for path in (f"/r/{row.id}", f"/api/results/{row.id}", f"/o/{row.orchestrator}", f"/t/{row.tick}"):
                    async with session.get(path) as answer:
                        assert row.orchestrator in await answer.text(), path
