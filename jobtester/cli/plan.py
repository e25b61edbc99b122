"""`jobtester plan`: print what a tick would do, without sending a job."""

from __future__ import annotations

import argparse
import asyncio
import sys

from jobtester.cli.plan_tables import plan_tables
from jobtester.cli.run import make_selection
from jobtester.cli.tables import format_price, make_console, print_json
from jobtester.cli.unmatched import find_unmatched
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.plan import Plan, Selection
from jobtester.web.schemas import PlanSchema


def print_plan(options: argparse.Namespace) -> int:
    """Discover orchestrators, and print the jobs that one tick would send to them."""
    # A plan posts nothing, so it has to work without the Leaderboard's secret.
    configuration = Configuration.load(options.config, {"leaderboard": {"post": False}})
    configuration.apply_log_settings(quiet=True)
    plan, unmatched = asyncio.run(_make_plan(configuration, make_selection(options)))
    for line in unmatched:
        print(line, file=sys.stderr)  # noqa: T201
    if options.json:
        print_json(PlanSchema.from_plan(plan))
        return 0
    console = make_console()
    for table in plan_tables(plan, width=console.width):
        console.print(table)
    unpriced = sum(job.price_wei is None for job in plan.jobs)
    verb = "job has" if unpriced == 1 else "jobs have"
    note = f" ({unpriced} {verb} no known price)" if unpriced else ""
    noun = "job" if len(plan.jobs) == 1 else "jobs"
    console.print(f"{len(plan.jobs)} {noun}, estimated price {format_price(plan.price_wei)}{note}", markup=False)
    return 0


async def _make_plan(configuration: Configuration, selection: Selection) -> tuple[Plan, list[str]]:
    """Return the plan of a tick, and which filters match nothing."""
    async with open_daemon(configuration, owner=False, selection=selection) as daemon:
        planner = daemon.coordinator.planner
        orchestrators = await planner.discover()
        unmatched = find_unmatched(selection, orchestrators, planner.effective_catalogue())
        return await planner.plan("plan", orchestrators), unmatched
