"""A whole simulated network in one process: orchestrators, gateways, a Leaderboard and a control port."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from jobtester.simulator.control import ControlPort
from jobtester.simulator.faults import LIVE_PIPELINE
from jobtester.simulator.gateway.gateway import Gateway
from jobtester.simulator.job_log import JobLog, LoggedJob, LoggedRunnerRequest
from jobtester.simulator.leaderboard.leaderboard import Leaderboard
from jobtester.simulator.live_runner.payment import PaymentLedger
from jobtester.simulator.live_runner.service_port import ServicePort
from jobtester.simulator.live_runner.signer import RemoteSigner
from jobtester.simulator.live_video.live_log import LiveLog
from jobtester.simulator.live_video.orchestrator_port import LiveVideoPort
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.runner.known_inputs import KnownInputs
from jobtester.simulator.scenario import Scenario
from jobtester.simulator.server import start_listening
from jobtester.simulator.service_listener import ServiceListener, create_tls_context, is_loopback, not_found_text
from jobtester.simulator.trickle.server import TrickleServer


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen; 0 is any free port. `gateways` holds (job port, CLI port) by gateway name.

    `nodes` is the port of the first orchestrator whose service URI leaves it open; the next ones follow.
    `signer` is that of the remote signer, which runs if there are runners. `live_callback` is where gateways call the
    clients of live video back; 0 is what the scenario says.
    """

    gateways: Mapping[str, tuple[int, int]]
    leaderboard: int = 0
    nodes: int = 0
    signer: int = 0
    control: int = 0
    live_callback: int = 0


