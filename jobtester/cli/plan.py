"""`jobtester plan`: what a tick would do, without sending anything."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict

import orjson

from jobtester.cli import tables
from jobtester.cli.run import selection
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.plan import Plan, Selection
from jobtester.domain.units import format_wei


def plan(options: argparse.Namespace) -> int:
    """Discover, plan and print."""
    loaded = Configuration.load(options.config, {"leaderboard": {"post": False}})
    loaded.apply_log_settings(quiet=True)
    planned = asyncio.run(_plan(loaded, selection(options)))
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(_document(planned), option=orjson.OPT_INDENT_2) + b"\n")
        return 0
    console = tables.console()
    for table in tables.plan(planned, width=console.width):
        console.print(table)
    unknown = sum(job.price_wei is None for job in planned.jobs)
    note = f" (of {unknown} jobs the price is not known)" if unknown else ""
    console.print(f"{len(planned.jobs)} jobs, estimated price {tables.wei(planned.price_wei)}{note}", markup=False)
    return 0


async def _plan(loaded: Configuration, chosen: Selection) -> Plan:
    async with open_daemon(loaded, owner=False, selection=chosen) as running:
        planner = running.coordinator.planner
        return await planner.plan("plan", await planner.discover())


def _document(planned: Plan) -> dict[str, object]:
    return {
        "jobs": [
            {
                "address": job.orchestrator.address,
                "service_uri": job.target.service_uri,
                "pipeline": job.pipeline,
                "model": job.model,
                "warm": job.warm,
                "timeout_s": job.timeout_s,
                "estimated_price_wei": format_wei(job.price_wei),
            }
            for job in planned.jobs
        ],
        "skipped": [asdict(skip) for skip in planned.skipped],
        "estimated_price_wei": format_wei(planned.price_wei),
    }
