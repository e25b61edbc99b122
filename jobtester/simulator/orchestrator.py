"""An orchestrator behind the gateways: its slots, its latencies, and whether an attempt fails."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from jobtester.simulator import faults
from jobtester.simulator.background_tasks import run_unless_set
from jobtester.simulator.scenario import ByocSpec, ModelSpec, OrchestratorSpec
from jobtester.simulator.service_listener import ServiceListener

_SLOW_FACTOR = 10.0
_LEAKING_VERSION = "0.8.6"
# What the runner behind the orchestrator answers, after the time that a job takes.
_RUNNER_ERRORS = {
    "runner_500": "container returned 500: Internal server error.",
    "runner_401": "container returned 401: Invalid bearer token.",
    "runner_closed": "EOF",
}
# How the connection between gateway and orchestrator breaks, after the time that a job takes.
_CONNECTION_ERRORS = {
    "resets": "read: connection reset by peer",
    "unreadable": "invalid character '<' looking for beginning of value",
}


class AttemptFailedError(Exception):
    """The orchestrator did not do the job; the text is what the gateway logs.

    `bad_request` is a runner's 400 text, which ends the tries. `refused`: the orchestrator had no free slot. `broken`:
    the connection broke or its content was unreadable; a gateway's metrics name an orchestrator for no other error.
    """

    def __init__(self, cause: str, *, bad_request: str = "", refused: bool = False, broken: bool = False) -> None:
        super().__init__(cause)
        self.cause, self.bad_request, self.refused, self.broken = cause, bad_request, refused, broken


class Orchestrator:
    """One node at run time."""

    def __init__(self, spec: OrchestratorSpec, seed: int, number: int = 0) -> None:
        """Create an idle node whose advertised warm models are loaded. `number` tells nodes of one address apart."""
        faults.require_known(spec.fault)
        self.spec = spec
        self.service_listener: ServiceListener | None = None
        self.restart_callbacks: list[Callable[[], None]] = []
        self.info_calls = 0
        self.in_use: Counter[tuple[str, str]] = Counter()
        self._leaked: Counter[tuple[str, str]] = Counter()
        self._cold = {(model.pipeline, model.model) for model in spec.models if not model.warm}
        self._random = random.Random(f"{seed}/{spec.address}/{number}")
        self._went_down = asyncio.Event()

    def restart(
        self,
        *,
        fault: str = "",
        fault_pipelines: tuple[str, ...] = (),
        fault_probability: float = 1.0,
        down: bool = False,
        frozen: bool = False,
    ) -> None:
        """Restart the node with this fault and state. Leaked slots are free again. ValueError for an unknown fault."""
        self.spec = dataclasses.replace(
            self.spec,
            fault=faults.require_known(fault),
            fault_pipelines=fault_pipelines,
            fault_probability=fault_probability,
            down=down,
            frozen=frozen,
        )
        self._leaked.clear()
        for callback in self.restart_callbacks:
            callback()
        self._apply_state()

    def die(self) -> None:
        """Go down with all connections, as a process does that has crashed."""
        self.spec = dataclasses.replace(self.spec, down=True)
        self._apply_state()

    def _apply_state(self) -> None:
        if self.spec.state != "up":
            self._went_down.set()
        else:
            self._went_down = asyncio.Event()
        self.update_listener()

    def update_listener(self) -> None:
        """Make the socket at the service URI respond, refuse or stay silent as the node does."""
        if self.service_listener is not None:
            self.service_listener.set_state(self.spec.state)

    def find_model(self, pipeline: str, model: str) -> ModelSpec | None:
        """Return what the node advertises for the pipeline and the model."""
        return next((spec for spec in self.spec.models if (spec.pipeline, spec.model) == (pipeline, model)), None)

    def is_selectable(self, pipeline: str, model: str, max_price: int) -> bool:
        """Return True if a gateway that pays up to `max_price` (0: any price) can select the node for the model."""
        spec = self.find_model(pipeline, model)
        if spec is None or pipeline in self.spec.not_selectable:
            return False
        return not max_price or spec.price <= max_price

    def is_warm(self, pipeline: str, model: str) -> bool:
        """Return True if the model is loaded by now."""
        return (pipeline, model) not in self._cold

    def mark_warm(self, pipeline: str, model: str) -> None:
        """Mark the model as loaded."""
        self._cold.discard((pipeline, model))

    def find_capability(self, name: str) -> ByocSpec | None:
        """Return what the node advertises for the external capability."""
        return next((spec for spec in self.spec.byoc if spec.capability == name), None)

    def has_free_slot(self, capability: ByocSpec) -> bool:
        """Return True if the external capability has a free slot now."""
        return self._count_occupied(("byoc", capability.capability)) < capability.capacity

    async def answer_info(self) -> None:
        """Take the time of an info call; never return if the node is down or frozen."""
        self.info_calls += 1
        if self.spec.state != "up":
            await asyncio.Event().wait()
        await asyncio.sleep(self._random.uniform(*self.spec.info_s))

    def draw_fault(self, pipeline: str) -> str:
        """Draw whether an attempt fails and return its fault, empty for none."""
        spec = self.spec
        if not spec.fault or (spec.fault_pipelines and pipeline not in spec.fault_pipelines):
            return ""
        if not faults.applies_to(spec.fault, pipeline) or self._random.random() >= spec.fault_probability:
            return ""
        return spec.fault

    async def run_batch_job(self, pipeline: str, model: str, fault: str) -> None:
        """Take a slot for the time of a batch job. AttemptFailedError if `fault` or a lack of slots prevents it."""
        spec = self.find_model(pipeline, model)
        if spec is None:
            raise AttemptFailedError("no workers can process job requested")
        key = (pipeline, model)
        with self.occupy_slot(key, spec.capacity, fault):
            try:
                if key in self._cold:
                    await asyncio.sleep(spec.cold_s)
                    self.mark_warm(pipeline, model)
                latency_s = self._random.uniform(*spec.latency_s)
                await self._run_while_up(self._work(pipeline, latency_s, fault))
            except (AttemptFailedError, asyncio.CancelledError):
                # 0.8.6 returns a slot only after a success. Later versions return it after errors too, but not when
                # their handler crashes, as it does over a 503 of a runner that is not llm. Only a restart frees these.
                if self.spec.version == _LEAKING_VERSION or (fault == "runner_503" and pipeline != "llm"):
                    self._leaked[key] += 1
                raise

    async def run_byoc_job(self, spec: ByocSpec, fault: str) -> None:
        """Take a slot for the time of a job for an external capability. AttemptFailedError as for a batch job."""
        key = ("byoc", spec.capability)
        with self.occupy_slot(key, spec.capacity, fault):
            try:
                latency_s = self._random.uniform(*spec.latency_s)
                await self._run_while_up(self._work(spec.capability, latency_s, fault))
            except asyncio.CancelledError:
                # As in go-livepeer, a job that is cut off keeps its slot until the capability is registered again.
                self._leaked[key] += 1
                raise

    async def _run_while_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`; every connection breaks when the node goes down."""
        went_down = self._went_down
        await run_unless_set(went_down, work)
        if went_down.is_set():
            raise AttemptFailedError("read: connection reset by peer", broken=True)

    def _count_occupied(self, key: tuple[str, str]) -> int:
        return self.in_use[key] + self._leaked[key]

    @contextmanager
    def occupy_slot(self, key: tuple[str, str], capacity: int, fault: str) -> Iterator[None]:
        """Keep a slot for the time of a job. AttemptFailedError if none is free or the node is not up."""
        if self.spec.state != "up":
            raise AttemptFailedError("dial tcp: connect: connection refused", broken=True)
        if fault == "busy" or self._count_occupied(key) >= capacity:
            raise AttemptFailedError("insufficient capacity", refused=True)
        self.in_use[key] += 1
        try:
            yield
        finally:
            self.in_use[key] -= 1

    async def _work(self, pipeline: str, latency_s: float, fault: str) -> None:
        if fault in ("eof", "null"):
            raise AttemptFailedError(f"{pipeline} container returned 500: Internal server error.")
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "error_503":
            await asyncio.sleep(max(latency_s, self.spec.error_at_least_s))
            raise AttemptFailedError(f"{pipeline} container returned 500: Out of memory error.")
        if fault == "dies_in_job":
            await asyncio.sleep(latency_s / 2)
            self.die()
        await asyncio.sleep(max(latency_s * _SLOW_FACTOR, self.spec.slow_at_least_s) if fault == "slow" else latency_s)
        if fault == "runner_400":
            message = "Error during model execution: bad input."
            raise AttemptFailedError(f"{pipeline} container returned 400: {message}", bad_request=message)
        if fault in _RUNNER_ERRORS:
            raise AttemptFailedError(f"{pipeline} {_RUNNER_ERRORS[fault]}")
        if fault in _CONNECTION_ERRORS:
            raise AttemptFailedError(_CONNECTION_ERRORS[fault], broken=True)
        if fault == "runner_503":
            # go-livepeer expects a 503 of an llm runner only; for others its handler crashes, and the connection ends.
            if pipeline == "llm":
                raise AttemptFailedError(f"{pipeline} container returned 503")
            raise AttemptFailedError("EOF", broken=True)
