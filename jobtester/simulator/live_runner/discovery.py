"""The discovery response of one orchestrator: its runners, as they are or as a fault shows them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from jobtester.simulator.live_runner.runner import LiveRunner
from jobtester.simulator.scenario import OrchestratorSpec

_OTHER_HOST = "https://elsewhere.sim.example:8935"
_GPU_MEMORY_MB = 24_564
_HUGE_BYTES = 100 * 2**20
_CHUNK = b"x" * 65_536
_MANY = 10_000
_SLOW_BYTE_S = 0.2
_HTML = b"<!doctype html><html><body><h1>Welcome to nginx!</h1></body></html>"
_WRONG_TYPES: tuple[dict[str, Any], ...] = (
    {"url": 7, "app": ["livepeer"], "mode": "single-shot", "capacity": "four"},
    {"url": None, "app": "livepeer/hello-world", "mode": 1},
    {"app": "livepeer/hello-world", "price_info": "free", "gpu": [1, 2]},
)


def list_runners(node: OrchestratorSpec, runners: Sequence[LiveRunner]) -> list[dict[str, Any]]:
    """Return the answer's one entry. Without a runner to show, the key `runners` is missing."""
    entry: dict[str, Any] = {"address": node.service_uri}
    listed = [_describe_runner(node, runner) for runner in runners if runner.is_listed(node)]
    if listed:
        entry["runners"] = listed
    return [entry]


def _describe_runner(node: OrchestratorSpec, runner: LiveRunner) -> dict[str, Any]:
    spec = runner.spec
    last_part = "session" if spec.mode == "persistent" else "app"
    entry: dict[str, Any] = {"url": f"{_find_base_url(node, runner)}/apps/{runner.url_name}/{last_part}"}
    if spec.gpu:
        entry["gpu"] = {"id": f"GPU-{runner.runner_id[-8:]}", "name": spec.gpu, "vram_mb": _GPU_MEMORY_MB}
    entry["app"] = spec.app
    if spec.version:
        entry["version"] = spec.version
    if spec.metadata:
        entry["metadata"] = spec.metadata
    used = runner.slots_in_use
    entry |= {
        "mode": spec.mode,
        "capacity": spec.capacity,
        "capacity_used": used,
        "capacity_available": max(0, spec.capacity - used),
    }
    price = 2**70 if node.fault == "discovery_huge_price" else spec.price
    if price:
        entry["price_info"] = {"price": price, "currency": "wei", "unit": spec.unit}
    return entry


def _find_base_url(node: OrchestratorSpec, runner: LiveRunner) -> str:
    match runner.constant_fault(node):
        case "runner_other_host":
            return _OTHER_HOST
        case "runner_other_port":
            parts = urlsplit(node.service_uri)
            return f"{parts.scheme}://{parts.hostname}:1"
    return node.service_uri.rstrip("/")


def create_faulty_body(node: OrchestratorSpec, runners: list[dict[str, Any]]) -> bytes | None:
    """Return the whole body of a fault, None if there is no fault that has one."""
    match node.fault:
        case "discovery_html":
            return _HTML
        case "discovery_wrong_types":
            return json.dumps([{"address": node.service_uri, "runners": _WRONG_TYPES}, 5, None]).encode()
        case "discovery_many":
            first = runners[0] if runners else {"mode": "single-shot", "capacity": 1, "capacity_available": 1}
            base_url = f"{node.service_uri.rstrip('/')}/apps"
            many = [
                {**first, "url": f"{base_url}/{number}/app", "app": f"livepeer/app-{number}"} for number in range(_MANY)
            ]
            return json.dumps([{"address": node.service_uri, "runners": many}]).encode()
    return None


async def stream_faulty_body(fault: str) -> AsyncIterator[bytes]:
    """Yield the body of `discovery_huge`, which is one valid string of 100 MB, or of `discovery_slow`, without end."""
    yield b'[{"address":"'
    if fault == "discovery_slow":
        while True:
            await asyncio.sleep(_SLOW_BYTE_S)
            yield b"x"
    for _ in range(_HUGE_BYTES // len(_CHUNK)):
        yield _CHUNK
    yield b'"}]'
