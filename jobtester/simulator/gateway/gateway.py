"""A simulated go-livepeer gateway: a job port and a CLI port on real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from jobtester.simulator import background_tasks, go_livepeer, job_log, orchestrator, scenario, server
from jobtester.simulator.gateway import (
    batch,
    byoc_port,
    cli_port,
    events,
    job_port,
    metrics,
    orchestrator_pool,
    result_store,
    selection,
)
from jobtester.simulator.runner import known_inputs

_BODY_LIMIT = 3 * 2**30


class Gateway:
    """One gateway; what it learned and counted is lost when it stops, its ports and addresses stay."""

    def __init__(
        self,
        spec: scenario.GatewaySpec,
        network: scenario.Scenario,
        everybody: Sequence[orchestrator.Orchestrator],
        log: job_log.Log,
        known: known_inputs.Truth,
        *,
        host: str = "127.0.0.1",
        ports: tuple[int, int] = (0, 0),
    ) -> None:
        """Be ready to start on the job and CLI ports; 0 means any free one, then kept."""
        self.spec, self.name, self.host = spec, spec.name, host
        self.webhook_url: str | None = None
        self.events_url: str | None = None
        self.events_token = ""
        self._network, self._everybody, self._log, self._truth = network, list(everybody), log, known
        self._job_port, self._cli_port = ports
        self._runners: list[web.AppRunner] = []
        self._tasks = background_tasks.Tasks()
        self._pool: orchestrator_pool.Pool | None = None

    @property
    def url(self) -> str:
        """Give the job port's base address."""
        return f"http://{self.host}:{self._job_port}"

    @property
    def cli_url(self) -> str:
        """Give the CLI port's base address."""
        return f"http://{self.host}:{self._cli_port}"

    @property
    def running(self) -> bool:
        """Say whether it listens."""
        return bool(self._runners)

    async def start(self) -> None:
        """Begin with nothing learned, and listen; on the same ports as before, where there were any."""
        if self._runners:
            return
        self._tasks = background_tasks.Tasks()
        counted = metrics.Meter(self.name, self.spec.generation.livepeer_version)
        by_host = {
            go_livepeer.same_host(node.spec.service_uri): node for node in self._everybody if node.spec.service_uri
        }
        self._pool = orchestrator_pool.Pool(self.spec, by_host, lambda: self.webhook_url)
        sink = events.Sink(self.name, self.spec.event_generation, lambda: self.events_url, lambda: self.events_token)
        if self.spec.events:
            self._tasks.start(sink.run(), f"events of {self.name}")
        report = sink.emit if self.spec.events else _silent
        jobs = web.Application(client_max_size=_BODY_LIMIT)
        work = batch.Batch(
            self.spec, self._selection(self._pool), counted, result_store.Store(), self._truth, self._log, report
        )
        job_port.JobPort(work, self._tasks).add_routes(jobs.router)
        byoc_port.ByocPort(self.spec, self._pool, self._log, report).add_routes(jobs.router)
        cli = web.Application()
        cli_port.CliPort(self.spec, self._network, self._everybody, self._pool, counted).add_routes(cli.router)
        self._job_port = await self._listen(jobs, self._job_port)
        self._cli_port = await self._listen(cli, self._cli_port)

    async def stop(self) -> None:
        """Drop every job and stop listening."""
        runners, self._runners = self._runners, []
        await self._tasks.end()
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    def _selection(self, listed: orchestrator_pool.Pool) -> selection.Selection:
        rng = random.Random(f"{self._network.seed}/{self.name}")
        match self.spec.mode:
            case "query":
                return selection.QuerySelection(listed, rng, self.spec.max_price)
            case "stock":
                return selection.StickySelection(listed, rng, self.spec)
            case "half":
                return selection.HalfSelection(listed, rng, self.spec)
        return selection.Selection(listed, rng, self.spec.max_price)

    async def _listen(self, app: web.Application, port: int) -> int:
        app.router.add_route("*", "/{path:.*}", _not_found)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        site = server.Listener(runner, self.host, port, reuse_address=True)
        await site.start()
        return int(runner.addresses[0][1])


async def _not_found(_: web.Request) -> web.Response:
    return web.Response(status=404, text="404 page not found\n")


def _silent(_: str, __: dict[str, Any]) -> None:
    return
