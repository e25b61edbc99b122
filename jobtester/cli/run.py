"""`jobtester run`: run one tick now, with live progress and a closing table.

Exit codes: 0 the tick was completed; 1 it was not, or a stat of it was refused or is not delivered yet, or a job failed
under `--fail-on-failed`; 3 nothing was tested, or under `--fail-on-failed` not everything.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from jobtester.cli.progress_display import ProgressDisplay
from jobtester.cli.tables import format_counts, make_console, print_json, report_lines, tick_results_table
from jobtester.cli.unmatched import find_unmatched
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.plan import Selection
from jobtester.domain.reasons import Fault, Outcome
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.web.schemas import RunSchema

NOT_TESTED = 3
# A held, suspect tick and a dropped stat are decisions and no failures of delivery.
_UNDELIVERED_STATES = ("pending", "sending", "uncertain", "refused", "expired")
# Skips and faults that say nothing about an orchestrator: the tester or a gateway could not test it.
_UNTESTED_SKIPS = ("not_targeted", "gateway_lost", "deadline", "stopped")
_UNTESTED_FAULTS = (Fault.GATEWAY, Fault.TESTER, Fault.UNKNOWN)


def make_selection(options: argparse.Namespace) -> Selection:
    """Return the filters of a command's options."""
    return Selection(
        orchestrators=tuple(options.orchestrator), pipelines=tuple(options.pipeline), models=tuple(options.model)
    )


def run(options: argparse.Namespace) -> int:
    """Run one tick and print its results."""
    configuration = Configuration.load(options.config)
    configuration.apply_log_settings(quiet=True)
    selection = make_selection(options)
    report, results, undelivered, unmatched = asyncio.run(_run_tick(configuration, selection, options))
    print_tick(report, results, as_json=options.json)
    for line in closing_remarks(report, undelivered, selection, unmatched):
        print(line, file=sys.stderr)  # noqa: T201
    return exit_code(report, results, undelivered, strict=options.fail_on_failed)


async def _run_tick(
    configuration: Configuration, selection: Selection, options: argparse.Namespace
) -> tuple[TickReport, Sequence[Result], dict[str, int], list[str]]:
    """Run a tick; return its report, its results, the number of its undelivered stats by state, and idle filters."""
    console = make_console(stderr=options.json, quiet=options.verbosity == "quiet")
    display = ProgressDisplay(console, is_stopping=lambda: daemon.is_stopping)
    async with open_daemon(
        configuration, post=not options.no_post, observers=(display,), selection=selection
    ) as daemon:
        with display:
            report = await daemon.run_once("run")
        # After run_once() has drained delivery, so that a stat counts that is neither posted nor refused by then.
        counts = await daemon.outbox.counts(report.tick)
        planner = daemon.coordinator.planner
        unmatched = find_unmatched(selection, planner.orchestrators, planner.effective_catalogue())
    undelivered = {state: counts[state] for state in _UNDELIVERED_STATES if counts[state]}
    return report, display.results, undelivered, unmatched


def print_tick(report: TickReport, results: Sequence[Result], *, as_json: bool, simulated: bool = False) -> None:
    """Print a table of the results and the job report, or both as one JSON document."""
    if as_json:
        print_json(RunSchema.from_report(report, results, simulated=simulated))
        return
    console = make_console()
    title = "Results on a simulated network" if simulated else "Results"
    console.print(tick_results_table(results, title=title, width=console.width))
    for line in report_lines(report):
        console.print(line, markup=False)


def closing_remarks(
    report: TickReport, undelivered: dict[str, int], selection: Selection, unmatched: Sequence[str] = ()
) -> list[str]:
    """Return why nothing was tested, if so, which filters match nothing, and how many stats were not delivered."""
    lines = []
    was_completed = report.state in ("finished", "suspect")  # otherwise the report has the problem
    if was_completed and not _scored_count(report):
        filters = [
            f"--{name} {value}"
            for name, values in (
                ("orchestrator", selection.orchestrators),
                ("pipeline", selection.pipelines),
                ("model", selection.models),
            )
            for value in values
        ]
        if not report.planned and unmatched:
            why = "; ".join(unmatched)
        elif not report.planned and report.orchestrators and filters:
            why = f"no job of the {report.orchestrators} orchestrators matches {' '.join(filters)}; see jobtester plan"
        elif not report.planned:
            why = f"no job was planned for {report.orchestrators} orchestrators; see jobtester plan"
        else:
            why = f"none of the {report.planned} jobs was scored; the reasons are above"
        lines.append(f"nothing was tested: {why}")
    if report.planned:
        lines += unmatched
    if undelivered:
        lines.append(f"not at the Leaderboard yet: {format_counts(undelivered)}; see jobtester outbox list")
    return lines


def exit_code(report: TickReport, results: Sequence[Result], undelivered: dict[str, int], *, strict: bool) -> int:
    """Return the exit code of a run; `strict` is `--fail-on-failed`."""
    if report.state not in ("finished", "suspect"):
        return 1
    # Failures come before gaps: a CI run has to show the orchestrator's fault first.
    if strict and report.outcomes[Outcome.FAILED]:
        return 1
    untested = sum(report.skipped[reason] for reason in _UNTESTED_SKIPS) + sum(
        result.verdict.outcome is Outcome.UNSCORED and result.verdict.fault in _UNTESTED_FAULTS for result in results
    )
    if not _scored_count(report) or (strict and untested):
        return NOT_TESTED
    return 1 if undelivered else 0


def _scored_count(report: TickReport) -> int:
    return report.outcomes[Outcome.PASSED] + report.outcomes[Outcome.FAILED]
