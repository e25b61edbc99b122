"""`jobtester run`: one tick now, with live progress and a closing table.

Exit codes: 0 the tick completed; 1 it could not, a stat of it was refused or still waits, or a job failed under
`--fail-on-failed`; 3 nothing was tested, or under `--fail-on-failed` not everything.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import orjson

from jobtester.cli import tables
from jobtester.cli.progress_display import ProgressDisplay
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.plan import Selection
from jobtester.domain.reasons import Fault, Outcome
from jobtester.domain.tick_report import TickReport

NOT_TESTED = 3
_NOT_DELIVERED = ("pending", "sending", "uncertain", "refused", "expired")
# Skips and faults that say nothing about an orchestrator: the tester or a gateway could not test it.
_UNTESTED_SKIPS = ("not_targeted", "gateway_lost", "deadline", "stopped")
_UNTESTED_FAULTS = (Fault.GATEWAY, Fault.TESTER, Fault.UNKNOWN)


def selection(options: argparse.Namespace) -> Selection:
    """Make the command's own filters of its options."""
    return Selection(
        orchestrators=tuple(options.orchestrator), pipelines=tuple(options.pipeline), models=tuple(options.model)
    )


def run(options: argparse.Namespace) -> int:
    """Run one tick and tell how it went."""
    loaded = Configuration.load(options.config)
    loaded.apply_log_settings(quiet=True)
    display = ProgressDisplay(tables.console(stderr=options.json))
    chosen = selection(options)
    report, waiting = asyncio.run(_run(loaded, display, chosen, post=not options.no_post))
    conclude(display, report, as_json=options.json)
    for line in _remarks(report, waiting, chosen):
        print(line, file=sys.stderr)  # noqa: T201
    return _exit_code(display, report, waiting, strict=options.fail_on_failed)


async def _run(
    loaded: Configuration, display: ProgressDisplay, chosen: Selection, *, post: bool
) -> tuple[TickReport, dict[str, int]]:
    """Run a tick; return its report, and how many stats of it did not reach the Leaderboard, by state."""
    async with open_daemon(loaded, post=post, observers=(display,), selection=chosen) as running:
        display.stopping = lambda: running.is_stopping
        with display:
            report = await running.run_once("run")
        counts = await running.outbox.counts(report.tick)
        return report, {state: counts[state] for state in _NOT_DELIVERED if counts[state]}


def _exit_code(display: ProgressDisplay, report: TickReport, waiting: dict[str, int], *, strict: bool) -> int:
    if report.state not in ("finished", "suspect"):
        return 1
    if strict and report.outcomes[Outcome.FAILED]:
        return 1
    scored = report.outcomes[Outcome.PASSED] + report.outcomes[Outcome.FAILED]
    untested = sum(report.skipped[reason] for reason in _UNTESTED_SKIPS) + sum(
        result.verdict.outcome is Outcome.UNSCORED and result.verdict.fault in _UNTESTED_FAULTS
        for result in display.results
    )
    if not scored or (strict and untested):
        return NOT_TESTED
    return 1 if waiting else 0


def _remarks(report: TickReport, waiting: dict[str, int], chosen: Selection) -> list[str]:
    """Return what has to be said besides the table: that nothing was tested, and which stats did not arrive."""
    lines = []
    ended = report.state in ("finished", "suspect")  # else the report says what went wrong
    if ended and not report.outcomes[Outcome.PASSED] + report.outcomes[Outcome.FAILED]:
        filters = [
            f"--{name} {value}"
            for name, values in (
                ("orchestrator", chosen.orchestrators), ("pipeline", chosen.pipelines), ("model", chosen.models),
            )
            for value in values
        ]  # fmt: skip
        if not report.planned and report.orchestrators and filters:
            why = f"no job of the {report.orchestrators} orchestrators matches {' '.join(filters)}; see jobtester plan"
        elif not report.planned:
            why = f"no job was planned for {report.orchestrators} orchestrators; see jobtester plan"
        else:
            why = f"none of {report.planned} jobs came to a score; the reasons are above"
        lines.append(f"nothing was tested: {why}")
    if waiting:
        counts = ", ".join(f"{count} {state}" for state, count in waiting.items())
        lines.append(f"not at the Leaderboard yet: {counts}; see jobtester outbox list")
    return lines


def conclude(display: ProgressDisplay, report: TickReport, *, as_json: bool, simulated: bool = False) -> None:
    """Print the closing table and the job report, or both as one JSON document."""
    if as_json:
        document = {
            "simulated": simulated,
            "report": report.as_json(),
            "results": [result.as_json() for result in display.results],
        }
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        sys.stdout.flush()
        return
    console = tables.console()
    title = "Results on a simulated network" if simulated else "Results"
    console.print(tables.results(display.results, title=title, width=console.width))
    for line in tables.report(report):
        console.print(line, markup=False)
