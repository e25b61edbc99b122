"""`jobtester result`: print one result with everything behind it, as its page shows it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import orjson
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobtester.cli.store_access import check_text, with_store
from jobtester.cli.tables import make_console, print_json, printable_text
from jobtester.domain.units import format_duration, format_measure
from jobtester.errors import UsageError
from jobtester.settings.model import Settings
from jobtester.store.database import Database
from jobtester.store.full_results import FullResult, FullResults
from jobtester.web.access import is_restricted
from jobtester.web.schemas import FullResultSchema
from jobtester.web.template_filters import format_instant

_STYLES = {"passed": "green", "failed": "red", "unscored": "yellow"}
_MAX_SHOWN = 2000  # characters of an answer; --json has all that is stored

Section = tuple[str, list[tuple[str, str]], str]


def print_result(options: argparse.Namespace) -> int:
    """Print one result."""
    job_id = check_text("id", options.id)

    async def find_result(database: Database) -> FullResult | None:
        return await FullResults(database).get(job_id)

    full = with_store(options, find_result)
    if full is None:
        raise UsageError(f"id: no result is called {job_id!r}; `jobtester results --json` has the ids")
    server = Settings.load(Path(options.config)).server
    base_url = f"http://127.0.0.1:{server.port}"
    result = FullResultSchema.from_full_result(full, base_url, needs_token=is_restricted(server))
    if options.json:
        print_json(result)
        return 0
    console = make_console()
    reason = "" if result.outcome == "passed" else f" {result.reason}"
    heading = Text.assemble((result.outcome, _STYLES.get(result.outcome, "")), reason)
    console.print(heading, printable_text(f"{result.pipeline} · {result.model}"), sep="  ")
    console.print(printable_text(result.message))
    if result.advice:
        console.print(printable_text(result.advice), style="dim")
    for title, facts, text in _sections(result):
        console.print()
        console.print(title, style="bold")
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        for name, value in facts:
            grid.add_row(printable_text(name), printable_text(value))
        if facts:
            console.print(Padding(grid, (0, 0, 0, 2), expand=False))
        if text:
            # As it is, without wrapping: a command is copied, and JSON is read by programs.
            console.print(printable_text(text), soft_wrap=True)
    return 0


def _sections(result: FullResultSchema) -> Iterator[Section]:
    """Return the parts of a result's page in their order: a title, facts by name, and a text."""
    yield "Job", _job_facts(result), ""
    yield from _expectation(result)
    if result.sent is not None:
        facts = [("method", result.sent.method), ("url", result.sent.url), *result.sent.headers.items()]
        facts += [(file.field, f"{file.name}, SHA-256 {file.sha256[:16]}…") for file in result.sent.inputs]
        yield "Request", facts, ""
        yield "As curl", [], result.sent.curl
    else:
        yield "Request", [], result.request
        yield "Test again", [], result.test_command
    yield f"Attribution: {result.attribution}", [("-", line) for line in result.evidence], ""
    if result.response:
        is_cut = len(result.response) > _MAX_SHOWN
        yield "Answer", [], result.response[:_MAX_SHOWN] + ("… (--json has more)" if is_cut else "")
    if result.stat is not None:
        stat = result.stat
        facts = [("state", stat.state), ("queued", format_instant(stat.created_at)), ("posts", str(stat.attempts))]
        facts += [("first sent", format_instant(stat.first_sent_at))] if stat.first_sent_at else []
        facts += [("settled", format_instant(stat.settled_at))] if stat.settled_at else []
        facts += [("missed in a row", f"by {stat.look_ups} look-ups")] if stat.look_ups else []
        facts += [("read back", format_instant(stat.audited_at))] if stat.audited_at else []
        facts += [("problem", stat.problem)] if stat.problem else []
        yield "Stat", facts, orjson.dumps(stat.stat, option=orjson.OPT_INDENT_2).decode()


def _job_facts(result: FullResultSchema) -> list[tuple[str, str]]:
    timing = result.timing
    facts = [
        ("id", result.id),
        ("orchestrator", result.orchestrator),
        ("service URI", result.service_uri),
        ("tick", result.tick),
        ("started", format_instant(result.started_at)),
        ("round trip", format_duration(result.round_trip_s)),
    ]
    if timing is not None:
        parts = [("connect", timing.connect_s), ("wait", timing.wait_s), ("transfer", timing.transfer_s)]
        shown = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in parts if seconds is not None)
        facts.append(("time", shown))
    facts += [
        ("model", "warm" if result.warm else "cold"),
        ("HTTP status", "none" if result.status is None else str(result.status)),
        ("gateway", f"{result.gateway} ({result.targeting})"),
        *(format_measure(name, value) for name, value in result.measures.items()),
        ("fault", result.fault.value),
    ]
    return facts


def _expectation(result: FullResultSchema) -> Iterator[Section]:
    for check in result.checks:
        facts = [("problem", f"{check.problem}: {check.message}")] if check.problem else []
        facts += [(name, str(value)) for name, value in check.parameters.items()]
        yield f"Check: {check.check}", facts, ""
    if result.comparison is not None:
        missing = [word.word for word in result.comparison.expected if not word.matches]
        facts = [
            ("expected", " ".join(word.word for word in result.comparison.expected)),
            ("missing", " ".join(missing) or "none"),
            ("received", result.comparison.text[:_MAX_SHOWN]),
        ]
        if result.comparison.error_rate is not None:
            facts.append(("word error rate", f"{result.comparison.error_rate:.2f}"))
        yield "Words", facts, ""
    if result.stream is not None and result.stream.states:
        yield "Reported by the runner", [(format_duration(at_s), state) for at_s, state in result.stream.states], ""
    if result.received is not None:
        file = result.received
        facts = [("kept", f"{file.content_type}, {file.size} of {file.original_size} bytes, at {file.url}")]
        yield "Received", [*facts, ("SHA-256", file.sha256)], ""
