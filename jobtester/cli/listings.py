"""Listings: what is kept, as tables that fit the terminal; a narrow one gets fewer columns and two lines a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from rich import box
from rich.table import Table
from rich.text import Text

from jobtester.cli.tables import plain, short
from jobtester.domain.units import format_duration
from jobtester.store.outbox import OutboxEntry
from jobtester.store.queries import ExternalResultRow
from jobtester.store.results import ResultRow

_WIDE = 130
_NUMBERS = ("number", "tries", "success", "round trip", "round trip, state")
_STYLES = {"passed": "green", "failed": "red", "unscored": "yellow", "delivered": "green", "refused": "red"}


def recorded_results(rows: Sequence[ResultRow], width: int) -> Table:
    """Show results: when, who, what, how it went and how long it took."""
    if width >= _WIDE:
        table = _table(
            "recorded", "tick", "orchestrator", "pipeline", "model", "state", "outcome", "reason", "round trip",
            "attribution",
        )  # fmt: skip
        for row in rows:
            table.add_row(
                _instant(row.recorded_at),
                plain(row.tick),
                short(row.orchestrator),
                plain(row.pipeline),
                plain(row.model),
                _state(row),
                _coloured(row.outcome),
                _reason(row),
                f"{row.round_trip_s:.3f} s",
                row.attribution,
            )
        return table
    table = _table("recorded", "orchestrator", "pipeline, model", "outcome, reason", "round trip, state")
    for row in rows:
        outcome = Text("\n").join([one for one in (_coloured(row.outcome), _reason(row)) if one])
        table.add_row(
            _instant(row.recorded_at), short(row.orchestrator), plain(f"{row.pipeline}\n{row.model}"), outcome,
            f"{row.round_trip_s:.3f} s\n{_state(row)}",
        )  # fmt: skip
    return table


def outbox_entries(entries: Sequence[OutboxEntry], now: float, width: int) -> Table:
    """Show what has not reached the Leaderboard: how far it got, how old it is, and what is in its way."""
    if width >= _WIDE:
        table = _table("number", "state", "age", "orchestrator", "pipeline", "model", "tries", "problem")
        for entry in entries:
            table.add_row(
                str(entry.seq),
                _coloured(entry.state),
                _age(entry, now),
                plain(short(entry.orchestrator)),
                plain(entry.pipeline),
                plain(entry.model),
                str(entry.attempts),
                plain(entry.problem),
            )
        return table
    table = _table("number", "state", "age", "orchestrator", "pipeline, model, problem")
    for entry in entries:
        what = "\n".join(line for line in (entry.pipeline, entry.model, entry.problem) if line)
        table.add_row(
            str(entry.seq),
            _coloured(entry.state),
            _age(entry, now),
            plain(short(entry.orchestrator)),
            plain(what),
        )
    return table


def external_results(found: Sequence[ExternalResultRow], width: int) -> Table:
    """Show other testers' results: from where, about whom, and how far each got on its way to the Leaderboard."""
    if width >= _WIDE:
        table = _table(
            "received", "source", "orchestrator", "region", "pipeline", "model", "success", "round trip", "state"
        )
    else:
        table = _table("received", "source", "orchestrator", "pipeline, model", "success", "state")
    for one in found:
        stat: Mapping[str, Any] = orjson.loads(one.stat)
        pipeline, model = str(stat.get("pipeline", "")) or one.kind, str(stat.get("model", ""))
        who = _instant(one.received_at), plain(one.source), plain(short(stat["orchestrator"]))
        success, state = f"{stat['success_rate']:g}", _coloured(one.state)
        if width >= _WIDE:
            took = f"{stat['round_trip_time']:.3f} s"
            table.add_row(*who, plain(stat["region"]), plain(pipeline), plain(model), success, took, state)
        else:
            table.add_row(*who, plain(f"{pipeline}\n{model}".strip()), success, state)
    return table


def _table(*names: str) -> Table:
    """Make a table of which only columns with free text give way."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        free = any(word in name for word in ("pipeline", "model", "problem"))
        justify: Literal["right", "left"] = "right" if name in _NUMBERS else "left"
        table.add_column(name.replace(", ", ",\n"), no_wrap=not free, overflow="fold", justify=justify)
    return table


def counted(counts: Mapping[str, int] | Iterable[tuple[str, int]]) -> str:
    """Put counts into one line."""
    return ", ".join(f"{count} {name}" for name, count in dict(counts).items() if count)


def _coloured(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))


def _state(row: ResultRow) -> str:
    return "warm" if row.warm else "cold"


def _reason(row: ResultRow) -> Text:
    """Return why a job did not pass, and what is odd about its answer."""
    notes = Text("\n".join(f"{note['check']}:{note['note']}" for note in row.notes), style="dim")
    if row.outcome == "passed":
        return notes
    return Text("\n").join([Text(row.reason), notes]) if notes else Text(row.reason)


def _age(entry: OutboxEntry, now: float) -> str:
    return format_duration(float(round(max(0.0, now - entry.created_at))))


def _instant(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M:%SZ")
