"""`jobtester results`: print recorded results, and those of other testers."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import replace
from typing import Any

from jobtester.cli.store_access import check_choice, check_text, find_tick_id, with_store
from jobtester.cli.tables import external_results_table, make_console, print_json, recorded_results_table
from jobtester.domain.instants import parse_instant
from jobtester.domain.orchestrators import normalize_address, parse_endpoint
from jobtester.domain.reasons import Outcome, find_reason
from jobtester.errors import UsageError
from jobtester.store.database import Database
from jobtester.store.queries import ExternalResultRow, Queries, ResultFilters
from jobtester.store.results import ResultRow
from jobtester.web.schemas import ExternalResultSchema, PageSchema, ResultDetailSchema

_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_TEXTS = ("tick", "pipeline", "model", "outcome", "reason")
_FILTERS = (*_TEXTS, "orchestrator", "since", "until")


def print_results(options: argparse.Namespace) -> int:
    """Print recorded results, newest first."""
    if options.received:
        return _print_external_results(options)
    filters = _check_filters(options)  # before the store is opened: a typo can be reported without it

    async def find_results(database: Database) -> list[ResultRow]:
        conditions = filters
        if filters.tick:
            conditions = replace(filters, tick=await find_tick_id(database, filters.tick))
        # One query per orchestrator, and the newest of all of them: an orchestrator may be named twice.
        rows: dict[str, ResultRow] = {}
        for target in await _find_targets(database, options.orchestrator or []):
            page = await Queries(database).page(replace(conditions, **target), limit=options.limit)
            rows |= {row.id: row for row in page}
        return sorted(rows.values(), key=lambda row: -row.seq)[: options.limit]

    rows = with_store(options, find_results)
    if options.json:
        print_json(PageSchema[ResultDetailSchema](items=[ResultDetailSchema.from_row(row) for row in rows]))
        return 0
    console = make_console()
    console.print(recorded_results_table(rows, width=console.width) if rows else "no results")
    return 0


def _print_external_results(options: argparse.Namespace) -> int:
    for name in _FILTERS:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name}: results of other testers (--received) cannot be filtered")

    async def find_results(database: Database) -> list[ExternalResultRow]:
        return await Queries(database).external_results(before=None, limit=options.limit)

    rows = with_store(options, find_results)
    if options.json:
        print_json(PageSchema[ExternalResultSchema](items=[ExternalResultSchema.from_row(row) for row in rows]))
        return 0
    console = make_console()
    console.print(external_results_table(rows, width=console.width) if rows else "no results of other testers")
    return 0


def _check_filters(options: argparse.Namespace) -> ResultFilters:
    """Return all filters except --orchestrator. Raises UsageError, so that a typo is not mistaken for no results."""
    texts = {name: check_text(name, getattr(options, name)) for name in _TEXTS}
    for value in options.orchestrator or []:
        check_text("orchestrator", value)
        if not _ADDRESS.fullmatch(normalize_address(value)) and ("://" not in value or parse_endpoint(value) is None):
            raise UsageError(
                "--orchestrator: an Ethereum address, 0x and 40 hexadecimal digits, or a service URI, "
                "such as https://host:8935"
            )
    if texts["outcome"]:
        check_choice("outcome", texts["outcome"], [outcome.value for outcome in Outcome])
    if texts["reason"]:
        try:
            find_reason(texts["reason"])
        except KeyError as error:
            raise UsageError(f"--reason: there is no reason {texts['reason']!r}; see docs/outcomes.md") from error
    return ResultFilters(
        tick=texts["tick"],
        pipeline=texts["pipeline"],
        model=texts["model"],
        outcome=texts["outcome"],
        reason=texts["reason"],
        since=_parse_moment("since", options.since),
        until=_parse_moment("until", options.until),
    )


def _parse_moment(name: str, text: str | None) -> float | None:
    try:
        return parse_instant(check_text(name, text), time.time()) if text is not None else None
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from error


async def _find_targets(database: Database, orchestrators: list[str]) -> list[dict[str, Any]]:
    """Return filters for each orchestrator that is named by address or service URI; one empty filter for all."""
    if not orchestrators:
        return [{}]
    # A service URI is compared as an endpoint, since the same URI may be spelled otherwise in the store.
    uris = [value for value in orchestrators if "://" in value]
    targets = await Queries(database).targets() if uris else []
    return [
        *({"orchestrator": normalize_address(value)} for value in orchestrators if "://" not in value),
        *(
            {"orchestrator": address, "service_uri": service_uri}
            for value in uris
            for address, service_uri in targets
            if parse_endpoint(service_uri) == parse_endpoint(value)
        ),
    ]
