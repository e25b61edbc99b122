"""The network's own control port, for tests and tools in other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from jobtester.simulator import scenario
from jobtester.simulator.gateway.gateway import Gateway
from jobtester.simulator.job_log import Log
from jobtester.simulator.leaderboard import faults
from jobtester.simulator.leaderboard.leaderboard import Leaderboard
from jobtester.simulator.orchestrator import Orchestrator

_PATCHABLE = {"fault", "fault_pipelines", "fault_probability", "down", "frozen", "service_uri"}


class Control:
    """Show the log, stop and start gateways and the Leaderboard, and change what goes wrong."""

    def __init__(
        self, log: Log, gateways: Mapping[str, Gateway], leaderboard: Leaderboard, orchestrators: Sequence[Orchestrator]
    ) -> None:
        self._log, self._gateways, self._leaderboard, self._orchestrators = log, gateways, leaderboard, orchestrators

    def application(self) -> web.Application:
        """Build the routes."""
        app = web.Application()
        app.router.add_get("/log", self._handle_log)
        app.router.add_get("/rows", self._handle_rows)
        app.router.add_post("/gateways/{name}/{action:stop|start}", self._handle_gateway)
        app.router.add_post("/leaderboard/{action:stop|start|recreate}", self._handle_leaderboard)
        app.router.add_put("/leaderboard/faults", self._handle_faults)
        app.router.add_get("/leaderboard/next/{moment:arrived|stored}", self._handle_moment)
        app.router.add_patch("/orchestrators/{address}", self._handle_orchestrator)
        return app

    async def _handle_log(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not since.isdecimal():
            return _refuse(400, "since must be a number")
        return web.json_response(self._log.since(int(since)))

    async def _handle_rows(self, _: web.Request) -> web.Response:
        rows = [{"id": row.id, "insert_time": row.insert_time, "stat": row.stat} for row in self._leaderboard.rows]
        return web.json_response(rows)

    async def _handle_gateway(self, request: web.Request) -> web.Response:
        gateway = self._gateways.get(request.match_info["name"])
        if gateway is None:
            return _refuse(404, f"no gateway {request.match_info['name']}")
        await (gateway.stop() if request.match_info["action"] == "stop" else gateway.start())
        return web.json_response({"name": gateway.name, "running": gateway.running})

    async def _handle_leaderboard(self, request: web.Request) -> web.Response:
        board = self._leaderboard
        match request.match_info["action"]:
            case "stop":
                await board.stop()
            case "start":
                await board.start()
            case _:
                board.recreate_database()
        return web.json_response({"rows": len(board.rows)})

    async def _handle_faults(self, request: web.Request) -> web.Response:
        """Take the Leaderboard's faults anew; those that are not named are off."""
        try:
            self._leaderboard.faults = faults.of(await request.json())
        except (ValueError, TypeError, AttributeError) as error:
            return _refuse(400, str(error))
        return web.json_response({})

    async def _handle_moment(self, request: web.Request) -> web.Response:
        """Answer when `count` more posts have arrived, or have been stored and the last is not answered yet."""
        count = request.query.get("count", "1")
        if not count.isdecimal():
            return _refuse(400, "count must be a number")
        moment: faults.Moment = "stored" if request.match_info["moment"] == "stored" else "arrived"
        await self._leaderboard.moments.next(moment, int(count))
        return web.json_response({"moment": moment})

    async def _handle_orchestrator(self, request: web.Request) -> web.Response:
        try:
            change = await request.json()
        except ValueError:
            return _refuse(400, "body is not JSON")
        if not isinstance(change, dict) or set(change) - _PATCHABLE:
            return _refuse(400, f"an object with some of {', '.join(sorted(_PATCHABLE))}")
        address, uri = request.match_info["address"].lower(), change.pop("service_uri", None)
        nodes = [
            node
            for node in self._orchestrators
            if node.spec.address.lower() == address and uri in (None, node.spec.service_uri)
        ]
        if not nodes:
            return _refuse(404, f"no orchestrator {address}")
        try:
            for node in nodes:
                node.change(**_changed(node.spec, change))
        except (TypeError, ValueError) as error:
            return _refuse(400, str(error))
        return web.json_response([_shown(node.spec) for node in nodes])


def _changed(spec: scenario.OrchestratorSpec, change: dict[str, Any]) -> dict[str, Any]:
    return {
        "fault": str(change.get("fault", spec.fault)),
        "pipelines": tuple(change.get("fault_pipelines", spec.fault_pipelines)),
        "probability": float(change.get("fault_probability", spec.fault_probability)),
        "down": bool(change.get("down", spec.down)),
        "frozen": bool(change.get("frozen", spec.frozen)),
    }


def _shown(spec: scenario.OrchestratorSpec) -> dict[str, Any]:
    keys = ("address", "service_uri", "fault", "down", "frozen")
    return {key: getattr(spec, key) for key in keys}


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
