"""Record a tick's results in the store, each together with the stat that has to be posted, and when.

A pass is posted at once. A failure waits until something has passed through the same gateway: where nearly everything
fails alike, the fault is more likely on the way to the orchestrators than with all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol, Self, TypeVar

import structlog

from jobtester.domain.attribution import AttributionKind
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat, UnpostableError
from jobtester.domain.suspect_detection import SuspectDetector
from jobtester.errors import StoreError
from jobtester.gateway.evidence import EvidenceItem
from jobtester.gateway.peer import JobPeer
from jobtester.settings.model import Settings
from jobtester.store.results import Results

log = structlog.get_logger()

_RETRY_S = 1.0
T = TypeVar("T")


class Recorder(Protocol):
    """Records results; each call returns when the result cannot be lost any more."""

    @property
    def is_waiting(self) -> bool:
        """Whether results wait because the store cannot be written: then no job should begin."""
        ...

    def give_up(self) -> None:
        """Stop waiting: from now on a result that cannot be written raises StoreError."""
        ...

    async def record(self, result: Result) -> None:
        """Record one result and the stat that has to be posted of it."""
        ...

    async def add_evidence(self, job_id: str, item: EvidenceItem) -> bool:
        """Add evidence that came too late for a result; return True if the result was found."""
        ...


async def add_late_evidence(recorder: Recorder, gateway: JobPeer, job_id: str, item: EvidenceItem) -> bool:
    """Add evidence that came after a job was judged, and let the gateway's trust know of a refutation.

    Returns True if it changed a recorded result.
    """
    is_found = await recorder.add_evidence(job_id, item)
    if is_found and item.kind is AttributionKind.REFUTED:
        gateway.trust.count(AttributionKind.REFUTED)
    return is_found


@dataclass(frozen=True, slots=True)
class PostingRules:
    """What is posted: nothing without a region; `evidence_wait_s` by gateway is how long its events are waited for."""

    region: str = ""
    post: bool = False
    unscored: bool = False
    suspect: bool = False
    evidence_wait_s: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: Settings, *, is_posting: bool) -> Self:
        """Return the rules of a configuration; nothing is posted where `is_posting` is False."""
        return cls(
            region=settings.region,
            post=is_posting,
            unscored=settings.leaderboard.post_unscored,
            suspect=settings.leaderboard.post_suspect,
            evidence_wait_s={table.name: table.evidence_wait for table in settings.gateways if table.events},
        )


@dataclass(slots=True)
class ResultRecorder:
    """Records one tick's results; while the store cannot be written they wait and are tried again."""

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
        """Whether results wait because the store cannot be written now."""
        return bool(self._waiting)

    def give_up(self) -> None:
        """Stop waiting: from now on a result that cannot be written raises StoreError."""
        self._given_up.set()

    async def record(self, result: Result) -> None:
        """Record a result and its stat in one transaction. Raises StoreError only after give_up()."""
        detector = self._detectors.setdefault(result.gateway, SuspectDetector())
        is_passed, was_holding = result.verdict.outcome is Outcome.PASSED, detector.should_hold
        is_first_pass = is_passed and detector.passed == 0
        detector.add_result(result)
        stat = self._stat(result)
        is_held = stat is not None and detector.should_hold and not is_passed
        wait_s = self.posting.evidence_wait_s.get(result.gateway, 0.0)
        # Evidence that refutes a result may come shortly after it: the stat of such a gateway is not posted before.
        not_before = self.clock() + wait_s if wait_s else 0.0
        state: Literal["held", "pending"] = "held" if is_held else "pending"
        await self._write_with_retry(partial(self.results.record, result, stat, state=state, not_before=not_before))
        _log_job(result)
        if is_first_pass:  # the path works now; it did not when an earlier tick held its failures back
            await self._write_with_retry(partial(self.results.unscore_suspects, result.gateway))
        if was_holding and not detector.should_hold:
            await self._write_with_retry(partial(self.results.release_held, self.tick, result.gateway))
        if stat is not None and not is_held:
            self.on_recorded()

    async def add_evidence(self, job_id: str, item: EvidenceItem) -> bool:
        """Add evidence that came too late for a result; return True if the result was found."""
        kind = item.kind or AttributionKind.PRESUMED
        is_found = await self._write_with_retry(partial(self.results.add_evidence, job_id, kind, item.line))
        if is_found and kind is AttributionKind.REFUTED:
            log.error("attribution_refuted", tick=self.tick, job=job_id, evidence=item.line)
        return is_found

    async def finish(self) -> bool:
        """Release or hold back what waits at the tick's end; return True if some of it is suspect."""
        is_suspect = False
        for gateway, detector in self._detectors.items():
            if detector.is_suspect and not self.posting.suspect:
                is_suspect = True
                await self._write_with_retry(partial(self.results.suspect_held, self.tick, gateway))
                log.error(
                    "tick_suspect",
                    tick=self.tick,
                    gateway=gateway,
                    jobs=detector.jobs,
                    passed=detector.passed,
                    reason=next(iter(detector.reasons)),
                    problem="nearly all failed alike, so nothing of it is posted; if true: jobtester tick release",
                )
            else:
                await self._write_with_retry(partial(self.results.release_held, self.tick, gateway))
        self.on_recorded()
        return is_suspect

    async def _write_with_retry(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write until it succeeds, and return what was written. Raises StoreError only after give_up()."""
        try:
            while True:
                try:
                    written = await write()
                except StoreError as error:
                    if self._given_up.is_set():
                        raise
                    if not self._waiting:
                        log.error("store_write_blocked", tick=self.tick, problem=str(error))
                    self._waiting.add(write)
                else:
                    if write in self._waiting and len(self._waiting) == 1:
                        log.info("store_write_recovered", tick=self.tick)
                    return written
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._given_up.wait(), _RETRY_S)
        finally:
            self._waiting.discard(write)

    def _stat(self, result: Result) -> Stat | None:
        if not self.posting.post or not (result.verdict.scored or self.posting.unscored):
            return None
        try:
            return Stat.from_result(result, self.posting.region)
        except UnpostableError as error:
            log.error("stat_unpostable", tick=self.tick, job=result.id, problem=str(error))
            return None


def _log_job(result: Result) -> None:
    """Log the one canonical line of a job."""
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
