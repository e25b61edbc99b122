"""Tables: a tick's results, plan and report, for people's terminals."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobtester.domain import durations
from jobtester.domain.outcome import Outcome
from jobtester.domain.plan import SKIP_REASONS, Plan, Skip
from jobtester.domain.report import Report
from jobtester.domain.results import Result

_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
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


def results(found: Iterable[Result], *, title: str) -> Table:
    """Show results, one a line: who, what, how it went, how long it took, and how sure it is who served."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", expand=False)
    for name, justify in (
        ("orchestrator", "left"),
        ("service URI", "left"),
        ("pipeline", "left"),
        ("model", "left"),
        ("outcome", "left"),
        ("reason", "left"),
        ("round trip", "right"),
        ("attribution", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=name not in ("model", "service URI"), overflow="fold")  # type: ignore[arg-type]
    for one in sorted(found, key=lambda one: (one.job.orchestrator.address, one.job.target.service_uri, one.job.pair)):
        verdict = one.verdict
        table.add_row(
            short(one.job.orchestrator.address),
            plain(one.job.target.service_uri),
            plain(one.job.pipeline),
            plain(one.job.model),
            Text(verdict.outcome.value, style=_STYLES[verdict.outcome]),
            "" if verdict.outcome is Outcome.PASSED else plain(verdict.code),
            f"{one.round_trip_s:.3f} s",
            one.attribution.kind.value,
        )
    return table


def plan(planned: Plan) -> list[Table]:
    """Show the jobs of a plan, and what is skipped with the reason."""
    jobs = Table(title=f"{len(planned.jobs)} jobs", box=box.SIMPLE_HEAD, title_style="bold")
    for name in ("orchestrator", "service URI", "pipeline", "model", "state", "limit", "estimated price"):
        jobs.add_column(name, justify="right" if name in ("limit", "estimated price") else "left", overflow="fold")
    for job in planned.jobs:
        jobs.add_row(
            short(job.orchestrator.address),
            plain(job.target.service_uri),
            plain(job.pipeline),
            plain(job.model),
            "warm" if job.warm else "cold",
            durations.show(job.timeout_s),
            "unknown" if job.price_wei is None else wei(job.price_wei),
        )
    return [jobs, *([skipped(planned.skipped)] if planned.skipped else [])]


def skipped(skips: Sequence[Skip]) -> Table:
    """Show what is not tested, and why."""
    table = Table(title=f"{len(skips)} skipped", box=box.SIMPLE_HEAD, title_style="bold")
    for name in ("orchestrator", "service URI", "pipeline", "model", "reason", "which means"):
        table.add_column(name, overflow="fold")
    for skip in skips:
        table.add_row(
            short(skip.address), plain(skip.service_uri), plain(skip.pipeline), plain(skip.model), skip.reason,
            SKIP_REASONS.get(skip.reason, ""),
        )  # fmt: skip
    return table


def report(found: Report) -> list[str]:
    """Put a job report into a few lines."""
    length = (found.finished_at or found.started_at) - found.started_at
    outcomes = ", ".join(f"{found.outcomes[outcome]} {outcome.value}" for outcome in Outcome)
    lines = [
        f"tick {found.tick} {found.state} in {durations.show(length)}: "
        f"{found.settled} of {found.planned} jobs, {outcomes}",
        f"work {durations.show(found.work_s)} in all, longest orchestrator {durations.show(found.longest_chain_s)}, "
        f"estimated price {wei(found.price_wei)}, seed {found.seed}",
    ]
    for name, counts in (
        ("reasons", found.reasons),
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
