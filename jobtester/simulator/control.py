"""The network's own control port, for tests and tools in other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from jobtester.simulator import leaderboard_faults, scenario

if TYPE_CHECKING:
    from jobtester.simulator.network import Network

_PATCHABLE = {"fault", "fault_pipelines", "fault_probability", "down", "frozen", "service_uri"}


class Control:
    """Show the log, stop and start gateways and the Leaderboard, and change what goes wrong."""

    def __init__(self, network: Network) -> None:
        """Control this network."""
        self._network = network

    def application(self) -> web.Application:
        """Build the routes."""
        app = web.Application()
        app.router.add_get("/log", self._log)
        app.router.add_get("/rows", self._rows)
        app.router.add_post("/gateways/{name}/{action:stop|start}", self._gateway)
        app.router.add_post("/leaderboard/{action:stop|start|recreate}", self._leaderboard)
        app.router.add_put("/leaderboard/faults", self._faults)
        app.router.add_get("/leaderboard/next/{moment:arrived|stored}", self._moment)
        app.router.add_patch("/orchestrators/{address}", self._orchestrator)
        return app

    async def _log(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not since.isdecimal():
            return _refuse(400, "since must be a number")
        return web.json_response(self._network.log.since(int(since)))

    async def _rows(self, _: web.Request) -> web.Response:
        rows = [
            {"id": row.id, "insert_time": row.insert_time, "stat": row.stat} for row in self._network.leaderboard.rows
        ]
        return web.json_response(rows)

    async def _gateway(self, request: web.Request) -> web.Response:
        gateway = self._network.gateways.get(request.match_info["name"])
        if gateway is None:
            return _refuse(404, f"no gateway {request.match_info['name']}")
        await (gateway.stop() if request.match_info["action"] == "stop" else gateway.start())
        return web.json_response({"name": gateway.name, "running": gateway.running})

    async def _leaderboard(self, request: web.Request) -> web.Response:
        board = self._network.leaderboard
        match request.match_info["action"]:
            case "stop":
                await board.stop()
            case "start":
                await board.start()
            case _:
                board.recreate_database()
        return web.json_response({"rows": len(board.rows)})

    async def _faults(self, request: web.Request) -> web.Response:
        """Take the Leaderboard's faults anew; those that are not named are off."""
        try:
            self._network.leaderboard.faults = leaderboard_faults.of(await request.json())
        except (ValueError, TypeError, AttributeError) as error:
            return _refuse(400, str(error))
        return web.json_response({})

    async def _moment(self, request: web.Request) -> web.Response:
        """Answer when `count` more posts have arrived, or have been stored and the last is not answered yet."""
        count = request.query.get("count", "1")
        if not count.isdecimal():
            return _refuse(400, "count must be a number")
        moment: leaderboard_faults.Moment = "stored" if request.match_info["moment"] == "stored" else "arrived"
        await self._network.leaderboard.moments.next(moment, int(count))
        return web.json_response({"moment": moment})

    async def _orchestrator(self, request: web.Request) -> web.Response:
        try:
            change = await request.json()
        except ValueError:
            return _refuse(400, "body is not JSON")
        if not isinstance(change, dict) or set(change) - _PATCHABLE:
            return _refuse(400, f"an object with some of {', '.join(sorted(_PATCHABLE))}")
        address, uri = request.match_info["address"].lower(), change.pop("service_uri", None)
        nodes = [
            node
            for node in self._network.orchestrators
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
