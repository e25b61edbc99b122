"""A store in a file of the test, and results to record in it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.store.database import Database
from jobtester.store.outbox import Outbox, StateChange
from jobtester.store.results import Results

NOW = 1.8e9
_NUMBERS = itertools.count()


@asynccontextmanager
async def open_database(path: Path, *, owner: bool = True) -> AsyncIterator[Database]:
    """Open a file, as the daemon does unless `owner` is false, and close it at the end."""
    database = Database(path)
    await database.open(owner=owner)
    try:
        yield database
    finally:
        await database.close()


def make_result(
    code: str = "ok", *, number: int = 1, model: str = "m", tick: str = "t", response: str = "{}"
) -> Result:
    """Return a result with a reason, of the orchestrator with a number."""
    return Result(
        Job(
            f"job-{next(_NUMBERS)}", tick, Orchestrator(f"0x{number:040x}", f"https://o{number}.example:8935"),
            Capability("llm", model, warm=True), "Llm", 10.0, 1.0, 10**20,
        ),
        Verdict.from_code(code), Attribution(AttributionKind.PROVEN, ("metric: moved",)), "g", "query", NOW, 0.25, 200,
        response=response,
    )  # fmt: skip


async def record_results(database: Database, at: float, *recorded: Result, state: str = "") -> None:
    """Record results at an instant; with a state, also their stats, which enter it at that instant."""
    results, outbox = Results(database, lambda: at), Outbox(database, lambda: at)
    await asyncio.gather(
        *(results.record(result, Stat.from_result(result, "FRA") if state else None) for result in recorded)
    )
    if state in ("delivered", "refused"):
        entries = {entry.result: entry.seq for entry in await outbox.entries(("pending",), limit=100_000)}
        await outbox.apply([StateChange(entries[result.id], state) for result in recorded])  # type: ignore[arg-type]
    elif state:
        ids = orjson.dumps([result.id for result in recorded]).decode()
        settled = at if state in ("expired", "dropped") else None
        await database.write(
            lambda db: db.execute(
                "UPDATE outbox SET state = ?, settled_at = ? WHERE result IN (SELECT value FROM json_each(?))",
                (state, settled, ids),
            )
        )
