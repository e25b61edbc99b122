"""`jobtester results`, `outbox` and `tick`: what is kept, and what people may do about it."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import orjson

from jobtester.cli import tables
from jobtester.cli.listings import counted, external_results, outbox_entries, recorded_results
from jobtester.domain.orchestrators import normalize_address, parse_endpoint
from jobtester.domain.reasons import Outcome, find_reason
from jobtester.domain.units import format_wei
from jobtester.errors import StoreError, UsageError
from jobtester.settings.model import Settings
from jobtester.store.database import Database
from jobtester.store.outbox import STATES, Outbox, OutboxEntry, RetryCounts
from jobtester.store.queries import ExternalResultRow, Queries, ResultFilters
from jobtester.store.results import ResultRow, Results
from jobtester.store.ticks import Ticks

T = TypeVar("T")

_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_FILTERS = ("tick", "orchestrator", "pipeline", "model", "outcome", "reason")


def results(options: argparse.Namespace) -> int:
    """Print recorded results, newest first."""
    if options.received:
        return _received(options)
    wanted = _filters(options)

    async def find(database: Database) -> list[ResultRow]:
        if wanted["tick"]:
            wanted["tick"] = await _tick(database, wanted["tick"])
        rows: dict[str, ResultRow] = {}
        for target in await _targets(database, options.orchestrator or []):
            page = await Queries(database).page(ResultFilters(**wanted, **target), limit=options.limit)
            rows |= {row.id: row for row in page}
        return sorted(rows.values(), key=lambda row: -row.seq)[: options.limit]

    found = _with_store(options, find)
    if options.json:
        _print_json([{**asdict(row), "estimated_price_wei": format_wei(row.estimated_price_wei)} for row in found])
        return 0
    console = tables.console()
    console.print(recorded_results(found, console.width) if found else "no results")
    return 0


def _received(options: argparse.Namespace) -> int:
    """Print other testers' results, newest first."""
    given = next((name for name in _FILTERS if getattr(options, name) is not None), "")
    if given:
        raise UsageError(f"--{given}: other testers' results (--received) are listed without filters")

    async def find(database: Database) -> list[ExternalResultRow]:
        return await Queries(database).external_results(before=None, limit=options.limit)

    found = _with_store(options, find)
    if options.json:
        _print_json([asdict(one) | {"stat": orjson.loads(one.stat)} for one in found])
        return 0
    console = tables.console()
    console.print(external_results(found, console.width) if found else "no results of other testers")
    return 0


def outbox_list(options: argparse.Namespace) -> int:
    """Print what has not reached the Leaderboard, and why."""
    for state in options.state:
        _one_of("state", state, STATES)

    async def find(database: Database) -> tuple[list[OutboxEntry], dict[str, int]]:
        outbox = Outbox(database)
        return await outbox.entries(tuple(options.state), options.limit), await outbox.counts()

    entries, counts = _with_store(options, find)
    if options.json:
        shown = [{**asdict(entry), "body": entry.body.decode("utf-8", "replace")} for entry in entries]
        _print_json({"counts": counts, "entries": shown})
        return 0
    console = tables.console()
    now = datetime.now(UTC).timestamp()
    console.print(outbox_entries(entries, now, console.width) if entries else "nothing waits")
    console.print(counted(counts), markup=False)
    return 0


def outbox_retry(options: argparse.Namespace) -> int:
    """Post refused, expired or dropped stats again; a running daemon notices within seconds."""

    async def retry(database: Database) -> tuple[RetryCounts, int]:
        outbox = Outbox(database)
        return await outbox.retry(options.number or None), (await outbox.counts())["uncertain"]

    retried, uncertain = _with_store(options, retry)
    code = _said(retried.posted, "will be posted again") if retried.posted or not retried.looked_up else 0
    if retried.looked_up:
        _said(retried.looked_up, "will be looked for at the Leaderboard, and posted again if not stored")
    if retried.maybe_double:
        _said(retried.maybe_double, "of them may already be stored, and then counts twice")
    left = uncertain - retried.looked_up
    if left > 0 and not options.number:
        _said(left, "may be stored and are looked for by themselves; name a number to post one at once")
    return code


def outbox_drop(options: argparse.Namespace) -> int:
    """Give up posting stats; their results stay."""
    count = _with_store(options, lambda database: Outbox(database).drop(options.number or None))
    return _said(count, "will not be posted")


def release(options: argparse.Namespace) -> int:
    """Post a held, suspect tick."""
    wanted = _text("tick", options.tick)

    async def do(database: Database) -> int:
        return await Results(database).release_suspects(await _tick(database, wanted))

    return _said(_with_store(options, do), "released")


def _filters(options: argparse.Namespace) -> dict[str, str]:
    """Check what results are filtered by. Raises UsageError, so that a slip is not taken for an empty list."""
    given = {name: _text(name, getattr(options, name)) for name in _FILTERS if name != "orchestrator"}
    for value in options.orchestrator or []:
        _text("orchestrator", value)
        if not _ADDRESS.fullmatch(normalize_address(value)) and ("://" not in value or parse_endpoint(value) is None):
            raise UsageError(
                "--orchestrator: an Ethereum address, 0x and 40 hexadecimal digits, or a service URI, "
                "such as https://host:8935"
            )
    if given["outcome"]:
        _one_of("outcome", given["outcome"], [one.value for one in Outcome])
    if given["reason"]:
        try:
            find_reason(given["reason"])
        except KeyError as error:
            raise UsageError(f"--reason: there is no reason {given['reason']!r}; see docs/outcomes.md") from error
    return given


def _text(name: str, given: str | None) -> str:
    try:
        (given or "").encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"--{name}: is not text") from error
    return given or ""


def _one_of(name: str, given: str, known: tuple[str, ...] | list[str]) -> None:
    if given not in known:
        raise UsageError(f"--{name}: one of {', '.join(known)}; not {given!r}")


async def _targets(database: Database, wanted: list[str]) -> list[dict[str, str]]:
    """Return the filters for each orchestrator that is meant by address or service URI; one without any for all."""
    if not wanted:
        return [{}]
    known = await Queries(database).targets() if any("://" in value for value in wanted) else []
    return [
        *({"orchestrator": normalize_address(value)} for value in wanted if "://" not in value),
        *(
            {"orchestrator": address, "service_uri": uri}
            for value in wanted
            if "://" in value
            for address, uri in known
            if parse_endpoint(uri) == parse_endpoint(value)
        ),
    ]


async def _tick(database: Database, wanted: str) -> str:
    """Return the id of a tick that may be called `last`. Raises UsageError if there is none of that id."""
    found = await Ticks(database).get(wanted)
    if found is None:
        which = "no tick has run yet" if wanted == "last" else f"there is no tick {wanted!r}; `last` names the newest"
        raise UsageError(f"tick: {which}")
    return found.id


def _said(count: int, what: str) -> int:
    print(f"{count} {'stat' if count == 1 else 'stats'} {what}")  # noqa: T201
    return 0 if count else 1


def _with_store(options: argparse.Namespace, work: Callable[[Database], Awaitable[T]]) -> T:
    """Open the configured store beside a daemon that may be running, and do something with it."""
    path = Path(Settings.load(Path(options.config)).store.path)
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
    sys.stdout.flush()
