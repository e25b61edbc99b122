"""`jobtester results --since --until` lists what started in a span of time, in UTC and in other zones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from jobtester.settings.model import Settings
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from tests.harness.process import run_command_in_thread, write_config
from tests.harness.store import make_result, open_database, record_results

TEN = 1_777_888_800.0  # 2026-05-04T10:00Z


async def fill_store(folder: Path) -> None:
    """Write config.toml, and a result in each hour from 10:00 to 13:00 UTC, whose model is the hour."""
    async with Network(generate(seed=1, orchestrators=1, pipelines=("llm",))) as network:
        write_config(network, folder)
    async with open_database(folder / Settings.load(folder / "config.toml").store.path) as database:
        for hour in range(10, 14):
            result = replace(make_result(model=f"h{hour}"), started_at=TEN + (hour - 10) * 3600)
            await record_results(database, result.started_at, result)


@pytest.mark.parametrize(
    ("span", "hours"),
    [
        (["--since", "2026-05-04T11:00"], ["h13", "h12", "h11"]),
        (["--until", "2026-05-04 12:00"], ["h11", "h10"]),
        (["--since", "2026-05-04T11:00Z", "--until", "2026-05-04T13:00Z"], ["h12", "h11"]),
        (["--since", "2026-05-04T12:00+02:00", "--until", "2026-05-04 13:00:00 +02:00"], ["h10"]),
        (["--since", "2026-05-04 11:00:00 UTC", "--until", str(int(TEN) + 7200)], ["h11"]),
        (["--since", "1h"], []),
    ],
)
async def test_a_span_of_time_is_listed(span: list[str], hours: list[str], tmp_path: Path) -> None:
    """From the one instant on, before the other; a time without an offset is UTC, wherever the machine stands."""
    await fill_store(tmp_path)
    for zone in ("UTC", "America/New_York"):
        done = await run_command_in_thread(tmp_path, "results", *span, "--json", TZ=zone)
        assert done.returncode == 0, done.stderr
        assert [item["model"] for item in orjson.loads(done.stdout)["items"]] == hours, zone


async def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    """With how to write it, so that a typo is not mistaken for no results."""
    await fill_store(tmp_path)
    wrong = await run_command_in_thread(tmp_path, "results", "--since", "yesterday")
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert b"--since: write 2026-05-04T10:00" in wrong.stderr
