"""Recording: a result goes into the store together with what has to be posted of it, and when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import structlog

from jobtester.domain.attribution import AttributionKind
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat, UnpostableError
from jobtester.domain.suspect_detection import SuspectDetector
from jobtester.errors import StoreError
from jobtester.gateway.evidence import EvidenceItem
from jobtester.store.results import Results

log = structlog.get_logger()

_AGAIN_S = 1.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostingRules:
    """What is posted: nothing without a region; `evidence_wait_s` by gateway is how long its events are waited for."""

    region: str = ""
    post: bool = False
    unscored: bool = False
    suspect: bool = False
    evidence_wait_s: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class ResultRecorder:
    """Records one tick's results. A pass is posted at once; a failure waits until the path is known to work.

    While the store cannot be written, e.g. because the disk is full, results wait and are tried again.
    """

    results: Results
    posting: PostingRules
    tick: str
    on_recorded: Callable[[], None]
    clock: Callable[[], float]
    _detectors: dict[str, SuspectDetector] = field(default_factory=dict)
    _waiting: set[Callable[[], Awaitable[object]]] = field(default_factory=set)
    _given_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_waiting(self) -> bool:
        """Tell whether results wait because the store cannot be written now."""
        return bool(self._waiting)

    def give_up(self) -> None:
        """Wait no longer: what cannot be written raises StoreError."""
        self._given_up.set()

    async def record(self, result: Result) -> None:
        """Keep a result and its stat in one transaction. Raises StoreError only after give_up()."""
        suspicion = self._detectors.setdefault(result.gateway, SuspectDetector())
        passed, waited = result.verdict.outcome is Outcome.PASSED, suspicion.should_hold
        first = passed and suspicion.passed == 0
        suspicion.add_result(result)
        stat = self._stat(result)
        held = stat is not None and suspicion.should_hold and not passed
        wait = self.posting.evidence_wait_s.get(result.gateway, 0.0)
        not_before = self.clock() + wait if wait else 0.0
        state: Literal["held", "pending"] = "held" if held else "pending"
        await self._write_with_retry(partial(self.results.record, result, stat, state=state, not_before=not_before))
        _log(result)
        if first:
            await self._write_with_retry(partial(self.results.unscore_suspects, result.gateway))
        if waited and not suspicion.should_hold:
            await self._write_with_retry(partial(self.results.release_held, self.tick, result.gateway))
        if stat is not None and not held:
            self.on_recorded()

    async def add_evidence(self, job_id: str, testimony: EvidenceItem) -> bool:
        """Add evidence that came too late for a result; tell whether the result was found."""
        kind = testimony.kind or AttributionKind.PRESUMED
        found = await self._write_with_retry(partial(self.results.add_evidence, job_id, kind, testimony.line))
        if found and kind is AttributionKind.REFUTED:
            log.error("refuted", tick=self.tick, job=job_id, evidence=testimony.line)
        return found

    async def finish(self) -> bool:
        """Settle what is still held at the tick's end; tell whether some of it is suspect."""
        suspect = False
        for gateway, suspicion in self._detectors.items():
            if suspicion.is_suspect and not self.posting.suspect:
                suspect = True
                await self._write_with_retry(partial(self.results.suspect_held, self.tick, gateway))
                log.error(
                    "tick_suspect", tick=self.tick, gateway=gateway, jobs=suspicion.jobs, passed=suspicion.passed,
                    reason=next(iter(suspicion.reasons)),
                    problem="nearly all failed alike, so nothing of it is posted; if true: jobtester tick release",
                )  # fmt: skip
            else:
                await self._write_with_retry(partial(self.results.release_held, self.tick, gateway))
        self.on_recorded()
        return suspect

    async def _write_with_retry(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write, again and again until it goes well; give what came of it. Raises StoreError only after give_up()."""
        try:
            while True:
                try:
                    return await write()
                except StoreError as error:
                    if self._given_up.is_set():
                        raise
                    if not self._waiting:
                        log.error("tick_waits", tick=self.tick, problem=str(error))
                    self._waiting.add(write)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._given_up.wait(), _AGAIN_S)
        finally:
            self._waiting.discard(write)

    def _stat(self, result: Result) -> Stat | None:
        if not self.posting.post or not (result.verdict.scored or self.posting.unscored):
            return None
        try:
            return Stat.from_result(result, self.posting.region)
        except UnpostableError as error:
            log.error("unpostable", tick=self.tick, job=result.id, problem=str(error))
            return None


def _log(result: Result) -> None:
    """Write the one canonical line of a job."""
    job, verdict = result.job, result.verdict
    log.info(
        "job_done",
        tick=job.tick,
        job=job.id,
        orchestrator=job.orchestrator.address,
        service_uri=job.target.service_uri,
        pipeline=job.pipeline,
        model=job.model,
        outcome=verdict.outcome.value,
        reason=verdict.code,
        round_trip_s=round(result.round_trip_s, 4),
        attribution=result.attribution.kind.value,
        gateway=result.gateway,
        warm=job.warm,
        status=result.status,
        **result.measures,
        notes=[f"{note.check}:{note.code}" for note in result.notes],
        message="" if verdict.outcome is Outcome.PASSED else verdict.message,
    )
