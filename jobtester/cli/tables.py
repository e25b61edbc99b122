"""Lay out results, plans, reports and outbox entries for terminals.

A row of a wide terminal is one line. On a narrow one, cells that belong together stand one below the other.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobtester.domain.orchestrators import shorten_address
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.domain.units import format_duration
from jobtester.store.outbox import OutboxEntry
from jobtester.store.queries import ExternalResultRow
from jobtester.store.results import ResultRow
from jobtester.web.schemas import Schema

# From this width on, each table has all its cells side by side.
MIN_WIDE_TICK, _MIN_WIDE_LISTING = 170, 130
_PIPED_WIDTH = 180
_MIN_WIDTH, _MAX_WIDTH = 20, 10_000
_NUMBERS = frozenset({"round trip", "limit", "estimated price", "number", "age", "tries", "success", "ticks"})
_PROSE = frozenset({"meaning", "problem", "listed price", "message"})
# Columns that give way where the terminal is narrow; all others keep their width, because half a number misleads.
_SHRINKABLE = frozenset({"pipeline", "model", "app", "version"}) | _PROSE
_MAX_MESSAGE = 120
_OWNED = frozenset({"pipeline", "model"})
_MAX_OWNED_NAME = 18
_MAX_URI_WIDTH = 30  # so that a long one leaves room for the model beside it
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_STYLES = {"passed": "green", "failed": "red", "unscored": "yellow", "delivered": "green", "refused": "red"}

Cell: TypeAlias = str | Text


@dataclass(frozen=True, slots=True)
class Column:
    """Names of cells that a narrow terminal shows one below the other; `wide_only` ones it leaves out."""

    names: tuple[str, ...]
    wide_only: bool = False


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console for stdout or stderr; where that is not a terminal, lines are plain and as wide as COLUMNS.

    Without COLUMNS they are wide. A quiet console prints nothing.
    """
    stream = sys.stderr if stderr else sys.stdout
    columns = os.environ.get("COLUMNS", "")
    is_width = columns.isascii() and columns.isdecimal() and _MIN_WIDTH <= int(columns[:9]) <= _MAX_WIDTH
    piped_width = int(columns) if is_width else _PIPED_WIDTH
    return Console(
        file=stream,
        width=None if stream.isatty() else piped_width,
        highlight=False,
        soft_wrap=False,
        quiet=quiet,
    )


def print_json(document: Schema) -> None:
    """Print a document on stdout in the shape that the API has too."""
    sys.stdout.buffer.write(document.to_json(indent=True) + b"\n")
    sys.stdout.flush()


def printable_text(text: str) -> Text:
    """Return text from outside without markup; characters that would control the terminal become U+FFFD."""
    return Text(_CONTROLS.sub("\ufffd", text))


def tick_results_table(results: Iterable[Result], *, title: str, width: int) -> Table:
    """Return the results of a tick, by orchestrator."""
    # Not in the order of their ends: a person looks for an orchestrator, and ends are random.
    rows = sorted(
        results,
        key=lambda result: (
            result.job.orchestrator.address, result.job.target.service_uri, result.job.pipeline_model,
        ),
    )  # fmt: skip
    is_wide = width >= MIN_WIDE_TICK
    return make_table(
        [
            Column(("orchestrator", "service URI")),
            Column(("pipeline", "model")),
            # A narrow terminal needs the room for names, so there only `cold` is shown, beside the round trip.
            Column(("state",), wide_only=True),
            Column(("outcome", "reason")),
            Column(("round trip", "attribution")),
        ],
        (
            (
                (shorten_address(result.job.orchestrator.address), result.job.target.service_uri),
                (result.job.pipeline, result.job.model),
                (describe_warmth(result.job.warm),),
                (
                    _styled(result.verdict.outcome.value),
                    "" if result.verdict.outcome is Outcome.PASSED else result.verdict.code,
                ),
                (
                    format_duration(result.round_trip_s) + ("" if is_wide or result.job.warm else " cold"),
                    result.attribution.kind.value,
                ),
            )
            for result in rows
        ),
        title=title,
        is_wide=is_wide,
        cut=True,
    )


def recorded_results_table(rows: Iterable[ResultRow], *, width: int) -> Table:
    """Return recorded results in their order, with the notes on their answers below their reasons."""
    return make_table(
        [
            Column(("recorded", "id")),
            Column(("orchestrator",)),
            Column(("pipeline", "model")),
            Column(("outcome", "reason")),
            Column(("round trip", "state")),
            Column(("attribution",), wide_only=True),
            Column(("message",), wide_only=True),  # at 80 columns it would leave no room for names
        ],
        (
            (
                (_format_instant(row.recorded_at), row.id),
                (shorten_address(row.orchestrator),),
                (row.pipeline, row.model),
                (_styled(row.outcome), _reason_and_notes(row)),
                (format_duration(row.round_trip_s), describe_warmth(row.warm)),
                (row.attribution,),
                (_brief_message(row),),
            )
            for row in rows
        ),
        is_wide=width >= MIN_WIDE_TICK,
    )


def outbox_table(entries: Iterable[OutboxEntry], *, now: float, width: int) -> Table:
    """Return outbox entries in their order; `now` in Unix seconds."""
    return make_table(
        [
            Column(("number",)),
            Column(("state",)),
            Column(("age",)),
            Column(("tries",), wide_only=True),
            Column(("orchestrator",)),
            Column(("pipeline", "model", "problem")),
        ],
        (
            (
                (str(entry.seq),),
                (_styled(entry.state),),
                (format_duration(float(round(max(0.0, now - entry.created_at)))),),
                (str(entry.attempts),),
                (shorten_address(entry.orchestrator),),
                (entry.pipeline, entry.model, entry.problem),
            )
            for entry in entries
        ),
        is_wide=width >= _MIN_WIDE_LISTING,
    )


