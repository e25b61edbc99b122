"""An orchestrator behind the gateways: its capacities, its latencies, and whether an attempt goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from jobtester.simulator import background_tasks, faults, scenario, service_listener

_SLOW = 10.0
_LEAKY = "0.8.6"
# What the worker behind it answers, after the time that a job takes.
_RUNNER = {
    "runner_500": "container returned 500: Internal server error.",
    "runner_401": "container returned 401: Invalid bearer token.",
    "runner_closed": "EOF",
}
# How the connection between gateway and orchestrator breaks, after the time that a job takes.
_BROKEN = {
    "resets": "read: connection reset by peer",
    "unreadable": "invalid character '<' looking for beginning of value",
}


class AttemptFailed(Exception):
    """The orchestrator did not do the job; the text is what the gateway logs.

    `bad_request` is a runner's 400 text, which ends the tries. `refused`: it had no free slot. `broken`: the connection
    broke, or what came over it could not be read; nothing else is counted against an orchestrator by name.
    """

    def __init__(self, cause: str, *, bad_request: str = "", refused: bool = False, broken: bool = False) -> None:
        """Carry the cause, and what the gateway makes of it."""
        super().__init__(cause)
        self.cause, self.bad_request, self.refused, self.broken = cause, bad_request, refused, broken


class Orchestrator:
    """One node at run time. `spec` may be replaced to change its fault while jobs run."""

    def __init__(self, spec: scenario.OrchestratorSpec, seed: int, number: int = 0) -> None:
        """Begin idle, with the models warm that are advertised so; `number` tells nodes of one address apart."""
        faults.check(spec.fault)
        self.spec = spec
        self.listener: service_listener.ServiceListener | None = None
        self.info_calls = 0
        self.in_use: Counter[tuple[str, str]] = Counter()
        self._lost: Counter[tuple[str, str]] = Counter()
        self._cold = {(model.pipeline, model.model) for model in spec.models if not model.warm}
        self._random = random.Random(f"{seed}/{spec.address}/{number}")
        self._ended = asyncio.Event()

    def change(
        self, *, fault: str, pipelines: tuple[str, ...], probability: float, down: bool, frozen: bool = False
    ) -> None:
        """Restart, and go wrong differently from now on. ValueError for an unknown fault."""
        self.spec = dataclasses.replace(
            self.spec,
            fault=faults.check(fault),
            fault_pipelines=pipelines,
            fault_probability=probability,
            down=down,
            frozen=frozen,
        )
        self._lost.clear()
        self._stand()

    def _stand(self) -> None:
        if self.spec.state != "up":
            self._ended.set()
        else:
            self._ended = asyncio.Event()
        self.show()

    def show(self) -> None:
        """Let the socket at the service URI be what the node is."""
        if self.listener is not None:
            self.listener.become(self.spec.state)

    def model(self, pipeline: str, model: str) -> scenario.ModelSpec | None:
        """Find what it advertises for the pipeline's slug and the model."""
        return next((one for one in self.spec.models if (one.pipeline, one.model) == (pipeline, model)), None)

    def is_selectable(self, pipeline: str, model: str, max_price: int) -> bool:
        """Whether its info lets a gateway that pays up to `max_price` (0: anything) select it."""
        spec = self.model(pipeline, model)
        if spec is None or pipeline in self.spec.not_selectable:
            return False
        return not max_price or spec.price <= max_price

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
        self.info_calls += 1
        if self.spec.state != "up":
            await asyncio.Event().wait()
        await asyncio.sleep(self._random.uniform(*self.spec.info_s))

    async def run(self, pipeline: str, model: str, fault: str) -> None:
        """Do a batch job, as far as `fault` lets it. AttemptFailed where it does not."""
        spec = self.model(pipeline, model)
        if spec is None:
            raise AttemptFailed("no workers can process job requested")
        key = (pipeline, model)
        with self._slot(key, spec.capacity, fault):
            try:
                if key in self._cold:
                    await asyncio.sleep(spec.cold_s)
                    self._cold.discard(key)
                await self._alive(self._work(pipeline, spec.latency_s, fault))
            except (AttemptFailed, asyncio.CancelledError):
                if self.spec.version == _LEAKY or (fault == "runner_503" and pipeline != "llm"):
                    self._lost[key] += 1
                raise

    async def run_byoc(self, spec: scenario.ByocSpec, fault: str) -> None:
        """Do a job of an external capability, as far as `fault` lets it. AttemptFailed where it does not.

        A job that is cut off keeps its slot, as in go-livepeer, until `change` registers the capability again.
        """
        key = ("byoc", spec.capability)
        with self._slot(key, spec.capacity, fault):
            try:
                await self._alive(self._work(spec.capability, spec.latency_s, fault))
            except asyncio.CancelledError:
                self._lost[key] += 1
                raise

    async def _alive(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it for as long as the node stands; every connection breaks when it goes."""
        ended = self._ended
        await background_tasks.unless(ended, work)
        if ended.is_set():
            raise AttemptFailed("read: connection reset by peer", broken=True)

    def _taken(self, key: tuple[str, str]) -> int:
        return self.in_use[key] + self._lost[key]

    @contextmanager
    def _slot(self, key: tuple[str, str], capacity: int, fault: str) -> Iterator[None]:
        if self.spec.state != "up":
            raise AttemptFailed("dial tcp: connect: connection refused", broken=True)
        if fault == "busy" or self._taken(key) >= capacity:
            raise AttemptFailed("insufficient capacity", refused=True)
        self.in_use[key] += 1
        try:
            yield
        finally:
            self.in_use[key] -= 1

    async def _work(self, pipeline: str, latency_s: scenario.Seconds, fault: str) -> None:
        latency = self._random.uniform(*latency_s)
        if fault in ("eof", "null"):
            raise AttemptFailed(f"{pipeline} container returned 500: Internal server error.")
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "error_503":
            await asyncio.sleep(max(latency, self.spec.error_at_least_s))
            raise AttemptFailed(f"{pipeline} container returned 500: Out of memory error.")
        if fault == "dies_in_job":
            await asyncio.sleep(latency / 2)
            self.spec = dataclasses.replace(self.spec, down=True)
            self._stand()
        await asyncio.sleep(max(latency * _SLOW, self.spec.slow_at_least_s) if fault == "slow" else latency)
        if fault == "runner_400":
            message = "Error during model execution: bad input."
            raise AttemptFailed(f"{pipeline} container returned 400: {message}", bad_request=message)
        if fault in _RUNNER:
            raise AttemptFailed(f"{pipeline} {_RUNNER[fault]}")
        if fault in _BROKEN:
            raise AttemptFailed(_BROKEN[fault], broken=True)
        if fault == "runner_503":  # nobody expects it: where it is not llm, the handler crashes with the connection
            raise AttemptFailed(
                "EOF" if pipeline != "llm" else f"{pipeline} container returned 503", broken=pipeline != "llm"
            )

    def fault_for(self, pipeline: str) -> str:
        """Draw whether this attempt goes wrong, and how."""
        spec = self.spec
        if not spec.fault or (spec.fault_pipelines and pipeline not in spec.fault_pipelines):
            return ""
        if not faults.applies(spec.fault, pipeline) or self._random.random() >= spec.fault_probability:
            return ""
        return spec.fault
