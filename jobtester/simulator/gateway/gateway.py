"""A simulated go-livepeer gateway: a job port and a CLI port on real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from jobtester.simulator.background_tasks import BackgroundTasks
from jobtester.simulator.gateway.batch import BatchProcessor
from jobtester.simulator.gateway.byoc_port import ByocPort
from jobtester.simulator.gateway.cli_port import CliPort
from jobtester.simulator.gateway.events import EventSink
from jobtester.simulator.gateway.job_port import JobPort
from jobtester.simulator.gateway.metrics import GatewayMetrics
from jobtester.simulator.gateway.orchestrator_pool import OrchestratorPool
from jobtester.simulator.gateway.result_store import ResultStore
from jobtester.simulator.gateway.selection import HalfSelection, QuerySelection, Selection, StickySelection
from jobtester.simulator.go_livepeer import host_and_port
from jobtester.simulator.job_log import JobLog
from jobtester.simulator.live_video.gateway_port import LiveGatewayPort
from jobtester.simulator.live_video.live_log import LiveLog
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.runner.known_inputs import KnownInputs
from jobtester.simulator.scenario import GatewaySpec, Scenario
from jobtester.simulator.server import start_listening

_BODY_LIMIT = 3 * 2**30


class Gateway:
    """One gateway. What it learned and counted is lost when it stops; its ports and webhook addresses stay."""

    def __init__(
        self,
        spec: GatewaySpec,
        scenario: Scenario,
        nodes: Sequence[Orchestrator],
        job_log: JobLog,
        known_inputs: KnownInputs,
        live_log: LiveLog,
        *,
        host: str = "127.0.0.1",
        ports: tuple[int, int] = (0, 0),
    ) -> None:
        """Create a stopped gateway. `ports` are its job and CLI ports; 0 is any free one, kept after a start."""
        self.spec, self.name, self.host = spec, spec.name, host
        self.webhook_url: str | None = None
        self.events_url: str | None = None
        self.events_token = ""
        self._scenario, self._nodes, self._job_log, self._known_inputs = scenario, list(nodes), job_log, known_inputs
        self._live_log = live_log
        self._live_port: LiveGatewayPort | None = None
        self._job_port, self._cli_port = ports
        self._runners: list[web.AppRunner] = []
        self._tasks = BackgroundTasks()
        self._pool: OrchestratorPool | None = None

    @property
    def url(self) -> str:
        """Base URL of the job port."""
        return f"http://{self.host}:{self._job_port}"

    @property
    def cli_url(self) -> str:
        """Base URL of the CLI port."""
        return f"http://{self.host}:{self._cli_port}"

    @property
    def is_running(self) -> bool:
        """Whether the gateway listens."""
        return bool(self._runners)

    async def start(self) -> None:
        """Listen, on the same ports as before if there were any. Do nothing if the gateway runs already."""
        if self._runners:
            return
        self._tasks = BackgroundTasks()
        metrics = GatewayMetrics(self.name, self.spec.build.livepeer_version)
        nodes_by_host = {host_and_port(node.spec.service_uri): node for node in self._nodes if node.spec.service_uri}
        self._pool = OrchestratorPool(self.spec, nodes_by_host, lambda: self.webhook_url)
        events = EventSink(self.name, self.spec.event_generation, lambda: self.events_url, lambda: self.events_token)
        if self.spec.events:
            self._tasks.start(events.run(), f"events of {self.name}")
        emit_event = events.emit if self.spec.events else _ignore_event
        processor = BatchProcessor(
            spec=self.spec,
            selection=self._create_selection(self._pool),
            metrics=metrics,
            result_store=ResultStore(),
            known_inputs=self._known_inputs,
            job_log=self._job_log,
            emit_event=emit_event,
        )
        job_application = web.Application(client_max_size=_BODY_LIMIT)
        JobPort(processor, self._tasks).add_routes(job_application.router)
        ByocPort(self.spec, self._pool, self._job_log, emit_event).add_routes(job_application.router)
        self._live_port = LiveGatewayPort(
            self.spec,
            random.Random(f"{self._scenario.seed}/{self.name}/live"),
            self._pool.collect_infos,
            metrics.live,
            self._live_log,
            self._tasks,
        )
        self._live_port.add_routes(job_application.router)
        cli_application = web.Application()
        CliPort(self.spec, self._scenario, self._nodes, self._pool, metrics).add_routes(cli_application.router)
        self._job_port = await self._listen(job_application, self._job_port)
        self._cli_port = await self._listen(cli_application, self._cli_port)

    async def stop(self) -> None:
        """Drop every job and stop listening."""
        runners, self._runners = self._runners, []
        await self._tasks.cancel_all()
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        await self._tasks.cancel_all()  # what a request started while the others were canceled
        if self._live_port is not None:
            await self._live_port.close()
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    def _create_selection(self, pool: OrchestratorPool) -> Selection:
        rng = random.Random(f"{self._scenario.seed}/{self.name}")
        match self.spec.mode:
            case "query":
                return QuerySelection(pool, rng, self.spec.max_price)
            case "stock":
                return StickySelection(pool, rng, self.spec)
            case "half":
                return HalfSelection(pool, rng, self.spec)
        return Selection(pool, rng, self.spec.max_price)

    async def _listen(self, app: web.Application, port: int) -> int:
        app.router.add_route("*", "/{path:.*}", _handle_unknown_path)
        # go-livepeer cancels the context of a request when its client disconnects.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        self._runners.append(runner)
        return await start_listening(runner, self.host, port)


async def _handle_unknown_path(_: web.Request) -> web.Response:
    return web.Response(status=404, text="404 page not found\n")


def _ignore_event(_: str, __: dict[str, Any]) -> None:
    return
