"""`jobtester demo`: a simulated network and the daemon in one process; needs no network, no ETH, no configuration."""

from __future__ import annotations

import argparse
import asyncio
import socket
import tempfile
from pathlib import Path
from typing import Any

from jobtester.cli.progress_display import ProgressDisplay
from jobtester.cli.run import print_tick
from jobtester.cli.simulate import load_scenario
from jobtester.cli.tables import make_console
from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.orchestrators import LIVE_VIDEO
from jobtester.logs import configure_logs
from jobtester.simulator.network import Network, Ports

_BANNER = "This network is SIMULATED: every orchestrator, answer and score below is made up."
_STAY_PORT = 7934
# Long enough for every fault to show, and short enough to watch.
_LIVE_VIDEO_PIPELINE = {
    "timeout": "8s",
    "cold_timeout": "8s",
    "video": {"width": 256, "height": 256, "duration": "9s", "max_gap": "2s", "max_reaction": "3s"},
    "per_model": {"streamdiffusion": {"video": {"passes_through": True}}},
}
_RUNNER_VIDEO_PIPELINE = {
    "apps": ["*/video-echo"],
    "timeout": "8s",
    "cold_timeout": "8s",
    "video": {"width": 192, "height": 192, "fps": 15, "duration": "8s", "max_gap": "2s"},
}
_BATCH_PIPELINES = (
    "text-to-image", "image-to-image", "image-to-video", "upscale", "audio-to-text", "segment-anything-2", "llm",
    "image-to-text", "text-to-speech",
)  # fmt: skip

# A simulated app that keeps sessions; no built-in pipeline knows it.
_ECHO = {
    "runner": True, "apps": ["*/echo", "*/echo-proxied"], "uri": "/say", "timeout": "10s", "cold_timeout": "10s",
    "parameters": {"text": "hello"}, "checks": [{"check": "json", "path": "text"}],
}  # fmt: skip


def demo(options: argparse.Namespace) -> int:
    """Run one tick on a simulated network and print its results; with --stay, keep running."""
    configure_logs("info" if options.stay else "error", "auto")
    make_console(stderr=options.json).print(_BANNER, style="bold yellow")
    with tempfile.TemporaryDirectory(prefix="jobtester-demo-") as folder:
        return asyncio.run(_run_demo(options, Path(folder)))


async def _run_demo(options: argparse.Namespace, folder: Path) -> int:
    console = make_console(stderr=options.json)
    # A free port for what gateways ask during live video, so that two demos, or a demo and a daemon, do not meet.
    ports = Ports({}, live_callback=_find_free_port())
    async with Network(load_scenario(options), ports=ports) as network:
        shown = make_console(stderr=options.json, quiet=options.verbosity == "quiet")
        display = ProgressDisplay(shown, is_stopping=lambda: daemon.is_stopping)
        configuration = Configuration.from_tables(_config_tables(network, folder), origin="demo", simulated=True)
        # Without --stay nobody needs to find the port, and a fixed one might be taken by a daemon.
        port = options.port if options.port is not None else _STAY_PORT if options.stay else 0
        observers = () if options.stay else (display,)
        async with open_daemon(configuration, observers=observers, port=port) as daemon:
            url = f"http://127.0.0.1:{daemon.port}"
            # Only now, since the port of the daemon is not known before; no tick has begun yet.
            for name, gateway in network.gateways.items():
                gateway.webhook_url = f"{url}/orchestrators" + (f"/{name}" if len(network.gateways) > 1 else "")
            if options.stay:
                for line in [*network.describe(), f"tester: {url}/ (Ctrl-C stops)"]:
                    console.print(line, markup=False)
                await daemon.serve()
                return 0
            with display:
                report = await daemon.run_once("demo")
        # While the network still stands: its rows end with it.
        stored = len(network.leaderboard.rows)
    print_tick(report, display.results, as_json=options.json, simulated=True)
    console.print(f"{stored} stats stored at the simulated Leaderboard", markup=False)
    was_completed = report.state in ("finished", "suspect")
    return 0 if was_completed and report.settled + sum(report.skipped.values()) > 0 else 1


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _config_tables(network: Network, folder: Path) -> dict[str, Any]:
    """Return a configuration for the simulated network, with timeouts that suit a quick one."""
    has_runners = any(node.runners or node.live_runners for node in network.scenario.orchestrators)
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
                "streams": 4,
            }
            for name, gateway in network.gateways.items()
        ],
        "limits": {"jobs": 16 if len(network.gateways) == 1 else 32, "busy_backoff": "200ms", "grace": "2s"},
        "leaderboard": {"url": network.leaderboard.url, "secret": network.leaderboard.secret},
        "store": {"path": str(folder / "jobtester.db")},
        "discovery": {"patience": "5s"},
        # Simulated orchestrators are on this machine, where the tester asks nobody without being told to.
        "live_runner": {
            "enabled": has_runners,
            "networks": ["127.0.0.0/8"],
            "probe": "reserve",
            "streams": 2,
            "payment": {"signer_url": network.signer.url, "max_price_per_job": "0.001 ETH"} if has_runners else {},
        },
        "live_video": _live_video_table(network),
        "pipelines": {
            **{slug: {"timeout": "10s", "cold_timeout": "15s"} for slug in _BATCH_PIPELINES},
            "hello-world": {"timeout": "10s", "cold_timeout": "10s"},
            "echo": _ECHO,
            "runner-video-echo": _RUNNER_VIDEO_PIPELINE,
            LIVE_VIDEO: _LIVE_VIDEO_PIPELINE,
        },
    }


def _live_video_table(network: Network) -> dict[str, Any]:
    """Return how simulated gateways reach the tester for live video; nothing where no orchestrator offers it."""
    nodes = network.scenario.orchestrators
    if not any(model.pipeline == LIVE_VIDEO for node in nodes for model in node.models):
        return {}
    port = network.scenario.gateways[0].live.callback_port
    return {"callback_host": "127.0.0.1", "host": "127.0.0.1", "port": port, "spacing": "1s", "pool_refresh": "36s"}