def external_results_table(rows: Iterable[ExternalResultRow], *, width: int) -> Table:
    """Return other testers' results in their order."""
    stats: list[tuple[ExternalResultRow, Mapping[str, Any]]] = [(row, orjson.loads(row.stat)) for row in rows]
    return make_table(
        [
            Column(("received",)),
            Column(("source",)),
            Column(("orchestrator",)),
            Column(("region",), wide_only=True),
            Column(("pipeline", "model")),
            Column(("success",)),
            Column(("round trip",), wide_only=True),
            Column(("state",)),
        ],
        (
            (
                (_format_instant(row.received_at),),
                (row.source,),
                (shorten_address(stat["orchestrator"]),),
                (stat["region"],),
                (str(stat.get("pipeline", "")) or row.kind, str(stat.get("model", ""))),
                (f"{stat['success_rate']:g}",),
                (format_duration(stat["round_trip_time"]),),
                (_styled(row.state),),
            )
            for row, stat in stats
        ),
        is_wide=width >= _MIN_WIDE_LISTING,
    )


def report_lines(report: TickReport) -> list[str]:
    """Return a job report as a few lines of text."""
    duration_s = (report.finished_at or report.started_at) - report.started_at
    lines = [
        f"tick {report.tick} {report.state} in {format_duration(duration_s)}: {report.settled} of {report.planned} "
        "jobs, " + ", ".join(f"{report.outcomes[outcome]} {outcome.value}" for outcome in Outcome),
        f"job time {format_duration(report.work_s)} in total, {format_duration(report.longest_orchestrator_s)} on the "
        f"busiest orchestrator; estimated price {format_price(report.price_wei)}; seed {report.seed}",
    ]
    for name, counts in (
        ("reasons", report.reasons),
        ("warm", report.warmth["warm"]),
        ("cold", report.warmth["cold"]),
        ("attribution", report.attribution),
        ("skipped", report.skipped),
        ("paused", report.pauses),
        ("deferred", report.deferred),
    ):
        if counts:
            lines.append(f"{name}: {format_counts(dict(counts.most_common()))}")
    if report.problem:
        lines.append(f"problem: {report.problem}")
    return lines


def format_counts(counts: Mapping[str, int]) -> str:
    """Write counts other than 0 in one line, such as `3 passed, 1 failed`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def format_price(wei: int) -> str:
    """Write a price in wei, or in ETH where that is shorter."""
    return f"{wei} wei" if wei < 10**12 else f"{wei / 10**18:.9f} ETH"


def make_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Sequence[Cell]]],
    *,
    is_wide: bool,
    title: str | None = None,
    cut: bool = False,
) -> Table:
    """Return a table; each row has for each column a sequence of cells, one for each of its names.

    Where the terminal is too narrow, names are cut if `cut` is set, and take more lines otherwise.
    """
    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_style="bold", title_justify="left"
    )
    shown = [index for index, column in enumerate(columns) if is_wide or not column.wide_only]
    for names in (columns[index].names for index in shown):
        for stack in [(name,) for name in names] if is_wide else [names]:
            justify: Literal["left", "right"] = "right" if stack[0] in _NUMBERS else "left"
            shrinkable = not _SHRINKABLE.isdisjoint(stack)
            table.add_column(
                _stack(stack),
                justify=justify,
                no_wrap=not shrinkable,
                overflow="ellipsis" if cut and _PROSE.isdisjoint(stack) else "fold",
                max_width=_MAX_URI_WIDTH if "service URI" in stack and not is_wide else None,
            )
    for row in rows:
        if is_wide:
            table.add_row(*(_to_text(cell) for index in shown for cell in row[index]))
        else:
            shorten = _drop_owner if cut else _keep
            table.add_row(*(_stack([*map(shorten, columns[index].names, row[index])]) for index in shown))
    return table


def _drop_owner(name: str, cell: Cell) -> Cell:
    """Return a name of a pipeline or model without its owner if it is long: where both do not fit, the end differs."""
    if name not in _OWNED or not isinstance(cell, str) or len(cell) <= _MAX_OWNED_NAME:
        return cell
    return f"…/{cell.rsplit('/', 1)[1]}" if "/" in cell else cell


def _keep(_name: str, cell: Cell) -> Cell:
    return cell


def _stack(cells: Sequence[Cell]) -> Text:
    """Return cells one below the other, all but the first dimmed; empty ones take no line."""
    lines = [_to_text(cell) for cell in cells if cell]
    # Before the line's own style, so that a colored outcome keeps its color.
    for line in lines[1:]:
        line.stylize_before("dim")
    return Text("\n").join(lines)


def _to_text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else printable_text(cell)


def _styled(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))


def describe_warmth(warm: bool) -> str:
    """Return warm or cold."""
    return "warm" if warm else "cold"


def _reason_and_notes(row: ResultRow) -> Text:
    lines = [f"{note['check']}:{note['note']}" for note in row.notes]
    if row.outcome != "passed":
        lines.insert(0, row.reason)
    return Text("\n".join(lines))


def _brief_message(row: ResultRow) -> str:
    if row.outcome == "passed":
        return ""
    return row.message if len(row.message) <= _MAX_MESSAGE else f"{row.message[:_MAX_MESSAGE]}…"


def _format_instant(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%m-%d %H:%M:%SZ")
