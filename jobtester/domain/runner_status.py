"""Follow from tick to tick whether each listed live runner could serve a job at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

from jobtester.domain.orchestrators import Capability, Orchestrator, Target

LISTED = "listed"
STATES: Mapping[str, str] = MappingProxyType(
    {
        LISTED: "listed, with a free slot or without saying how many there are",
        "no_capacity": "listed, and no slot is free",
        "foreign_url": "listed with a URL on another host or port than the service URI",
        "gone": "listed before, and not any more: unhealthy, or removed",
        "no_list": "listed before, and now the orchestrator does not answer with a list",
    }
)
# Names are free, so an orchestrator could list new ones in every tick.
_MAX_GONE = 50


class RunnerKey(NamedTuple):
    """One app and version at one service URI of an orchestrator."""

    orchestrator: str
    service_uri: str
    app: str
    version: str


@dataclass(frozen=True, slots=True)
class RunnerStatus:
    """A live runner as it was last listed, and for how many ticks in a row it has been in its state, one of STATES."""

    orchestrator: str
    service_uri: str
    app: str
    version: str
    mode: str
    price_wei: int | None
    unit: str
    gpu: str
    schema_url: str
    state: str
    ticks: int
    listed_at: float

    @property
    def key(self) -> RunnerKey:
        """Return what it is the status of."""
        return RunnerKey(self.orchestrator, self.service_uri, self.app, self.version)

    @property
    def is_unusable(self) -> bool:
        """Return True if it is advertised, or was, and cannot serve a job."""
        return self.state != LISTED


def follow_runners(
    before: Iterable[RunnerStatus], orchestrators: Sequence[Orchestrator], *, now: float
) -> list[RunnerStatus]:
    """Return the status of every live runner after one more tick's discovery; `now` in Unix seconds.

    Runners of orchestrators that are not among `orchestrators` were not asked for, so they stay as they were. So do all
    if no orchestrator answers with a list: then the fault may be in the tester's own network.
    """
    previous = {status.key: status for status in before}
    after: dict[RunnerKey, RunnerStatus] = {}
    for orchestrator in orchestrators:
        for capability in orchestrator.capabilities:
            if capability.runner is not None and orchestrator.address:
                key = RunnerKey(*orchestrator.target, capability.pipeline, capability.model)
                after[key] = _listed_status(key, capability, previous.get(key), now)
    missing_state = {
        orchestrator.target: "gone" if orchestrator.has_runner_list else "no_list" for orchestrator in orchestrators
    }
    if "gone" not in missing_state.values():
        missing_state.clear()
    gone: dict[Target, list[RunnerStatus]] = {}
    for key, status in previous.items():
        if key in after:
            continue
        target = Target(key.orchestrator, key.service_uri)
        if state := missing_state.get(target):
            ticks = status.ticks + 1 if status.state == state else 1
            gone.setdefault(target, []).append(replace(status, state=state, ticks=ticks))
        else:
            after[key] = status
    for statuses in gone.values():
        newest = sorted(statuses, key=lambda status: (status.ticks, status.key))[:_MAX_GONE]
        after |= {status.key: status for status in newest}
    return [after[key] for key in sorted(after)]


def _listed_status(key: RunnerKey, capability: Capability, before: RunnerStatus | None, now: float) -> RunnerStatus:
    runner = capability.runner
    assert runner is not None
    state = "foreign_url" if runner.is_foreign else "no_capacity" if capability.is_busy else LISTED
    return RunnerStatus(
        *key,
        mode=runner.mode,
        price_wei=capability.price.wei_per_unit if capability.price is not None else None,
        unit=runner.unit,
        gpu=runner.gpu,
        schema_url=runner.schema_url,
        state=state,
        ticks=before.ticks + 1 if before is not None and before.state == state else 1,
        listed_at=now,
    )
