"""Write the made-up samples of tests/fixtures: `python -m tools.make_fixtures`.

They have the shape of what real gateways return and ask, but every address, host, model, price and time is made up.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobtester.simulator.go_livepeer import DISPLAY_NAMES, NUMBERS, to_mixed_case
from tests.unit.corpus.question_patterns import AskingGateway

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
_BYOC_PRICES = {"example-chat": 1_100, "example-embeddings": 700, "example-speech": 2_300}


def _names(*, byoc: bool) -> dict[str, str]:
    return {str(number): name for number, name in DISPLAY_NAMES.items() if byoc or name != "byoc"}


def _entry(number: int, models: dict[str, dict[str, Any]], *, price: int, port: int = 8935) -> dict[str, Any]:
    """Return an orchestrator that offers one model per pipeline. `models`: the model's state by pipeline."""
    capabilities: dict[str, Any] = {
        "bitstring": [(1 << number) - 1],
        "capacities": {str(NUMBERS[pipeline]): 1 for pipeline in models},
        "version": f"0.9.{number}",
        "constraints": {"minVersion": f"0.9.{number}"} if number % 2 else {},
    }
    if models:
        capabilities["constraints"]["PerCapability"] = {
            str(NUMBERS[pipeline]): {"models": {f"example/{pipeline}-{number}": state}}
            for pipeline, state in models.items()
        }
    if number % 3 == 0:
        capabilities["mandatories"] = [1 << 12]
    return {
        "address": to_mixed_case(f"0x{number:040x}"),
        "local_address": to_mixed_case(f"0x{number + 4_096:040x}"),
        "orch_uri": f"https://orchestrator-{number}.example:{port}",
        "capabilities": capabilities,
        "capabilities_prices": [
            {
                "pricePerUnit": price + number,
                "pixelsPerUnit": 1,
                "capability": NUMBERS[pipeline],
                "constraint": f"example/{pipeline}-{number}",
            }
            for pipeline in models
        ]
        or None,
        "hardware": [
            {"pipeline": pipeline, "model_id": f"example/{pipeline}-{number}", "gpu_info": _gpu(number)}
            for pipeline in models
        ]
        if number % 2
        else None,
    }


def _gpu(number: int) -> dict[str, Any]:
    memory = 24 * 2**30
    return {"0": {"id": f"GPU-{number:08d}", "name": "Example GPU", "memory_free": memory // 2, "memory_total": memory}}


def _batch_and_byoc() -> dict[str, Any]:
    batch = [slug for slug in NUMBERS if slug not in ("byoc", "live-video-to-video")]
    entries = [_entry(1, {}, price=0)]
    for number, first in enumerate(range(0, len(batch), 2), 2):
        states = {pipeline: {"warm": number % 2 == 0, "capacity": number} for pipeline in batch[first : first + 2]}
        entries.append(_entry(number, states, price=50_000))
    external = _entry(20, {}, price=0)
    external["capabilities_prices"] = [
        {"pricePerUnit": price, "pixelsPerUnit": 1, "capability": NUMBERS["byoc"], "constraint": name}
        for name, price in _BYOC_PRICES.items()
    ]
    external["capability_options"] = {name: [{"model": f"example/{name}"}] for name in _BYOC_PRICES}
    entries.append(external)
    for entry in entries:
        entry["price_info"] = {"pricePerUnit": 120, "pixelsPerUnit": 1}
    return {"capabilities_names": _names(byoc=True), "orchestrators": entries}


def _live() -> dict[str, Any]:
    """Return a network of live video with a busy orchestrator, a repeated one, and one with two service URIs."""
    busy = {"warm": True, "runnerVersion": "0.14.1-example", "capacityInUse": 1}
    free = {"warm": True, "runnerVersion": "0.14.1-example"}
    entries = [
        _entry(31, {}, price=0),
        _entry(32, {"live-video-to-video": busy}, price=1_400),
        _entry(33, {"live-video-to-video": free}, price=1_400),
        _entry(33, {"llm": {"warm": True, "capacity": 4}}, price=90_000),
        _entry(34, {"llm": {"warm": True, "capacity": 2}}, price=90_000),
        _entry(34, {"text-to-image": {"warm": False, "capacity": 1}}, price=40_000, port=8936),
    ]
    return {"capabilities_names": _names(byoc=False), "orchestrators": entries}


def _trace(ask: Callable[[AskingGateway], object], *calls: tuple[str, float, int]) -> dict[str, Any]:
    """Return one trace. `calls`: the runner's, as pipeline, seconds and status; each follows five questions."""
    gateway = AskingGateway(random.Random(7), 0.0012, 0.006, window_s=10)
    ask(gateway)
    questions_ms = [round(moment * 1e3, 1) for moment in gateway.asked]
    runner_calls = []
    for number, (pipeline, seconds, status) in enumerate(calls):
        begin_ms = questions_ms[7 * number + 4] + 6
        end_ms = begin_ms + seconds * 1e3
        runner_calls.append({"pipeline": pipeline, "begin_ms": begin_ms, "end_ms": end_ms, "status": status})
    return {"gateway": "made up", "questions_ms": questions_ms, "runner_calls": runner_calls}


def _answered(gateway: AskingGateway) -> None:
    gateway.attempt(0.8)
    gateway.ask(2)


def _webhook_questions() -> dict[str, Any]:
    traces = [
        _trace(_answered, ("text-to-image", 0.8, 200)),
        _trace(lambda gateway: gateway.attempt(1.5), ("llm", 1.5, 200)),
        _trace(AskingGateway.find_down),
        _trace(AskingGateway.find_busy),
        _trace(lambda gateway: (gateway.find_busy(), gateway.find_busy())),
        _trace(lambda gateway: gateway.ask(5)),
        _trace(
            lambda gateway: gateway.fail_at_orchestrator(0.15),
            *[("text-to-image", 0.15, 500)] * 20,
        ),
    ]
    return {"about": "Made up by tools/make_fixtures.py.", "traces": traces}


def contents() -> dict[str, str]:
    """Return the text of each file by its name."""
    samples = {
        "network-capabilities-batch-byoc.json": _batch_and_byoc(),
        "network-capabilities-live.json": _live(),
        "webhook-questions.json": _webhook_questions(),
    }
    return {name: json.dumps(sample, indent=1) + "\n" for name, sample in samples.items()}


def main() -> None:
    """Write the files."""
    FIXTURES.mkdir(exist_ok=True)
    for name, text in contents().items():
        (FIXTURES / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
