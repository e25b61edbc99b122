"""Notes on results reach people: the command line, the API and the page show what is odd and held against nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import aiohttp
import orjson

from jobtester.domain.reasons import Note, Verdict
from jobtester.domain.results import Result
from jobtester.simulator.generated_scenario import generate
from tests.harness.hostile_texts import hostile_result
from tests.harness.process import run_command_in_thread, write_config
from tests.harness.simulated import SimulatedTester, simulated_tester

USAGE = Note("chat", "usage", "usage does not add up: 40 + 3 is not 44")
FINISH = Note("chat", "finish", 'the finish reason is "COMPLETE"')
RAN_OUT = Note("chat", "token_limit", "the model was still thinking when the tester's limit of 64 tokens was reached")


def results() -> list[Result]:
    """Make a passed result with two notes, an unscored one with one, and a passed one without any."""
    passed = Verdict.from_code("ok")
    tester = Verdict.from_code("tester_fault", RAN_OUT.message)
    cases = [(passed, (USAGE, FINISH)), (tester, (RAN_OUT,)), (passed, ())]
    return [
        replace(hostile_result(number, "plain"), verdict=verdict, notes=notes)
        for number, (verdict, notes) in enumerate(cases, 1)
    ]


async def record_results(tester: SimulatedTester) -> list[Result]:
    """Record the results."""
    recorded = results()
    for result in recorded:
        assert await tester.daemon.coordinator.results.record(result, None, not_before=0)
    return recorded


async def test_the_command_line_shows_notes(tmp_path: Path) -> None:
    """Beside the reason in the table, wide and narrow, and whole with --json."""
    async with simulated_tester(generate(seed=1, orchestrators=1, pipelines=("llm",)), tmp_path) as tester:
        await record_results(tester)
        write_config(tester.network, tmp_path)
        for width in ("200", "80"):
            done = await run_command_in_thread(tmp_path, "results", COLUMNS=width)
            assert done.returncode == 0, done.stderr
            shown = " ".join(done.stdout.decode().split())
            for note in (USAGE, FINISH, RAN_OUT):
                assert f"{note.check}:{note.code}" in shown, width
            assert "tester_fault" in shown
        done = await run_command_in_thread(tmp_path, "results", "--json")
        listed = orjson.loads(done.stdout)
        notes = {row["id"]: row["notes"] for row in (listed["items"] if isinstance(listed, dict) else listed)}
        assert notes == {result.id: [_shape(note) for note in result.notes] for result in results()}


async def test_the_api_and_the_page_show_notes(tmp_path: Path) -> None:
    """Check, code and sentence of result; a result without notes has no such part on its page."""
    async with (
        simulated_tester(generate(seed=1, orchestrators=1, pipelines=("llm",)), tmp_path) as tester,
        aiohttp.ClientSession(f"http://127.0.0.1:{tester.daemon.port}") as session,
    ):
        for result in await record_results(tester):
            async with session.get(f"/api/results/{result.id}") as answer:
                assert (await answer.json())["notes"] == [_shape(note) for note in result.notes]
            async with session.get(f"/r/{result.id}") as page:
                text = (await page.text()).replace("&#39;", "'").replace("&#34;", '"')
            assert ("<h2>Notes</h2>" in text) == bool(result.notes)
            for note in result.notes:
                assert f"{note.check}:{note.code}</span> {note.message}" in text


def _shape(note: Note) -> dict[str, str]:
    return {"check": note.check, "note": note.code, "message": note.message}
