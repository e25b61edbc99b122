"""The gateway's CLI port: discovery, metrics and status."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from aiohttp import web

from jobtester.simulator import go_livepeer, orchestrator, scenario
from jobtester.simulator.gateway import metrics, orchestrator_pool

_FOREVER = 2**256 - 1
_AI_CACHE_S = 120.0
Node = orchestrator.Orchestrator


class CliPort:
    """Answer what a tester asks about the network."""

    def __init__(
        self,
        spec: scenario.GatewaySpec,
        network: scenario.Scenario,
        everybody: list[Node],
        listed: orchestrator_pool.Pool,
        counted: metrics.Meter,
    ) -> None:
        """Know the whole network, and the webhook's list."""
        self._spec, self._scenario, self._everybody, self._pool, self._meter = spec, network, everybody, listed, counted
        self._started = time.monotonic()
        self._ai: tuple[float, bytes] | None = None
        self._asking = asyncio.Lock()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve the routes that this gateway has."""
        router.add_get("/status", self._status)
        router.add_get("/registeredOrchestrators", self._registered)
        if self._spec.network_capabilities and self._spec.generation.mainline_discovery:
            router.add_get("/getNetworkCapabilities", self._network)
        if self._spec.ai_capabilities:
            router.add_get("/getOrchestratorAICapabilities", self._ai_capabilities)
        if self._spec.metrics:
            router.add_get("/metrics", self._metrics)

    async def _status(self, _: web.Request) -> web.Response:
        return _json(
            {
                "Version": self._spec.generation.livepeer_version,
                "GolangRuntimeVersion": "go1.23.2",
                "OrchestratorPool": [],
                "Manifests": {},
            }
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._meter.text(), content_type="text/plain")

    async def _network(self, _: web.Request) -> web.Response:
        running_s = time.monotonic() - self._started
        known = {"capabilities_names": {str(number): name for number, name in go_livepeer.DISPLAY.items()}}
        if running_s < self._spec.empty_for_s / 2:
            body = b"failed to get network capabilities\n" + json.dumps({**known, "orchestrators": None}).encode()
            return web.Response(status=500, body=body, content_type="text/plain")
        if running_s < self._spec.empty_for_s:
            return _json({**known, "orchestrators": []})
        if self._scenario.recorded:
            return web.Response(body=self._scenario.recorded, content_type="application/json")
        return _json({**known, "orchestrators": [_advertised(node) for node in self._everybody]})

    async def _registered(self, _: web.Request) -> web.Response:
        if not self._spec.registered:
            return web.Response(status=500, text="Could not get registered orchestrators\n")
        first: dict[str, str] = {}
        for node in self._everybody:
            address = node.spec.address.lower()
            if address != go_livepeer.ZERO_ADDRESS:
                first[address] = first.get(address) or node.spec.service_uri
        return _json([_registration(address, uri) for address, uri in first.items()])

    async def _ai_capabilities(self, _: web.Request) -> web.Response:
        async with self._asking:
            if self._ai is None or time.monotonic() - self._ai[0] >= _AI_CACHE_S:
                answered = await self._pool.infos()
                body = json.dumps({"orchestrators": [_forked(node) for node in answered]}).encode()
                self._ai = (time.monotonic(), body)
            return web.Response(body=self._ai[1], content_type="application/json")


def _json(value: object) -> web.Response:
    return web.Response(text=json.dumps(value) + "\n", content_type="application/json")


def _without_zeros(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _advertised(node: Node) -> dict[str, Any]:
    spec = node.spec
    capabilities: dict[str, Any] = {}
    capacities: dict[str, int] = {}
    prices: list[dict[str, Any]] = []
    for model in spec.models:
        number = go_livepeer.NUMBER[model.pipeline]
        used = node.in_use[model.pipeline, model.model]
        state = _without_zeros(
            warm=node.is_warm(model.pipeline, model.model),
            capacity=max(0, model.capacity - used),
            capacityInUse=used,
            runnerVersion="0.14.1",
        )
        capabilities.setdefault(str(number), {"models": {}})["models"][model.model] = state
        capacities[str(number)] = 1
        prices.append(_price(number, model.model, model.price))
    prices += [_price(go_livepeer.BYOC, one.capability, one.price) for one in spec.byoc]
    constraints: dict[str, Any] = {"minVersion": "0.8.10"}
    if capabilities:
        constraints["PerCapability"] = capabilities
    entry: dict[str, Any] = {
        "address": go_livepeer.mixed_case(spec.address),
        "local_address": go_livepeer.mixed_case(spec.local_address or spec.address),
        "orch_uri": spec.service_uri,
        "capabilities": {"version": spec.version, "capacities": capacities, "constraints": constraints},
        "price_info": {"pricePerUnit": 200, "pixelsPerUnit": 1},
        "capabilities_prices": prices or None,
        "hardware": [_hardware(model.pipeline, model.model) for model in spec.models] or None,
    }
    options = {one.capability: [{"model": one.model}] for one in spec.byoc if one.model}
    return {**entry, "capability_options": options} if options else entry


def _price(number: int, constraint: str, price: int) -> dict[str, Any]:
    return {"capability": number, "constraint": constraint, "pricePerUnit": price, "pixelsPerUnit": 1}


def _hardware(pipeline: str, model: str) -> dict[str, Any]:
    gpu = {"id": "GPU-simulated", "name": "NVIDIA GeForce RTX 4090", "memory_total": 25_757_220_864}
    return {"pipeline": pipeline, "model_id": model, "gpu_info": {"0": gpu}}


def _registration(address: str, uri: str) -> dict[str, Any]:
    return {
        "Address": address,
        "ServiceURI": uri,
        "Active": True,
        "Status": "Registered",
        "LastRewardRound": 3900,
        "RewardCut": 1000,
        "FeeShare": 950_000,
        "DelegatedStake": 1_234_500_000_000_000_000_000,
        "ActivationRound": 1,
        "DeactivationRound": _FOREVER,
        "LastActiveStakeUpdateRound": 1,
        "PricePerPixel": "1/1",
    }


def _forked(node: Node) -> dict[str, Any]:
    pipelines: dict[str, list[dict[str, Any]]] = {}
    for model in node.spec.models:
        warm = int(node.is_warm(model.pipeline, model.model))
        status = {"Cold": 1 - warm, "Warm": warm}
        display = go_livepeer.DISPLAY[go_livepeer.NUMBER[model.pipeline]]
        pipelines.setdefault(display, []).append({"name": model.model, "status": status})
    return {
        "address": node.spec.address.lower(),
        "pipelines": [{"type": name, "models": models} for name, models in pipelines.items()],
    }
