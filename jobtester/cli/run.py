"""`jobtester run`: one tick now, with live progress and a closing table."""

from __future__ import annotations

import argparse
import asyncio
import sys

import orjson

from jobtester import configuration, daemon
from jobtester.cli import tables
from jobtester.cli.live import Display
from jobtester.configuration import Configuration
from jobtester.domain.outcome import Outcome
from jobtester.domain.plan import Selection
from jobtester.domain.report import Report


def selection(options: argparse.Namespace) -> Selection:
    """Make the command's own filters of its options."""
    return Selection(
        orchestrators=tuple(options.orchestrator), pipelines=tuple(options.pipeline), models=tuple(options.model)
    )


def run(options: argparse.Namespace) -> int:
    """Run one tick and tell how it went."""
    loaded = configuration.with_logs(configuration.load(options.config), quiet=True)
    display = Display(tables.console(stderr=options.json))
    report = asyncio.run(_run(loaded, display, selection(options), post=not options.no_post))
    conclude(display, report, as_json=options.json)
    if report.state not in ("finished", "suspect"):
        return 1
    return 1 if options.fail_on_failed and report.outcomes[Outcome.FAILED] else 0


async def _run(loaded: Configuration, display: Display, chosen: Selection, *, post: bool) -> Report:
    async with daemon.opened(loaded, post=post, watchers=(display,), selection=chosen) as running:
        display.stopping = lambda: running.stopping
        with display:
            return await running.once("run")


def conclude(display: Display, report: Report, *, as_json: bool, simulated: bool = False) -> None:
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
