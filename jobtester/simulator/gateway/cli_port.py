"""The gateway's CLI port: discovery, metrics and status."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from aiohttp import web

from jobtester.simulator import go_livepeer
from jobtester.simulator.gateway.metrics import GatewayMetrics
from jobtester.simulator.gateway.orchestrator_pool import OrchestratorPool
from jobtester.simulator.orchestrator import Orchestrator
from jobtester.simulator.scenario import GatewaySpec, Scenario

_FOREVER = 2**256 - 1
_AI_CAPABILITIES_CACHE_S = 120.0


class CliPort:
    """Routes by which a tester discovers the network and reads the gateway's metrics."""

    def __init__(
        self,
        spec: GatewaySpec,
        scenario: Scenario,
        nodes: list[Orchestrator],
        pool: OrchestratorPool,
        metrics: GatewayMetrics,
    ) -> None:
        self._spec, self._scenario, self._nodes, self._pool, self._metrics = spec, scenario, nodes, pool, metrics
        self._started = time.monotonic()
        self._cached_ai_capabilities: tuple[float, bytes] | None = None
        self._ai_capabilities_lock = asyncio.Lock()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the routes that this gateway has."""
        router.add_get("/status", self._handle_status)
        router.add_get("/registeredOrchestrators", self._handle_registered)
        if self._spec.network_capabilities and self._spec.build.has_network_capabilities:
            router.add_get("/getNetworkCapabilities", self._handle_network_capabilities)
        if self._spec.ai_capabilities:
            router.add_get("/getOrchestratorAICapabilities", self._handle_ai_capabilities)
        if self._spec.metrics:
            router.add_get("/metrics", self._handle_metrics)

    async def _handle_status(self, _: web.Request) -> web.Response:
        return _json_response(
            {
                "Version": self._spec.build.livepeer_version,
                "GolangRuntimeVersion": "go1.23.2",
                "OrchestratorPool": [],
                "Manifests": {},
            }
        )

    async def _handle_metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._metrics.render(), content_type="text/plain")

    async def _handle_network_capabilities(self, _: web.Request) -> web.Response:
        # A gateway that has just started has discovered nobody: first it fails, then its list is empty.
        running_s = time.monotonic() - self._started
        names = {"capabilities_names": {str(number): name for number, name in go_livepeer.DISPLAY_NAMES.items()}}
        if running_s < self._spec.empty_for_s / 2:
            body = b"failed to get network capabilities\n" + json.dumps({**names, "orchestrators": None}).encode()
            return web.Response(status=500, body=body, content_type="text/plain")
        if running_s < self._spec.empty_for_s:
            return _json_response({**names, "orchestrators": []})
        if self._scenario.recorded_capabilities:
            return web.Response(body=self._scenario.recorded_capabilities, content_type="application/json")
        return _json_response({**names, "orchestrators": [_network_capabilities_entry(node) for node in self._nodes]})

    async def _handle_registered(self, _: web.Request) -> web.Response:
        if not self._spec.registered:
            return web.Response(status=500, text="Could not get registered orchestrators\n")
        # The registry has offer service URI per address, also where several nodes share offer.
        uris: dict[str, str] = {}
        for node in self._nodes:
            address = node.spec.address.lower()
            if address != go_livepeer.ZERO_ADDRESS:
                uris[address] = uris.get(address) or node.spec.service_uri
        return _json_response([_registration_entry(address, uri) for address, uri in uris.items()])

    async def _handle_ai_capabilities(self, _: web.Request) -> web.Response:
        async with self._ai_capabilities_lock:
            cached = self._cached_ai_capabilities
            if cached is None or time.monotonic() - cached[0] >= _AI_CAPABILITIES_CACHE_S:
                nodes = await self._pool.collect_infos()
                body = json.dumps({"orchestrators": [_ai_capabilities_entry(node) for node in nodes]}).encode()
                self._cached_ai_capabilities = cached = (time.monotonic(), body)
            return web.Response(body=cached[1], content_type="application/json")


def _json_response(value: object) -> web.Response:
    return web.Response(text=json.dumps(value) + "\n", content_type="application/json")


def _network_capabilities_entry(node: Orchestrator) -> dict[str, Any]:
    spec = node.spec
    capabilities: dict[str, Any] = {}
    capacities: dict[str, int] = {}
    prices: list[dict[str, Any]] = []
    for model in spec.models:
        number = go_livepeer.NUMBERS[model.pipeline]
        in_use = node.in_use[model.pipeline, model.model]
        state = {
            "warm": node.is_warm(model.pipeline, model.model),
            "capacity": max(0, model.capacity - in_use),
            "capacityInUse": in_use,
            "runnerVersion": "0.14.1",
        }
        # go-livepeer leaves zero values out
        shown = {name: value for name, value in state.items() if value}
        capabilities.setdefault(str(number), {"models": {}})["models"][model.model] = shown
        capacities[str(number)] = 1
        prices.append(_price(number, model.model, model.price))
    prices += [_price(go_livepeer.BYOC_NUMBER, offer.capability, offer.price) for offer in spec.byoc]
    constraints: dict[str, Any] = {"minVersion": "0.8.10"}
    if capabilities:
        constraints["PerCapability"] = capabilities
    entry: dict[str, Any] = {
        "address": go_livepeer.to_mixed_case(spec.address),
        "local_address": go_livepeer.to_mixed_case(spec.local_address or spec.address),
        "orch_uri": spec.service_uri,
        "capabilities": {"version": spec.version, "capacities": capacities, "constraints": constraints},
        "price_info": {"pricePerUnit": 200, "pixelsPerUnit": 1},
        "capabilities_prices": prices or None,
        "hardware": [_hardware(model.pipeline, model.model) for model in spec.models] or None,
    }
    options = {offer.capability: [{"model": offer.model}] for offer in spec.byoc if offer.model}
    return {**entry, "capability_options": options} if options else entry


def _price(number: int, constraint: str, price: int) -> dict[str, Any]:
    return {"capability": number, "constraint": constraint, "pricePerUnit": price, "pixelsPerUnit": 1}


def _hardware(pipeline: str, model: str) -> dict[str, Any]:
    gpu = {"id": "GPU-simulated", "name": "NVIDIA GeForce RTX 4090", "memory_total": 25_757_220_864}
    return {"pipeline": pipeline, "model_id": model, "gpu_info": {"0": gpu}}


def _registration_entry(address: str, uri: str) -> dict[str, Any]:
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


def _ai_capabilities_entry(node: Orchestrator) -> dict[str, Any]:
    pipelines: dict[str, list[dict[str, Any]]] = {}
    for model in node.spec.models:
        warm = int(node.is_warm(model.pipeline, model.model))
        status = {"Cold": 1 - warm, "Warm": warm}
        display = go_livepeer.DISPLAY_NAMES[go_livepeer.NUMBERS[model.pipeline]]
        pipelines.setdefault(display, []).append({"name": model.model, "status": status})
    return {
        "address": node.spec.address.lower(),
        "pipelines": [{"type": name, "models": models} for name, models in pipelines.items()],
    }
