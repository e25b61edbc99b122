"""An orchestrator behind the gateways: its capacities, its latencies, and whether an attempt goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from jobtester.simulator import faults, scenario

_DIAL_LIMIT_S = 2.0
_SLOW = 10.0
_SLOW_AT_LEAST_S = 2.0
_ERROR_AT_LEAST_S = 0.25


class AttemptFailed(Exception):
    """The orchestrator did not do the job; the text is what the gateway logs and counts."""

    def __init__(self, cause: str, *, bad_request: str = "") -> None:
        """Carry the cause, and a runner's 400 text, which ends the tries."""
        super().__init__(cause)
        self.cause, self.bad_request = cause, bad_request


class Orchestrator:
    """One node at run time. `spec` may be replaced to change its fault while jobs run."""

    def __init__(self, spec: scenario.OrchestratorSpec, seed: int) -> None:
        """Begin idle, with the models warm that are advertised so."""
        faults.check(spec.fault)
        self.spec = spec
        self.in_use: Counter[tuple[str, str]] = Counter()
        self._lost: Counter[tuple[str, str]] = Counter()
        self._cold = {(model.pipeline, model.model) for model in spec.models if not model.warm}
        self._random = random.Random(f"{seed}/{spec.address}/{spec.service_uri}")

    def change(self, *, fault: str, pipelines: tuple[str, ...], probability: float, down: bool) -> None:
        """Go wrong differently from now on. ValueError for an unknown fault."""
        self.spec = dataclasses.replace(
            self.spec,
            fault=faults.check(fault),
            fault_pipelines=pipelines,
            fault_probability=probability,
            down=down,
        )
        self._lost.clear()

    def model(self, pipeline: str, model: str) -> scenario.ModelSpec | None:
        """Find what it advertises for the pipeline's slug and the model."""
        return next((one for one in self.spec.models if (one.pipeline, one.model) == (pipeline, model)), None)

    def is_warm(self, pipeline: str, model: str) -> bool:
        """Say whether the model is loaded by now."""
        return (pipeline, model) not in self._cold

    def capability(self, name: str) -> scenario.ByocSpec | None:
        """Find an external capability it advertises."""
        return next((one for one in self.spec.byoc if one.capability == name), None)

    def has_room(self, capability: scenario.ByocSpec) -> bool:
        """Say whether an external capability has a free slot now."""
        return self._taken(("byoc", capability.capability)) < capability.capacity

    async def info(self) -> None:
        """Answer an info call, or never."""
        if self.spec.down:
            await asyncio.Event().wait()
        await asyncio.sleep(self._random.uniform(*self.spec.info_s))

    async def run(self, pipeline: str, model: str, fault: str) -> None:
        """Do a batch job, as far as `fault` lets it. AttemptFailed where it does not."""
        spec = self.model(pipeline, model)
        if spec is None:
            raise AttemptFailed("no workers can process job requested")
        with self._slot((pipeline, model), spec.capacity, fault):
            if (pipeline, model) in self._cold:
                await asyncio.sleep(spec.cold_s)
                self._cold.discard((pipeline, model))
            await self._work(pipeline, spec.latency_s, fault)

    async def run_byoc(self, spec: scenario.ByocSpec, fault: str) -> None:
        """Do a job of an external capability, as far as `fault` lets it. AttemptFailed where it does not.

        A job that is cut off keeps its slot, as in go-livepeer, until `change` registers the capability again.
        """
        key = ("byoc", spec.capability)
        with self._slot(key, spec.capacity, fault):
            try:
                await self._work(spec.capability, spec.latency_s, fault)
            except asyncio.CancelledError:
                self._lost[key] += 1
                raise

    def _taken(self, key: tuple[str, str]) -> int:
        return self.in_use[key] + self._lost[key]

    @contextmanager
    def _slot(self, key: tuple[str, str], capacity: int, fault: str) -> Iterator[None]:
        if fault == "busy" or self._taken(key) >= capacity:
            raise AttemptFailed("insufficient capacity")
        self.in_use[key] += 1
        try:
            yield
        finally:
            self.in_use[key] -= 1

    async def _work(self, pipeline: str, latency_s: scenario.Seconds, fault: str) -> None:
        latency = self._random.uniform(*latency_s)
        if fault == "down":
            await asyncio.sleep(_DIAL_LIMIT_S)
            raise AttemptFailed("dial tcp: i/o timeout")
        if fault in ("eof", "null"):
            raise AttemptFailed(f"{pipeline} container returned 500: Internal server error.")
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "error_503":
            await asyncio.sleep(max(latency, _ERROR_AT_LEAST_S))
            raise AttemptFailed(f"{pipeline} container returned 500: Out of memory error.")
        if fault == "runner_400":
            message = "Error during model execution: bad input."
            raise AttemptFailed(f"{pipeline} container returned 400: {message}", bad_request=message)
        await asyncio.sleep(max(latency * _SLOW, _SLOW_AT_LEAST_S) if fault == "slow" else latency)

    def fault_for(self, pipeline: str) -> str:
        """Draw whether this attempt goes wrong, and how."""
        spec = self.spec
        if not spec.fault or (spec.fault_pipelines and pipeline not in spec.fault_pipelines):
            return ""
        if not faults.applies(spec.fault, pipeline) or self._random.random() >= spec.fault_probability:
            return ""
        return spec.fault
