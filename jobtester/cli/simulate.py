"""`jobtester simulate`: run the simulated network alone, for a daemon elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from jobtester.errors import ConfigError, PortInUseError
from jobtester.logs import configure_logs
from jobtester.simulator.network import Network, Ports
from jobtester.simulator.scenario import Scenario

_DEFAULT_SECRET = "demo-secret"  # noqa: S105 - of a Leaderboard that is made up


def simulate(options: argparse.Namespace) -> int:
    """Serve a simulated network until a signal ends it."""
    configure_logs("info", "auto")
    asyncio.run(_simulate(options))
    return 0


def load_scenario(options: argparse.Namespace) -> Scenario:
    """Load the network that the options name. Raises ConfigError."""
    try:
        if options.capabilities:
            return Scenario.from_capabilities(Path(options.capabilities))
        return Scenario.load(options.scenario)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"the scenario cannot be used: {error}") from error


async def _simulate(options: argparse.Namespace) -> None:
    scenario = load_scenario(options)
    # Fixed distances from --port, so that a configuration can name every port before the network runs.
    names = [spec.name for spec in scenario.gateways]
    ports = Ports(
        {name: (options.port + index, options.port - 1000 + index) for index, name in enumerate(names)},
        leaderboard=options.leaderboard_port if options.leaderboard_port is not None else options.port + 1000,
        control=options.port + 2000,
        nodes=options.port + 3000,
        signer=options.port + 2500,
    )
    network = Network(
        scenario,
        host=options.host,
        ports=ports,
        secret=_read_secret(options.leaderboard_secret_file),
        node_host=options.node_host,
        leaderboard_rows=Path(options.leaderboard_rows) if options.leaderboard_rows else None,
    )
    try:
        await network.start()
    except OSError as error:
        raise PortInUseError(f"--port {options.port}: cannot listen: {error.strerror}") from error
    try:
        for name, gateway in network.gateways.items():
            gateway.webhook_url = options.webhook + (f"/{name}" if len(network.gateways) > 1 else "")
        for line in ["This network is SIMULATED.", *network.describe()]:
            print(line, flush=True)  # noqa: T201
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()
    finally:
        await network.stop()


def _read_secret(path: str | None) -> str:
    if path is None:
        return _DEFAULT_SECRET
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--leaderboard-secret-file {path}: cannot be read: {error}") from error