class Network:
    """Everything that a scenario describes, on real sockets."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        host: str = "127.0.0.1",
        ports: Ports | None = None,
        assets_dir: Path | None = None,
        secret: str = "demo-secret",  # noqa: S107 - a simulated server's key
        leaderboard_rows: Path | None = None,
        node_host: str = "",
    ) -> None:
        """Build the network without listening yet.

        `assets_dir` holds the `truth.toml` by which runners recognize test inputs. `node_host` is the name by which
        other machines reach the orchestrators whose service URI is on a loopback address.
        """
        ports = ports or Ports({})
        known_inputs = KnownInputs(assets_dir)
        scenario = _set_callback_port(scenario, ports.live_callback)
        self.scenario, self.host = scenario, host
        self.job_log, self.live_log = JobLog(), LiveLog()
        self.orchestrators = [
            Orchestrator(spec, scenario.seed, number) for number, spec in enumerate(scenario.orchestrators)
        ]
        self.gateways = {
            spec.name: Gateway(
                spec,
                scenario,
                self.orchestrators,
                self.job_log,
                known_inputs,
                self.live_log,
                host=host,
                ports=ports.gateways.get(spec.name, (0, 0)),
            )
            for spec in scenario.gateways
        }
        self.leaderboard = Leaderboard(secret=secret, host=host, port=ports.leaderboard, rows_path=leaderboard_rows)
        ledger = PaymentLedger()
        self.signer = RemoteSigner(ledger, host=host, port=ports.signer)
        self._live_ports: list[LiveVideoPort] = []
        self.service_ports = [
            self._create_service_port(node, number, ledger)
            for number, node in enumerate(self.orchestrators)
            if node.spec.runners or node.spec.live_runners or _has_live_video(node)
        ]
        self._control_port, self._node_ports, self._node_host = ports.control, ports.nodes, node_host
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Network:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _create_service_port(self, node: Orchestrator, number: int, ledger: PaymentLedger) -> ServicePort:
        channels = TrickleServer()
        live_port = LiveVideoPort(node, channels, self.live_log, f"{self.scenario.seed}/{number}")
        self._live_ports.append(live_port)
        routes = (live_port.add_routes,)
        return ServicePort(node, self.scenario.seed, number, ledger, self.job_log, channels, routes)

    @property
    def _has_runners(self) -> bool:
        return any(node.spec.runners or node.spec.live_runners for node in self.orchestrators)

    @property
    def logged_jobs(self) -> list[LoggedJob]:
        """The jobs so far, in the order in which they ended."""
        return self.job_log.entries

    @property
    def runner_requests(self) -> list[LoggedRunnerRequest]:
        """The requests to runners so far, in the order in which they ended."""
        return self.job_log.runner_requests

    @property
    def control_url(self) -> str:
        """Base URL of the control port."""
        return f"http://{self.host}:{self._control_port}"

    async def start(self) -> None:
        """Listen everywhere. If one port is taken, close those that are open already and raise."""
        async with AsyncExitStack() as stack:
            await self._open_service_listeners(stack)
            for live_port in self._live_ports:
                stack.push_async_callback(live_port.stop)
            stack.push_async_callback(self.leaderboard.stop)
            await self.leaderboard.start()
            for gateway in self.gateways.values():
                stack.push_async_callback(gateway.stop)
                await gateway.start()
            if self._has_runners:
                stack.push_async_callback(self.signer.stop)
                await self.signer.start()
            control = ControlPort(
                self.job_log,
                self.gateways,
                self.leaderboard,
                self.orchestrators,
                self.service_ports,
                self.signer,
                self.live_log,
            )
            runner = web.AppRunner(control.create_application(), access_log=None, shutdown_timeout=0.1)
            stack.push_async_callback(runner.cleanup)
            self._control_port = await start_listening(runner, self.host, self._control_port)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Stop everything, in reverse order of the start."""
        await self._stack.aclose()

    async def _open_service_listeners(self, stack: AsyncExitStack) -> None:
        """Listen at the service URIs that are on this machine, and put the actual URIs into the scenario."""
        tls_context = create_tls_context()
        service_ports = {id(port.node): port for port in self.service_ports}
        for number, node in enumerate(self.orchestrators):
            if not is_loopback(node.spec.service_uri):
                continue
            create_protocol = None
            if id(node) in service_ports:
                stack.push_async_callback(service_ports[id(node)].stop)
                create_protocol = await service_ports[id(node)].start()
            listener = ServiceListener(
                node.spec.service_uri,
                tls_context,
                create_protocol=create_protocol,
                not_found=not_found_text(node.spec.version),
            )
            stack.push_async_callback(listener.close)
            uri = listener.open(
                bind_to=self.host if self._node_host else "",
                public_host=self._node_host,
                port=self._node_ports and self._node_ports + number,
            )
            node.spec, node.service_listener = dataclasses.replace(node.spec, service_uri=uri), listener
            node.update_listener()
        self.scenario = dataclasses.replace(
            self.scenario, orchestrators=tuple(node.spec for node in self.orchestrators)
        )

    def describe(self) -> list[str]:
        """Return lines that say what listens where."""
        nodes = self.scenario.orchestrators
        capabilities = sum(len(spec.models) + len(spec.byoc) + len(spec.runners) for spec in nodes)
        return [
            f"Simulated network {self.scenario.name!r}: {len(nodes)} orchestrators, {capabilities} capabilities",
            *(
                f"gateway {gateway.name} ({gateway.spec.mode}): jobs {gateway.url}, CLI {gateway.cli_url}"
                for gateway in self.gateways.values()
            ),
            f"Leaderboard: {self.leaderboard.url}",
            *([f"remote signer: {self.signer.url}"] if self._has_runners else []),
            f"control: {self.control_url}",
        ]


def _has_live_video(node: Orchestrator) -> bool:
    return any(model.pipeline == LIVE_PIPELINE for model in node.spec.models)


def _set_callback_port(scenario: Scenario, port: int) -> Scenario:
    if not port:
        return scenario
    gateways = (
        dataclasses.replace(gateway, live=dataclasses.replace(gateway.live, callback_port=port))
        for gateway in scenario.gateways
    )
    return dataclasses.replace(scenario, gateways=tuple(gateways))
