"""Evidence: what the gateway's metrics, events and headers say about who served a job."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Exchange
from jobtester.domain.jobs import Job, PipelineModel
from jobtester.domain.orchestrators import Orchestrator, Target
from jobtester.gateway.gateway_events import EventLog, JobCompletedEvent
from jobtester.gateway.gateway_metrics import MetricsReader, MetricsReading, OrchestratorLabels, SeriesChange
from jobtester.gateway.orchestrator_index import OrchestratorIndex, proves, refutes

_FORGET_FROM = 64
_LINGERS_S = 30.0
_EVENTS_S = 120.0
_NOBODY = OrchestratorLabels("", "")  # whom the gateway names where its tries ran out, for whatever reason


@dataclass(slots=True)
class JobTrace:
    """One job on one gateway, from its sending to its answer; monotonic seconds, `ended` None while in the air.

    `ended_at` is Unix seconds. `weighed` once its evidence has been gathered, `recorded` once its result is kept; what
    comes between the two is `owed` to the result.
    """

    job: Job
    sent_monotonic: float
    reading_before: MetricsReading | None
    ended_monotonic: float | None = None
    ended_at: float = 0.0
    round_trip_s: float = 0.0
    is_weighed: bool = False
    is_recorded: bool = False
    gateway_may_continue: bool = False
    late_items: list[EvidenceItem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EvidenceItem:
    """What evidence adds: a kind with its line, or a line alone; `cause` is what the HTTP answer hides."""

    kind: AttributionKind | None
    line: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class CollectedEvidence:
    """All testimonies on one job, and whether the gateway was seen to have restarted under it."""

    items: tuple[EvidenceItem, ...] = ()
    gateway_restarted: bool = False

    @property
    def cause(self) -> str:
        """Give the first cause that a testimony knows."""
        return next((one.cause for one in self.items if one.cause), "")

    @property
    def is_proof(self) -> bool:
        """Tell whether a testimony proves who served the job."""
        return any(one.kind is AttributionKind.PROVEN for one in self.items)

    def apply_to(self, attribution: Attribution) -> Attribution:
        """Add every testimony to what is known already."""
        for one in self.items:
            attribution = attribution.with_evidence(one.kind or attribution.kind, one.line)
        return attribution


@dataclass(slots=True)
class EvidenceCollector:
    """Collects and weighs what can be known of one gateway's jobs."""

    gateway: str
    metrics: MetricsReader | None
    events: EventLog | None
    index: OrchestratorIndex = field(default_factory=lambda: OrchestratorIndex(()))
    _traces: defaultdict[PipelineModel, list[JobTrace]] = field(default_factory=lambda: defaultdict(list))
    _in_flight: Counter[PipelineModel] = field(default_factory=Counter)
    _last_end: dict[PipelineModel, float] = field(default_factory=dict)
    _forget_at: defaultdict[PipelineModel, int] = field(default_factory=lambda: defaultdict(lambda: _FORGET_FROM))

    async def begin_tick(self, orchestrators: Iterable[Orchestrator]) -> None:
        """Start a tick: who may be named, and how the metrics stand before anything is sent."""
        self.index = OrchestratorIndex(orchestrators)
        self._traces.clear()
        self._in_flight.clear()
        self._last_end.clear()
        self._forget_at.clear()
        if self.metrics is not None:
            await self.metrics.read_after(time.monotonic())

    @property
    def is_available(self) -> bool:
        """Tell whether there is a source at all that could prove something."""
        readable = self.metrics is not None and self.metrics.latest is not None and not self.metrics.problem
        return readable or self.events is not None

    def on_sent(self, job: Job, now: float) -> JobTrace:
        """Note that a job leaves, with the newest reading before it."""
        life = JobTrace(job, now, self.metrics.latest if self.metrics is not None else None)
        self._forget_weighed(job.pipeline_model)
        self._traces[job.pipeline_model].append(life)
        self._in_flight[job.pipeline_model] += 1
        return life

    def on_ended(self, life: JobTrace, exchange: Exchange) -> None:
        """Note that a job has its answer."""
        pair = life.job.pipeline_model
        self._in_flight[pair] -= 1
        self._last_end[pair] = max(exchange.ended_monotonic, self._last_end.get(pair, exchange.ended_monotonic))
        life.ended_monotonic = exchange.ended_monotonic
        life.gateway_may_continue = exchange.gateway_may_continue
        life.round_trip_s = exchange.round_trip_s
        life.ended_at = exchange.started_at + exchange.round_trip_s

    def forget(self, life: JobTrace) -> None:
        """Forget a job whose request ended in an error of the tester's own."""
        self._in_flight[life.job.pipeline_model] -= 1
        self._traces[life.job.pipeline_model].remove(life)

    def _forget_weighed(self, pair: PipelineModel) -> None:
        """Let go of jobs that were weighed and ended before anything that is still to be weighed began."""
        lives = self._traces[pair]
        if len(lives) < self._forget_at[pair]:
            return
        latest = self.metrics.latest.read_at if self.metrics is not None and self.metrics.latest is not None else 0.0
        begun = [
            one.reading_before.read_at if one.reading_before is not None else one.sent_monotonic
            for one in lives
            if not one.is_weighed
        ]
        horizon = min([latest, *begun])
        events_since = time.time() - _EVENTS_S if self.events is not None else float("inf")
        self._traces[pair] = [
            one
            for one in lives
            if not one.is_weighed
            or one.ended_monotonic is None
            or _moves_until(one) >= horizon
            or one.ended_at >= events_since
        ]
        self._forget_at[pair] = max(_FORGET_FROM, 2 * len(self._traces[pair]))

    def is_distinguishable(self, pair: PipelineModel) -> bool:
        """Tell whether a job of this pair, sent now, could be told apart from every other."""
        since = float("inf")
        if self.metrics is not None and self.metrics.latest is not None and not self.metrics.problem:
            since = self.metrics.latest.read_at
        return not self._in_flight[pair] and self._last_end.get(pair, float("-inf")) <= since

    async def collect(self, life: JobTrace, exchange: Exchange) -> CollectedEvidence:
        """Collect what metrics and headers say of a job that has been answered; waits for one reading at most."""
        found: list[EvidenceItem] = []
        restarted = False
        if self.metrics is not None and life.reading_before is not None:
            after = await self.metrics.read_after(exchange.ended_monotonic)
            if after is not None:
                restarted = bool(
                    after.gateway_started_at
                    and life.reading_before.gateway_started_at
                    and abs(after.gateway_started_at - life.reading_before.gateway_started_at) > 1
                )
                if not restarted:
                    moved = self.metrics.history.changes_since(life.reading_before, life.job.pipeline_model)
                    found += self._from_metrics(life, exchange, moved, life.reading_before.read_at)
        header = exchange.headers.get("x-orchestrator-url", "")
        if life.job.capability.byoc and header:
            found.append(self._item_for_name(life.job.target, header, "", f"X-Orchestrator-Url says {header}"))
        return CollectedEvidence(tuple(found), restarted)

    async def add_events(self, life: JobTrace, gathered: CollectedEvidence, *, wait: bool) -> CollectedEvidence:
        """Add what events say of a job; `wait` says that one that is still to come would change what it came to."""
        if self.events is not None:
            byoc = life.job.capability.byoc
            events = await self.events.find(
                life.job.pipeline_model, life.ended_at, life.round_trip_s, byoc=byoc, wait=wait
            )
            if len(events) == 1:
                gathered = replace(gathered, items=(*gathered.items, *self._from_event(life, events[0])))
        life.is_weighed = True
        return gathered

    def on_recorded(self, life: JobTrace) -> list[EvidenceItem]:
        """Note that a job's result is kept; give what has come since its evidence was weighed."""
        life.is_recorded, owed = True, life.late_items
        life.late_items = []
        return owed

    def weigh_late_event(self, event: JobCompletedEvent, *, window_s: float = 60.0) -> tuple[str, EvidenceItem] | None:
        """Weigh an event that has just come: give the id of the one kept result it is about, and what it says.

        What is about a job whose result is not kept yet waits for that.
        """
        if self.events is None:
            return None
        lives = (
            [
                life
                for pair, lives in self._traces.items()
                if pair.pipeline == event.pipeline_model.pipeline
                for life in lives
            ]
            if event.byoc
            else self._traces.get(event.pipeline_model, [])
        )
        fitting = [
            life
            for life in lives
            if life.ended_monotonic is not None
            and event.arrived_at - life.ended_at < window_s
            and self.events.matches(
                event, life.job.pipeline_model, life.ended_at, life.round_trip_s, byoc=life.job.capability.byoc
            )
        ]
        if len(fitting) != 1 or not fitting[0].is_weighed:  # what is not weighed yet will be, with this
            return None
        life, testimonies = fitting[0], self._from_event(fitting[0], event)
        if not life.is_recorded:
            life.late_items += testimonies
            return None
        return (life.job.id, testimonies[0]) if testimonies else None

    def _from_metrics(
        self, life: JobTrace, exchange: Exchange, moved: SeriesChange, since: float
    ) -> list[EvidenceItem]:
        """Weigh what moved in the metrics since the reading before the job, which began at `since`.

        A job that passed made its server's series move. One that failed moved an error series only if the connection
        between gateway and orchestrator broke; a line without an orchestrator is written whenever the tries run out,
        and proves nothing. So if ours alone moved, it was ours; if ours did not move and somebody else's did, it was
        not.
        """
        passed = exchange.gateway_reports_success
        names = (moved.passed if passed else frozenset(moved.failed)) - {_NOBODY}
        target = life.job.target
        means = {name: self.index.find(name.uri, name.address) for name in names}
        ours = [name for name, meant in means.items() if proves(meant, target)]
        cause = "" if passed else "; ".join(dict.fromkeys(code for name in ours for code in moved.failed[name] if code))
        what = "success" if passed else "error"
        if ours and len(ours) == len(names) and (passed or not self._targets_beside(life, since)):
            return [
                EvidenceItem(
                    AttributionKind.PROVEN, f"metric: the {what} series of {ours[0].uri} moved, and no other", cause
                )
            ]
        if ours:
            return [EvidenceItem(None, f"metric: the {what} series of {ours[0].uri} moved, among others", cause)]
        foreign = [name for name, meant in means.items() if refutes(meant, target)]
        others = self._targets_beside(life, since)
        unexplained = [name for name in foreign if not means[name] & others]
        if unexplained and len(foreign) == len(names):
            name = unexplained[0]
            return [
                EvidenceItem(
                    AttributionKind.REFUTED, f"metric: the {what} series of {name.uri} {name.address} moved instead"
                )
            ]
        if passed and foreign and len(foreign) == len(names):
            line = "metric: success series of others moved, this orchestrator's did not"
            return [EvidenceItem(AttributionKind.MISSING if not self._was_alone(life) else None, line)]
        return []

    def _was_alone(self, life: JobTrace) -> bool:
        """Tell whether the job was certainly alone for its pair while in the air, whatever moved before."""
        end = life.ended_monotonic if life.ended_monotonic is not None else float("inf")
        return not any(
            one is not life
            and one.sent_monotonic <= end
            and (one.ended_monotonic is None or one.ended_monotonic >= life.sent_monotonic)
            for one in self._traces[life.job.pipeline_model]
        )

    def _targets_beside(self, life: JobTrace, since: float) -> set[Target]:
        """Give the targets of other jobs of the pair that were in the air since the reading before this job."""
        return {
            one.job.target
            for one in self._traces[life.job.pipeline_model]
            if one is not life and (one.ended_monotonic is None or _moves_until(one) >= since)
        }

    def _from_event(self, life: JobTrace, event: JobCompletedEvent) -> list[EvidenceItem]:
        """Weigh an event that fits this job; it says nothing of who served if it fits another job as well."""
        assert self.events is not None
        rivals = [
            one
            for one in self._traces[life.job.pipeline_model]
            if one is not life
            and one.ended_monotonic is not None
            and self.events.matches(event, one.job.pipeline_model, one.ended_at, one.round_trip_s, byoc=event.byoc)
        ]
        if rivals:
            return []
        cause = "" if event.is_success or _is_meaningless_error(event.error) else event.error
        if not event.service_uri and not event.address:
            return [EvidenceItem(None, f"event: {cause}", cause)] if cause else []
        return [
            self._item_for_name(
                life.job.target, event.service_uri, event.address, f"event: served by {event.service_uri}", cause
            )
        ]

    def _item_for_name(self, target: Target, uri: str, address: str, line: str, cause: str = "") -> EvidenceItem:
        meant = self.index.find(uri, address)
        if proves(meant, target):
            return EvidenceItem(AttributionKind.PROVEN, line, cause)
        if refutes(meant, target):
            return EvidenceItem(AttributionKind.REFUTED, f"{line}, which is another orchestrator", cause)
        return EvidenceItem(None, f"{line}, which is nobody known for certain", cause)


def _moves_until(life: JobTrace) -> float:
    """Return when a job that has ended moves no more series: a gateway counts one that was left behind only later."""
    assert life.ended_monotonic is not None
    return life.ended_monotonic + (_LINGERS_S if life.gateway_may_continue else 0.0)


def _is_meaningless_error(error: str) -> bool:
    """Whether an error is what a gateway writes whenever its tries run out, for whatever reason."""
    return "no orchestrators available" in error.lower()
