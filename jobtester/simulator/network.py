"""A whole simulated network in one process: gateways, the orchestrators behind them, a Leaderboard, a control port."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from jobtester.simulator import control, job_log, orchestrator, scenario, server, service_listener
from jobtester.simulator.gateway import gateway
from jobtester.simulator.leaderboard.leaderboard import Leaderboard
from jobtester.simulator.runner import known_inputs


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen; 0 is any free port. `gateways` holds (job port, CLI port) by name.

    `nodes` is the first of the ports of those orchestrators whose service URI leaves it open.
    """

    gateways: Mapping[str, tuple[int, int]]
    leaderboard: int = 0
    nodes: int = 0
    control: int = 0


class Network:
    """Everything a scenario names, on real sockets."""

    def __init__(
        self,
        network: scenario.Scenario,
        *,
        host: str = "127.0.0.1",
        ports: Ports | None = None,
        assets_dir: Path | None = None,
        secret: str = "demo-secret",  # noqa: S107 - a simulated server's key
        leaderboard_rows: Path | None = None,
        node_host: str = "",
    ) -> None:
        """Be ready to start; `assets_dir` holds the truth.toml by which test inputs are recognised.

        `node_host` is the name by which others reach orchestrators that would else be on loopback addresses.
        """
        ports = ports or Ports({})
        known = known_inputs.Truth(assets_dir)
        self.scenario, self.host = network, host
        self.log = job_log.Log()
        self.orchestrators = [
            orchestrator.Orchestrator(spec, network.seed, number) for number, spec in enumerate(network.orchestrators)
        ]
        self.gateways = {
            spec.name: gateway.Gateway(
                spec,
                network,
                self.orchestrators,
                self.log,
                known,
                host=host,
                ports=ports.gateways.get(spec.name, (0, 0)),
            )
            for spec in network.gateways
        }
        self.leaderboard: Leaderboard = Leaderboard(
            secret=secret, host=host, port=ports.leaderboard, rows_path=leaderboard_rows
        )
        self._control_port, self._node_ports, self._node_host = ports.control, ports.nodes, node_host
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Network:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def served(self) -> list[job_log.Served]:
        """List who served what so far, in the order in which the jobs ended."""
        return self.log.entries

    @property
    def control_url(self) -> str:
        """Give the control port's base address."""
        return f"http://{self.host}:{self._control_port}"

    async def start(self) -> None:
        """Listen everywhere; if one port is taken nothing stays behind."""
        async with AsyncExitStack() as stack:
            await self._stand_up(stack)
            stack.push_async_callback(self.leaderboard.stop)
            await self.leaderboard.start()
            for one in self.gateways.values():
                stack.push_async_callback(one.stop)
                await one.start()
            runner = web.AppRunner(
                control.Control(self.log, self.gateways, self.leaderboard, self.orchestrators).application(),
                access_log=None,
                shutdown_timeout=0.1,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await server.Listener(runner, self.host, self._control_port, reuse_address=True).start()
            self._control_port = int(runner.addresses[0][1])
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """End everything."""
        await self._stack.aclose()

    async def _stand_up(self, stack: AsyncExitStack) -> None:
        """Listen at the service URIs that are on this machine, and note where they are now."""
        context = service_listener.context()
        for number, node in enumerate(self.orchestrators):
            if not service_listener.is_local(node.spec.service_uri):
                continue
            listening = service_listener.ServiceListener(node.spec.service_uri, context)
            stack.push_async_callback(listening.close)
            uri = listening.open(
                bind_to=self.host if self._node_host else "",
                named=self._node_host,
                port=self._node_ports and self._node_ports + number,
            )
            node.spec, node.listener = dataclasses.replace(node.spec, service_uri=uri), listening
            node.show()
        self.scenario = dataclasses.replace(
            self.scenario, orchestrators=tuple(node.spec for node in self.orchestrators)
        )

    def describe(self) -> list[str]:
        """Tell in a few lines what stands where."""
        nodes = self.scenario.orchestrators
        pairs = sum(len(spec.models) + len(spec.byoc) for spec in nodes)
        lines = [f"Simulated network {self.scenario.name!r}: {len(nodes)} orchestrators, {pairs} capabilities"]
        lines += [
            f"gateway {one.name} ({one.spec.mode}): jobs {one.url}, CLI {one.cli_url}" for one in self.gateways.values()
        ]
        return [*lines, f"Leaderboard: {self.leaderboard.url}", f"control: {self.control_url}"]
