"""`jobtester demo`: a simulated network and the daemon in one process; needs no network, no ETH, no configuration."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

from jobtester.cli import tables
from jobtester.cli.progress_display import ProgressDisplay
from jobtester.cli.run import conclude
from jobtester.cli.simulate import scenario_of
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.tick_report import TickReport
from jobtester.logs import configure_logs
from jobtester.simulator.network import Network

SIMULATED = "This network is SIMULATED: every orchestrator, answer and score below is made up."


def demo(options: argparse.Namespace) -> int:
    """Run one tick against a simulated network and print what came of it; with --stay, keep going."""
    configure_logs("info" if options.stay else "error", "auto")
    console = tables.console(stderr=options.json)
    console.print(SIMULATED, style="bold yellow")
    with tempfile.TemporaryDirectory(prefix="jobtester-demo-") as folder:
        return asyncio.run(_demo(options, Path(folder)))


async def _demo(options: argparse.Namespace, folder: Path) -> int:
    console = tables.console(stderr=options.json)
    async with Network(scenario_of(options)) as network:
        display = ProgressDisplay(console)
        loaded = Configuration.from_tables(_settings(network, folder, stay=options.stay), origin="demo", simulated=True)
        port = options.port if options.port is not None else 7934 if options.stay else 0
        watchers = () if options.stay else (display,)
        async with open_daemon(loaded, observers=watchers, port=port) as running:
            several = len(network.gateways) > 1
            for name, gateway in network.gateways.items():
                path = f"/orchestrators/{name}" if several else "/orchestrators"
                gateway.webhook_url = f"http://127.0.0.1:{running.port}{path}"
            if options.stay:
                for line in [*network.describe(), f"tester: http://127.0.0.1:{running.port}/ (Ctrl-C stops)"]:
                    console.print(line, markup=False)
                await running.serve()
                return 0
            display.stopping = lambda: running.is_stopping
            with display:
                report = await running.run_once("demo")
        stored = len(network.leaderboard.rows)
    conclude(display, report, as_json=options.json, simulated=True)
    console.print(f"{stored} stats stored at the simulated Leaderboard", markup=False)
    return 0 if _complete(report) else 1


def _complete(report: TickReport) -> bool:
    return report.state in ("finished", "suspect") and report.settled + sum(report.skipped.values()) > 0


def _settings(network: Network, folder: Path, *, stay: bool) -> dict[str, Any]:
    """Configure the daemon for the simulated network: one gateway per gateway, times that suit a quick network."""
    several = len(network.gateways) > 1
    return {
        "region": "FRA",
        "schedule": {"interval": "1m", "deadline": "5m"},
        "server": {"host": "127.0.0.1"},
        "gateways": [
            {
                "name": name,
                "url": gateway.url,
                "cli_url": gateway.cli_url,
                "targeting": "query" if gateway.spec.mode == "query" else "webhook",
                "overlap": gateway.spec.mode == "tester" and network.scenario.name == "overlap",
                "after_disconnect": "1s",
                "first_ask": "3s",
            }
            for name, gateway in network.gateways.items()
        ],
        "limits": {"jobs": 16 if not several else 32, "busy_backoff": "200ms", "grace": "2s"},
        "leaderboard": {"url": network.leaderboard.url, "secret": network.leaderboard.secret},
        "store": {"path": str(folder / "jobtester.db")},
        "discovery": {"patience": "5s"},
        "pipelines": {slug: {"timeout": "10s", "cold_timeout": "15s"} for slug in _BATCH},
    }


_BATCH = (
    "text-to-image",
    "image-to-image",
    "image-to-video",
    "upscale",
    "audio-to-text",
    "segment-anything-2",
    "llm",
    "image-to-text",
    "text-to-speech",
)
