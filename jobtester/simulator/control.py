"""The network's control port, by which tests and tools in other processes watch and change it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from jobtester.simulator.gateway.gateway import Gateway
from jobtester.simulator.job_log import JobLog
from jobtester.simulator.leaderboard.faults import Faults, PostStage
from jobtester.simulator.leaderboard.leaderboard import Leaderboard
from jobtester.simulator.live_runner.service_port import ServicePort
from jobtester.simulator.live_runner.signer import RemoteSigner
from jobtester.simulator.live_video.live_log import LiveLog
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.scenario import OrchestratorSpec

_PATCHABLE = {"fault", "fault_pipelines", "fault_probability", "down", "frozen", "service_uri"}
_PATCHABLE_OF_RUNNER = {"fault", "fault_probability", "capacity", "price", "healthy"}


class ControlPort:
    """Routes that show the job log, stop and start gateways and the Leaderboard, and change what goes wrong."""

    def __init__(
        self,
        job_log: JobLog,
        gateways: Mapping[str, Gateway],
        leaderboard: Leaderboard,
        orchestrators: Sequence[Orchestrator],
        service_ports: Sequence[ServicePort],
        signer: RemoteSigner,
        live_log: LiveLog,
    ) -> None:
        self._job_log, self._gateways = job_log, gateways
        self._leaderboard, self._orchestrators = leaderboard, orchestrators
        self._service_ports, self._signer, self._live_log = service_ports, signer, live_log

    def create_application(self) -> web.Application:
        """Return the application with all routes."""
        app = web.Application()
        app.router.add_get("/log", _serve_log(self._job_log.entries_after))
        app.router.add_get("/rows", self._handle_rows)
        app.router.add_post("/gateways/{name}/{action:stop|start}", self._handle_gateway)
        app.router.add_post("/leaderboard/{action:stop|start|recreate}", self._handle_leaderboard)
        app.router.add_put("/leaderboard/faults", self._handle_leaderboard_faults)
        app.router.add_get("/leaderboard/next/{stage:arrived|stored}", self._handle_next_post)
        app.router.add_patch("/orchestrators/{address}", self._handle_orchestrator)
        app.router.add_get("/runners", self._handle_runners)
        app.router.add_get("/runners/log", _serve_log(self._job_log.runner_requests_after))
        app.router.add_patch("/runners/{runner_id}", self._handle_runner)
        app.router.add_get("/live/log", _serve_log(self._live_log.jobs_after))
        app.router.add_put("/signer/faults", self._handle_signer_faults)
        return app

    async def _handle_rows(self, _: web.Request) -> web.Response:
        rows = [{"id": row.id, "insert_time": row.insert_time, "stat": row.stat} for row in self._leaderboard.rows]
        return web.json_response(rows)

    async def _handle_gateway(self, request: web.Request) -> web.Response:
        gateway = self._gateways.get(request.match_info["name"])
        if gateway is None:
            return _error_response(404, f"no gateway {request.match_info['name']}")
        await (gateway.stop() if request.match_info["action"] == "stop" else gateway.start())
        return web.json_response({"name": gateway.name, "running": gateway.is_running})

    async def _handle_leaderboard(self, request: web.Request) -> web.Response:
        match request.match_info["action"]:
            case "stop":
                await self._leaderboard.stop()
            case "start":
                await self._leaderboard.start()
            case _:
                self._leaderboard.recreate_database()
        return web.json_response({"rows": len(self._leaderboard.rows)})

    async def _handle_leaderboard_faults(self, request: web.Request) -> web.Response:
        """Replace the Leaderboard's faults; those that the body does not name are off."""
        try:
            self._leaderboard.faults = Faults.from_json(await request.json())
        except (ValueError, TypeError, AttributeError) as error:
            return _error_response(400, str(error))
        return web.json_response({})

    async def _handle_next_post(self, request: web.Request) -> web.Response:
        """Answer when `count` more posts have arrived, or when they are stored and the last is not answered yet."""
        count = request.query.get("count", "1")
        if not count.isdecimal():
            return _error_response(400, "count must be a number")
        stage: PostStage = "stored" if request.match_info["stage"] == "stored" else "arrived"
        await self._leaderboard.post_progress.wait_for(stage, int(count))
        return web.json_response({"moment": stage})

    async def _handle_orchestrator(self, request: web.Request) -> web.Response:
        try:
            changes = await request.json()
        except ValueError:
            return _error_response(400, "body is not JSON")
        if not isinstance(changes, dict) or set(changes) - _PATCHABLE:
            return _error_response(400, f"an object with some of {', '.join(sorted(_PATCHABLE))}")
        address, uri = request.match_info["address"].lower(), changes.pop("service_uri", None)
        nodes = [
            node
            for node in self._orchestrators
            if node.spec.address.lower() == address and uri in (None, node.spec.service_uri)
        ]
        if not nodes:
            return _error_response(404, f"no orchestrator {address}")
        try:
            for node in nodes:
                node.restart(**_merge_changes(node.spec, changes))
        except (TypeError, ValueError) as error:
            return _error_response(400, str(error))
        shown = ("address", "service_uri", "fault", "down", "frozen")
        return web.json_response([{name: getattr(node.spec, name) for name in shown} for node in nodes])

    async def _handle_runners(self, _: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    "address": port.node.spec.address,
                    "service_uri": port.node.spec.service_uri,
                    "discovery_requests": port.discovery_requests,
                    "runners": [runner.describe() for runner in port.runners],
                }
                for port in self._service_ports
            ]
        )

    async def _handle_runner(self, request: web.Request) -> web.Response:
        runner_id = request.match_info["runner_id"]
        runners = [runner for port in self._service_ports for runner in port.runners if runner.runner_id == runner_id]
        if not runners:
            return _error_response(404, f"no runner {runner_id}")
        try:
            changes = await request.json()
        except ValueError:
            return _error_response(400, "body is not JSON")
        if not isinstance(changes, dict) or set(changes) - _PATCHABLE_OF_RUNNER:
            return _error_response(400, f"an object with some of {', '.join(sorted(_PATCHABLE_OF_RUNNER))}")
        is_healthy = changes.pop("healthy", None)
        try:
            runners[0].change(**changes)
        except ValueError as error:
            return _error_response(400, str(error))
        if is_healthy is not None:
            runners[0].set_healthy(bool(is_healthy))
        return web.json_response(runners[0].describe())

    async def _handle_signer_faults(self, request: web.Request) -> web.Response:
        """Make the signer answer its next `count` requests for a payment with `status`."""
        try:
            body = await request.json()
            self._signer.fail_next(int(body["status"]), int(body.get("count", 1)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return _error_response(400, f"an object with status and count: {error}")
        return web.json_response({})


def _serve_log(entries_after: Callable[[int], object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that answers with the entries after the number `since` of the query."""

    async def handle(request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not since.isdecimal():
            return _error_response(400, "since must be a number")
        return web.json_response(entries_after(int(since)))

    return handle


def _merge_changes(spec: OrchestratorSpec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a restart: what the body names, and for the rest what the node has now."""
    return {
        "fault": str(changes.get("fault", spec.fault)),
        "fault_pipelines": tuple(changes.get("fault_pipelines", spec.fault_pipelines)),
        "fault_probability": float(changes.get("fault_probability", spec.fault_probability)),
        "down": bool(changes.get("down", spec.down)),
        "frozen": bool(changes.get("frozen", spec.frozen)),
    }


def _error_response(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
