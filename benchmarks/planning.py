"""Measure the discovery of a large network: parsing and planning."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import orjson

from benchmarks.rows import Row
from benchmarks.tester import LoopLag
from jobtester.configuration import Configuration
from jobtester.daemon.runtime import configure_runtime
from jobtester.domain.plan import Selection, make_plan
from jobtester.gateway.discovery import merge_duplicates, parse_network_capabilities

_ORCHESTRATORS = 2_000
_MODELS = 10


async def measure() -> list[Row]:
    """Parse and plan 2,000 orchestrators with 10 models each, off the loop as a tick does it."""
    body = orjson.dumps({"orchestrators": [_make_node(number) for number in range(_ORCHESTRATORS)]})
    content = {
        "gateways": [{"name": "g", "url": "http://127.0.0.1:1", "targeting": "query"}],
        "leaderboard": {"post": False},
    }
    catalogue = Configuration.from_tables(content, origin="benchmark").catalogue
    numbers = itertools.count()
    configure_runtime()  # as the daemon does when it starts
    async with LoopLag() as lag:
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        orchestrators = await asyncio.to_thread(
            lambda: merge_duplicates(parse_network_capabilities(orjson.loads(body)))
        )
        plan = await asyncio.to_thread(
            make_plan, orchestrators, catalogue, Selection(), tick="t", seed=1, new_id=lambda: str(next(numbers))
        )
        duration_s = time.perf_counter() - began
    assert len(plan.jobs) == _ORCHESTRATORS * _MODELS
    return [
        Row.with_bar("discovery of 2,000 × 10: parse and plan", duration_s * 1000, "ms", at_most=300),
        Row.with_bar("longest block of the event loop meanwhile", lag.longest * 1000, "ms", at_most=20),
    ]


def _make_node(number: int) -> dict[str, Any]:
    """Return an orchestrator as getNetworkCapabilities has it; 27 is text-to-image."""
    return {
        "address": f"0x{number + 1:040x}",
        "local_address": f"0x{number + 10**6:040x}",
        "orch_uri": f"https://o{number}.example:8935",
        "capabilities": {
            "constraints": {
                "PerCapability": {
                    "27": {
                        "models": {f"maker/model-{index}": {"warm": True, "capacity": 1} for index in range(_MODELS)}
                    }
                }
            }
        },
    }
