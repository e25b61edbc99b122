"""`jobtester plan`: print what a tick would do, without sending a job."""

from __future__ import annotations

import argparse
import asyncio

from jobtester.cli.plan_tables import plan_tables
from jobtester.cli.run import make_selection
from jobtester.cli.tables import format_price, make_console, print_json
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.plan import Plan, Selection
from jobtester.web.schemas import PlanSchema


def print_plan(options: argparse.Namespace) -> int:
    """Discover orchestrators, and print the jobs that one tick would send to them."""
    # A plan posts nothing, so it has to work without the Leaderboard's secret.
    configuration = Configuration.load(options.config, {"leaderboard": {"post": False}})
    configuration.apply_log_settings(quiet=True)
    plan = asyncio.run(_make_plan(configuration, make_selection(options)))
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


async def _make_plan(configuration: Configuration, selection: Selection) -> Plan:
    async with open_daemon(configuration, owner=False, selection=selection) as daemon:
        planner = daemon.coordinator.planner
        return await planner.plan("plan", await planner.discover())
