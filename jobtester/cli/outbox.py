"""`jobtester outbox` and `jobtester tick`: list stats that are not delivered, and decide about them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from jobtester.cli.store_access import check_choice, check_text, find_tick_id, with_store
from jobtester.cli.tables import format_counts, make_console, outbox_table, print_json
from jobtester.store.database import Database
from jobtester.store.outbox import STATES, Outbox, OutboxEntry, RetryCounts
from jobtester.store.results import Results
from jobtester.web.schemas import OutboxEntrySchema, OutboxPageSchema


def list_outbox(options: argparse.Namespace) -> int:
    """Print stats that have not reached the Leaderboard, and why."""
    for state in options.state:
        check_choice("state", state, STATES)

    async def find_entries(database: Database) -> tuple[list[OutboxEntry], dict[str, int]]:
        outbox = Outbox(database)
        return await outbox.entries(tuple(options.state), options.limit), await outbox.counts()

    entries, counts = with_store(options, find_entries)
    if options.json:
        print_json(OutboxPageSchema(items=[OutboxEntrySchema.from_entry(entry) for entry in entries], counts=counts))
        return 0
    console = make_console()
    now = datetime.now(UTC).timestamp()
    console.print(outbox_table(entries, now=now, width=console.width) if entries else "no entries")
    console.print(format_counts(counts), markup=False)
    return 0


def retry_stats(options: argparse.Namespace) -> int:
    """Post refused, expired or dropped stats again; a running daemon notices within seconds."""

    async def retry(database: Database) -> tuple[RetryCounts, int]:
        outbox = Outbox(database)
        return await outbox.retry(options.number or None), (await outbox.counts())["uncertain"]

    retried, uncertain = with_store(options, retry)
    code = _print_count(retried.posted, "will be posted again") if retried.posted or not retried.looked_up else 0
    if retried.looked_up:
        _print_count(retried.looked_up, "will be looked up at the Leaderboard, and posted again if not stored")
    if retried.maybe_double:
        _print_count(retried.maybe_double, "of these may already be stored and may count twice")
    # A stat that may be stored is only posted when its number is given: a person has to decide that it may count twice.
    remaining = uncertain - retried.looked_up
    if remaining > 0 and not options.number:
        _print_count(remaining, "may be stored and will be looked up anyway; name a number to post it at once")
    return code


def drop_stats(options: argparse.Namespace) -> int:
    """Mark stats as dropped, so that they are never posted; their results stay."""
    count = with_store(options, lambda database: Outbox(database).drop(options.number or None))
    return _print_count(count, "will not be posted")


def release_tick(options: argparse.Namespace) -> int:
    """Post the stats of a tick that was held as suspect."""
    tick = check_text("tick", options.tick)

    async def release(database: Database) -> int:
        return await Results(database).release_suspects(await find_tick_id(database, tick))

    return _print_count(with_store(options, release), "released")


def _print_count(count: int, predicate: str) -> int:
    """Print a sentence about a number of stats and return the exit code: 1 if there are none."""
    print(f"{count} {'stat' if count == 1 else 'stats'} {predicate}")  # noqa: T201
    return 0 if count else 1
