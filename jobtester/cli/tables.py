"""Tables: a tick's results, plan and report, for people's terminals."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobtester.domain.plan import SKIP_REASONS, Plan, Skip
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.domain.units import format_duration

_WIDE = 170
_NUMBERS = frozenset({"round trip", "limit", "estimated price", "number", "age", "tries"})
_PROSE = frozenset({"which means", "problem"})
_CUT = frozenset({"orchestrator", "service URI", "pipeline", "model", "reason"})
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
Pair = tuple[str | Text, str | Text]

_STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.UNSCORED: "yellow"}


def console(*, stderr: bool = False) -> Console:
    """Give the console to print on; where there is no terminal, lines are wide and plain."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 180, highlight=False, soft_wrap=False)


def short(address: str) -> str:
    """Shorten an address so that it can still be told apart."""
    return f"{address[:8]}…{address[-4:]}" if len(address) > 14 else address


def plain(text: str) -> Text:
    """Give free text as a terminal may have it: what would steer the terminal is shown as U+FFFD."""
    return Text(_CONTROLS.sub("\ufffd", text))


def headed(*names: str, title: str | None = None) -> Table:
    """Start a table of one line a row: where the terminal is narrow, names from outside are cut, and prose folds."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    for name in names:
        _column(table, name, name)
    return table


def results(found: Iterable[Result], *, title: str, width: int) -> Table:
    """Show results: who, what, how it went, how long it took, and how sure it is who served."""
    rows = sorted(
        found, key=lambda one: (one.job.orchestrator.address, one.job.target.service_uri, one.job.pipeline_model)
    )
    return _paired(
        (
            ("orchestrator", "service URI"), ("pipeline", "model"), ("state", ""), ("outcome", "reason"),
            ("round trip", "attribution"),
        ),
        (
            (
                (short(one.job.orchestrator.address), one.job.target.service_uri),
                (one.job.pipeline, one.job.model),
                ("warm" if one.job.warm else "cold", ""),
                (
                    Text(one.verdict.outcome.value, style=_STYLES[one.verdict.outcome]),
                    "" if one.verdict.outcome is Outcome.PASSED else one.verdict.code,
                ),
                (f"{one.round_trip_s:.3f} s", one.attribution.kind.value),
            )
            for one in rows
        ),
        title=title,
        width=width,
    )  # fmt: skip


def plan(planned: Plan, *, width: int) -> list[Table]:
    """Show the jobs of a plan, and what is skipped with the reason."""
    jobs = _paired(
        (("orchestrator", "service URI"), ("pipeline", "model"), ("limit", "state"), ("estimated price", "")),
        (
            (
                (short(job.orchestrator.address), job.target.service_uri),
                (job.pipeline, job.model),
                (format_duration(job.timeout_s), "warm" if job.warm else "cold"),
                ("unknown" if job.price_wei is None else wei(job.price_wei), ""),
            )
            for job in planned.jobs
        ),
        title=f"{len(planned.jobs)} jobs",
        width=width,
    )
    return [jobs, *([skipped(planned.skipped, width=width)] if planned.skipped else [])]


def skipped(skips: Sequence[Skip], *, width: int) -> Table:
    """Show what is not tested, and why."""
    return _paired(
        (("orchestrator", "service URI"), ("pipeline", "model"), ("reason", "which means")),
        (
            (
                (short(skip.orchestrator), skip.service_uri),
                (skip.pipeline, skip.model),
                (skip.reason, SKIP_REASONS.get(skip.reason, "")),
            )
            for skip in skips
        ),
        title=f"{len(skips)} skipped",
        width=width,
    )


def _paired(names: Sequence[Pair], rows: Iterable[Sequence[Pair]], *, title: str, width: int) -> Table:
    """Lay pairs out as neighbours on a wide terminal, and one below the other on a narrow one."""
    wide = width >= _WIDE
    table = headed(*(name for pair in names for name in map(str, pair) if name) if wide else (), title=title)
    if not wide:
        for above, below in names:
            _column(table, str(above), _below(above, below))
    for row in rows:
        if wide:
            table.add_row(
                *(_text(one) for pair, named in zip(row, names, strict=True) for one in pair[: 1 + bool(named[1])])
            )
        else:
            table.add_row(*(_below(above, below) for above, below in row))
    return table


def _column(table: Table, name: str, header: str | Text) -> None:
    table.add_column(
        header,
        justify="right" if name in _NUMBERS else "left",
        no_wrap=name not in _CUT | _PROSE,  # what may wrap gives way first
        overflow="fold" if name in _PROSE else "ellipsis",
    )


def _below(above: str | Text, below: str | Text) -> Text:
    return (
        Text.assemble(_text(above), "\n", Text(_CONTROLS.sub("\ufffd", str(below)), style="dim"))
        if below
        else _text(above)
    )


def _text(value: str | Text) -> Text:
    return value if isinstance(value, Text) else plain(value)


def report(found: TickReport) -> list[str]:
    """Put a job report into a few lines."""
    length = (found.finished_at or found.started_at) - found.started_at
    outcomes = ", ".join(f"{found.outcomes[outcome]} {outcome.value}" for outcome in Outcome)
    lines = [
        f"tick {found.tick} {found.state} in {format_duration(length)}: "
        f"{found.settled} of {found.planned} jobs, {outcomes}",
        f"work {format_duration(found.work_s)} in all, "
        f"longest orchestrator {format_duration(found.longest_orchestrator_s)}, "
        f"estimated price {wei(found.price_wei)}, seed {found.seed}",
    ]
    for name, counts in (
        ("reasons", found.reasons),
        ("warm", found.warmth["warm"]),
        ("cold", found.warmth["cold"]),
        ("attribution", found.attribution),
        ("skipped", found.skipped),
        ("put off", found.deferred),
    ):
        if counts:
            lines.append(f"{name}: " + ", ".join(f"{count} {key}" for key, count in counts.most_common()))
    if found.problem:
        lines.append(f"problem: {found.problem}")
    return lines


def wei(amount: int) -> str:
    """Write an amount in wei, with ETH where that is shorter to read."""
    return f"{amount} wei" if amount < 10**12 else f"{amount / 10**18:.9f} ETH"
