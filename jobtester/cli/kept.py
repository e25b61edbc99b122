"""`jobtester results`, `outbox` and `tick`: what is kept, and what people may do about it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import orjson
from rich.text import Text

from jobtester import settings
from jobtester.cli import tables
from jobtester.domain import durations, prices
from jobtester.errors import StoreError
from jobtester.store.database import Database
from jobtester.store.outbox import Entry, Outbox
from jobtester.store.results import Filters, Results
from jobtester.store.rows import Row
from jobtester.store.ticks import Ticks

T = TypeVar("T")


def results(options: argparse.Namespace) -> int:
    """Print recorded results, newest first."""

    async def find(database: Database) -> list[Row]:
        tick = options.tick or ""
        if tick == "last":
            newest = await Ticks(database).get("last")
            tick = newest.id if newest is not None else "none"
        filters = Filters(
            tick=tick,
            address=(options.orchestrator or "").lower(),
            pipeline=options.pipeline or "",
            model=options.model or "",
            outcome=options.outcome or "",
            reason=options.reason or "",
        )
        return await Results(database).page(filters, limit=options.limit)

    found = _with_store(options, find)
    if options.json:
        _print_json([{**asdict(row), "price_wei": prices.text(row.price_wei)} for row in found])
        return 0
    table = tables.headed(
        "recorded", "tick", "orchestrator", "pipeline", "model", "state", "outcome", "reason", "round trip",
        "attribution",
    )  # fmt: skip
    for row in found:
        table.add_row(
            _instant(row.recorded_at), row.tick, tables.short(row.address), Text(row.pipeline), Text(row.model),
            "warm" if row.warm else "cold", row.outcome, "" if row.outcome == "passed" else row.reason,
            f"{row.round_trip_s:.3f} s", row.attribution,
        )  # fmt: skip
    tables.console().print(table if found else "no results")
    return 0


def outbox_list(options: argparse.Namespace) -> int:
    """Print what has not reached the Leaderboard, and why."""

    async def find(database: Database) -> tuple[list[Entry], dict[str, int]]:
        outbox = Outbox(database)
        return await outbox.entries(tuple(options.state), options.limit), await outbox.counts()

    entries, counts = _with_store(options, find)
    if options.json:
        shown = [{**asdict(entry), "body": entry.body.decode("utf-8", "replace")} for entry in entries]
        _print_json({"counts": counts, "entries": shown})
        return 0
    table = tables.headed("number", "state", "age", "orchestrator", "pipeline", "model", "tries", "problem")
    now = datetime.now(UTC).timestamp()
    for entry in entries:
        table.add_row(
            str(entry.seq), entry.state, durations.show(max(0.0, now - entry.created_at)), tables.short(entry.address),
            Text(entry.pipeline), Text(entry.model), str(entry.attempts), Text(entry.problem),
        )  # fmt: skip
    console = tables.console()
    console.print(table if entries else "nothing waits")
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count), markup=False)
    return 0


def outbox_retry(options: argparse.Namespace) -> int:
    """Post refused, expired or dropped stats again; the running daemon notices within its next pass."""
    count = _with_store(options, lambda database: Outbox(database).retry(options.number or None))
    return _said(count, "will be posted again")


def outbox_drop(options: argparse.Namespace) -> int:
    """Give up posting stats; their results stay."""
    count = _with_store(options, lambda database: Outbox(database).drop(options.number or None))
    return _said(count, "will not be posted")


def release(options: argparse.Namespace) -> int:
    """Post a held, suspect tick."""

    async def do(database: Database) -> int:
        tick = options.tick
        if tick == "last":
            newest = await Ticks(database).get("last")
            tick = newest.id if newest is not None else ""
        return await Results(database).release_suspects(tick)

    return _said(_with_store(options, do), "released")


def _said(count: int, what: str) -> int:
    print(f"{count} {'stat' if count == 1 else 'stats'} {what}")  # noqa: T201
    return 0 if count else 1


def _with_store(options: argparse.Namespace, work: Callable[[Database], Awaitable[T]]) -> T:
    """Open the configured store beside a daemon that may be running, and do something with it."""
    path = Path(settings.load(Path(options.config)).store.path)
    if not path.exists():
        raise StoreError(f"store.path: {path} does not exist yet; run a tick first")

    async def run() -> T:
        database = Database(path)
        await database.open(owner=False)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def _print_json(document: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def _instant(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
