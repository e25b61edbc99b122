"""Of each failure and of each capability's newest pass a small file is kept, within bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobtester.domain.result_details import ReceivedFile, ResultDetails
from jobtester.domain.results import Result
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from jobtester.store.database import Database
from jobtester.store.full_results import FullResults
from jobtester.store.results import Results
from jobtester.store.retention import Retention
from jobtester.web.schemas import FullResultSchema
from tests.harness.simulated import simulated_tester
from tests.harness.store import NOW, make_result, open_database, record_results

DAY = 86_400.0


def with_file(code: str = "ok", *, number: int = 1, size: int = 1000) -> Result:
    """Return a result that has a received file of `size` bytes."""
    file = ReceivedFile("image/jpeg", b"x" * size, "ab" * 32, 5000, 512, 512)
    return replace(make_result(code, number=number), details=ResultDetails(received=file))


async def kept(database: Database) -> set[str]:
    """Return the ids of the results whose file is kept."""
    rows = await database.read_rows("SELECT r.id FROM kept_files k JOIN results r ON r.seq = k.seq")
    return {row[0] for row in rows}


async def test_failures_keep_their_files_and_passes_only_the_newest(tmp_path: Path) -> None:
    """A later pass of the same capability takes the earlier one's place; failures and other capabilities stay."""
    async with open_database(tmp_path / "t.db") as database:
        first, failure, second, other = with_file(), with_file("check:image"), with_file(), with_file(number=2)
        for result in (first, failure, second, other):
            await record_results(database, NOW, result)
        assert await kept(database) == {failure.id, second.id, other.id}
        assert await Results(database).record(second, None) is False  # the same job once more changes nothing
        assert await kept(database) == {failure.id, second.id, other.id}


async def test_the_oldest_go_when_all_together_are_too_large(tmp_path: Path) -> None:
    """Retention deletes the oldest files until the rest fits, and leaves their results alone."""
    async with open_database(tmp_path / "t.db") as database:
        results = [with_file("check:image", size=1000) for _ in range(10)]
        for number, result in enumerate(results):
            await record_results(database, NOW + number, result)
        assert await Retention(database).run(keep_s=30 * DAY, now=NOW + 20, max_files_size=3500) == 0
        assert await kept(database) == {result.id for result in results[-3:]}
        assert await database.read_rows("SELECT count(*) FROM results") == [(10,)]
        await Retention(database).run(keep_s=30 * DAY, now=NOW + 20, max_files_size=0)
        assert await kept(database) == set()


async def test_a_file_goes_with_its_result(tmp_path: Path) -> None:
    """What store.keep deletes takes its file along, and nothing else does."""
    async with open_database(tmp_path / "t.db") as database:
        old, new = with_file("check:image"), with_file("check:image")
        await record_results(database, NOW - 31 * DAY, old)
        await record_results(database, NOW, new)
        await Retention(database).run(keep_s=30 * DAY, now=NOW)
        assert await kept(database) == {new.id}
        assert await database.read_rows("SELECT count(*) FROM kept_files") == [(1,)]


@pytest.mark.parametrize("keeps", [True, False])
async def test_the_setting_decides(keeps: bool, tmp_path: Path) -> None:
    """With `store.keep_files = false` a tick keeps nothing, and its results are the same."""
    node = OrchestratorSpec(
        f"0x{1:040x}", service_uri="https://o1.sim.example:8935",
        models=(ModelSpec("text-to-image", "sim/t", latency_s=(0.0, 0.01)),),
    )  # fmt: skip
    scenario = Scenario("kept", 1, (GatewaySpec("gateway", mode="query"),), (node,))
    async with simulated_tester(scenario, tmp_path, store={"keep_files": keeps}) as tester:
        report = await tester.tick()
        assert report.outcomes == {"passed": 1}
        assert len(await kept(tester.daemon.database)) == int(keeps)


async def test_a_failure_without_a_file_is_shown_with_what_a_pass_returned(tmp_path: Path) -> None:
    """Type and size are those of the pass: its sound is no picture because nothing else came back."""
    async with open_database(tmp_path / "t.db") as database:
        file = ReceivedFile("audio/wav", b"x", "cd" * 32, 5000, seconds=2.5)
        passed = replace(make_result("ok", number=2), details=ResultDetails(received=file))
        failed = make_result("503", number=1)
        for result in (passed, failed):
            await record_results(database, NOW, result)
        full = await FullResults(database).get(failed.id)
        assert full is not None
        schema = FullResultSchema.from_full_result(full, "http://127.0.0.1")
        assert (schema.received, schema.reference) == (None, passed.id)
        assert schema.reference_file is not None
        shown = (schema.reference_file.content_type, schema.reference_file.seconds, schema.reference_file.url)
        assert shown == ("audio/wav", 2.5, f"/r/{passed.id}/received")


async def test_a_result_of_an_earlier_version_has_no_details(tmp_path: Path) -> None:
    """What an earlier version recorded is shown with what it has, and nothing is made up."""
    async with open_database(tmp_path / "t.db") as database:
        result = make_result("check:image", response="not json")
        await record_results(database, NOW, result, state="delivered")
        await database.write(lambda db: db.execute("UPDATE results SET details = '{}'"))
        full = await FullResults(database).get(result.id)
        assert full is not None
        schema = FullResultSchema.from_full_result(full, "http://127.0.0.1")
        assert (schema.sent, schema.timing, schema.checks, schema.comparison, schema.received) == (
            None,
            None,
            [],
            None,
            None,
        )
        assert (schema.reference, schema.reference_file) == ("", None)
        assert schema.stat is not None
        assert schema.stat.state == "delivered"
        assert await FullResults(database).get("nothing") is None
