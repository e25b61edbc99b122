"""Collect and weigh what a gateway's metrics, events and headers show about who served a job."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Exchange
from jobtester.domain.jobs import Job, PipelineModel
from jobtester.domain.orchestrators import Orchestrator, Target
from jobtester.gateway.gateway_events import EventLog, JobCompletedEvent
from jobtester.gateway.gateway_metrics import MetricsReader, MetricsReading, OrchestratorLabels, SeriesChange
from jobtester.gateway.orchestrator_index import OrchestratorIndex, proves, refutes

_MIN_TRACES_TO_PRUNE = 64
# A job that the tester hung up on is counted by the gateway only when the orchestrator ends it or is given up.
_LATE_CHANGE_S = 30.0
_EVENT_RETENTION_S = 120.0  # how long a trace is held for events that are still to come
_NO_ORCHESTRATOR = OrchestratorLabels("", "")
# A gateway reports this whenever its tries run out, for whatever reason.
_MEANINGLESS_ERROR = "no orchestrators available"


@dataclass(slots=True)
class JobTrace:
    """One job on one gateway, from its sending to its response; monotonic seconds, but `ended_at` is Unix seconds.

    `ended_monotonic` is None while the job is in flight. `is_weighed` is True once its evidence has been collected, and
    `is_recorded` once its result is stored; `late_items` came in between the two.
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

    def may_change_series_after(self, moment: float) -> bool:
        """Return True if the gateway may have counted this job at or after `moment`, in monotonic seconds."""
        if self.ended_monotonic is None:
            return True
        return self.ended_monotonic + (_LATE_CHANGE_S if self.gateway_may_continue else 0.0) >= moment


@dataclass(frozen=True, slots=True)
class EvidenceItem:
    """One piece of evidence: a kind with its line, or a line alone.

    `cause` is an error that the HTTP response hides, empty for none.
    """

    kind: AttributionKind | None
    line: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class CollectedEvidence:
    """All evidence on one job, and whether the gateway restarted while the job was in flight."""

    items: tuple[EvidenceItem, ...] = ()
    gateway_restarted: bool = False

    @property
    def cause(self) -> str:
        """Return the first cause that an item has, empty if none has one."""
        return next((item.cause for item in self.items if item.cause), "")

    @property
    def is_proof(self) -> bool:
        """Return True if an item proves that the target served the job."""
        return any(item.kind is AttributionKind.PROVEN for item in self.items)

    def apply_to(self, attribution: Attribution) -> Attribution:
        """Return an attribution with every item added."""
        for item in self.items:
            attribution = attribution.with_evidence(item.kind or attribution.kind, item.line)
        return attribution


@dataclass(slots=True)
class EvidenceCollector:
    """Collects the evidence on one gateway's jobs.

    A metric or an event never names the tester's job, so evidence is weighed against all jobs of the same pipeline and
    model that were in flight beside it. That is why every job has a trace, which is pruned only once no other job and
    no event can refer to it.
    """

    gateway: str
    metrics: MetricsReader | None
    events: EventLog | None
    index: OrchestratorIndex = field(default_factory=lambda: OrchestratorIndex(()))
    _traces: defaultdict[PipelineModel, list[JobTrace]] = field(default_factory=lambda: defaultdict(list))
    _in_flight: Counter[PipelineModel] = field(default_factory=Counter)
    _last_end: dict[PipelineModel, float] = field(default_factory=dict)
    _prune_at: defaultdict[PipelineModel, int] = field(
        default_factory=lambda: defaultdict(lambda: _MIN_TRACES_TO_PRUNE)
    )

    async def begin_tick(self, orchestrators: Iterable[Orchestrator]) -> None:
        """Forget earlier jobs, index the orchestrators of this tick, and read the metrics before anything is sent."""
        self.index = OrchestratorIndex(orchestrators)
        self._traces.clear()
        self._in_flight.clear()
        self._last_end.clear()
        self._prune_at.clear()
        if self.metrics is not None:
            await self.metrics.read_after(time.monotonic())

    @property
    def is_available(self) -> bool:
        """Return True if a source that can prove something is readable."""
        readable = self.metrics is not None and self.metrics.latest is not None and not self.metrics.problem
        return readable or self.events is not None

    def on_sent(self, job: Job, now: float) -> JobTrace:
        """Record that a job leaves at `now`, in monotonic seconds, with the newest reading before it."""
        trace = JobTrace(job, now, self.metrics.latest if self.metrics is not None else None)
        if len(self._traces[job.pipeline_model]) >= self._prune_at[job.pipeline_model]:
            self._prune(job.pipeline_model)
        self._traces[job.pipeline_model].append(trace)
        self._in_flight[job.pipeline_model] += 1
        return trace

    def on_ended(self, trace: JobTrace, exchange: Exchange) -> None:
        """Record that a job has its response."""
        pipeline_model = trace.job.pipeline_model
        self._in_flight[pipeline_model] -= 1
        last_end = self._last_end.get(pipeline_model, exchange.ended_monotonic)
        self._last_end[pipeline_model] = max(exchange.ended_monotonic, last_end)
        trace.ended_monotonic = exchange.ended_monotonic
        trace.gateway_may_continue = exchange.gateway_may_continue
        trace.round_trip_s = exchange.round_trip_s
        trace.ended_at = exchange.started_at + exchange.round_trip_s

    def forget(self, trace: JobTrace) -> None:
        """Remove a job whose request ended in an error of the tester's own."""
        self._in_flight[trace.job.pipeline_model] -= 1
        self._traces[trace.job.pipeline_model].remove(trace)

    def _prune(self, pipeline_model: PipelineModel) -> None:
        """Drop weighed jobs that ended before anything that is still to be weighed began."""
        traces = self._traces[pipeline_model]
        latest = self.metrics.latest if self.metrics is not None else None
        horizon = latest.read_at if latest is not None else 0.0
        for trace in traces:
            if not trace.is_weighed:
                begin = trace.reading_before.read_at if trace.reading_before is not None else trace.sent_monotonic
                horizon = min(horizon, begin)
        events_since = time.time() - _EVENT_RETENTION_S if self.events is not None else float("inf")
        self._traces[pipeline_model] = [
            trace
            for trace in traces
            if not trace.is_weighed or trace.may_change_series_after(horizon) or trace.ended_at >= events_since
        ]
        # Where little could be dropped, waiting until the list has doubled keeps the cost per job constant.
        self._prune_at[pipeline_model] = max(_MIN_TRACES_TO_PRUNE, 2 * len(self._traces[pipeline_model]))

    def is_distinguishable(self, pipeline_model: PipelineModel) -> bool:
        """Return True if a job of this pipeline and model, sent now, could be told apart from every other.

        It could if no other is in flight, and the metrics have been read since the last one ended: otherwise the next
        reading shows the changes of both.
        """
        last_read = float("inf")
        if self.metrics is not None and self.metrics.latest is not None and not self.metrics.problem:
            last_read = self.metrics.latest.read_at
        return not self._in_flight[pipeline_model] and self._last_end.get(pipeline_model, float("-inf")) <= last_read

    async def collect(self, trace: JobTrace, exchange: Exchange) -> CollectedEvidence:
        """Collect what metrics and headers show of a job that has ended; waits for one reading at most."""
        items: list[EvidenceItem] = []
        restarted = False
        before = trace.reading_before
        if self.metrics is not None and before is not None:
            after = await self.metrics.read_after(exchange.ended_monotonic)
            if after is not None:
                # Unix time of the start, which a gateway computes at each reading: it may differ by some milliseconds.
                restarted = bool(
                    after.gateway_started_at
                    and before.gateway_started_at
                    and abs(after.gateway_started_at - before.gateway_started_at) > 1
                )
                # A restart resets every series, so nothing that changed across it is evidence.
                if not restarted:
                    change = self.metrics.history.changes_since(before, trace.job.pipeline_model)
                    items += self._weigh_metrics(trace, change, passed=exchange.gateway_reports_success)
        header = exchange.headers.get("x-orchestrator-url", "")
        if trace.job.capability.byoc and header:
            meant = self.index.find(header, "")
            items.append(_weigh_name(meant, trace.job.target, f"X-Orchestrator-Url says {header}"))
        return CollectedEvidence(tuple(items), restarted)

    async def add_events(self, trace: JobTrace, collected: CollectedEvidence, *, wait: bool) -> CollectedEvidence:
        """Return the collected evidence with what events show of a job.

        `wait` means that an event that is still to come would change how the job is judged. From now on an event about
        this job is late.
        """
        if self.events is not None:
            events = await self.events.find(
                trace.job.pipeline_model,
                trace.ended_at,
                trace.round_trip_s,
                byoc=trace.job.capability.byoc,
                wait=wait,
            )
            if len(events) == 1 and self._find_trace(events[0]) is trace:
                collected = replace(
                    collected, items=(*collected.items, *_weigh_event(events[0], trace.job.target, self.index))
                )
        trace.is_weighed = True
        return collected

    def on_recorded(self, trace: JobTrace) -> list[EvidenceItem]:
        """Record that a job's result is stored; return the evidence that came since it was weighed."""
        trace.is_recorded, late_items = True, trace.late_items
        trace.late_items = []
        return late_items

    def weigh_late_event(self, event: JobCompletedEvent, *, window_s: float = 60.0) -> tuple[str, EvidenceItem] | None:
        """Weigh an event that has just arrived.

        Return the id of the stored result that it is about, and what it shows; None where it is about no single job, or
        more than `window_s` seconds late, or shows nothing. While a job's result is not stored yet, its late evidence
        waits for on_recorded().
        """
        trace = self._find_trace(event)
        # A job that is not weighed yet will be weighed with this event, which is in the log by now.
        if trace is None or not trace.is_weighed or event.arrived_at - trace.ended_at >= window_s:
            return None
        trace.late_items += _weigh_event(event, trace.job.target, self.index)
        if not trace.is_recorded or not trace.late_items:
            return None
        return trace.job.id, trace.late_items.pop()

    def _weigh_metrics(self, trace: JobTrace, change: SeriesChange, *, passed: bool) -> list[EvidenceItem]:
        """Weigh what changed in the metrics since the reading before a job."""
        # A job that passed changes the success series of its server: the gateway rewrites that gauge each time. A job
        # that failed changes an error series with the orchestrator's labels only if the connection between gateway and
        # orchestrator broke. The line without labels is written whenever the tries run out, so it shows nothing.
        changed = (change.passed if passed else frozenset(change.failed)) - {_NO_ORCHESTRATOR}
        if not changed:
            return []
        target = trace.job.target
        meanings = {labels: self.index.find(labels.uri, labels.address) for labels in changed}
        own = [labels for labels, meant in meanings.items() if proves(meant, target)]
        assert trace.reading_before is not None
        others = self._targets_beside(trace, trace.reading_before.read_at)
        what = "success" if passed else "error"
        if own:
            codes = [] if passed else [code for labels in own for code in change.failed[labels] if code]
            cause = "; ".join(dict.fromkeys(codes))
            # If the target's series alone changed, the target served the job. For errors that holds only with no other
            # job beside it: another job at the same target may have failed there, while this one never got so far.
            if len(own) == len(changed) and (passed or not others):
                line = f"metric: the {what} series of {own[0].uri} moved, and no other"
                return [EvidenceItem(AttributionKind.PROVEN, line, cause)]
            return [EvidenceItem(None, f"metric: the {what} series of {own[0].uri} moved, among others", cause)]
        # The target's series did not change. Where every series that did belongs to another orchestrator, and no other
        # job in flight accounts for one of them, that orchestrator served this job.
        foreign = [labels for labels, meant in meanings.items() if refutes(meant, target)]
        if len(foreign) < len(changed):
            return []
        for labels in foreign:
            if not meanings[labels] & others:
                line = f"metric: the {what} series of {labels.uri} {labels.address} moved instead"
                return [EvidenceItem(AttributionKind.REFUTED, line)]
        if not passed:
            return []
        # Other jobs account for all changes, so who served this one is open. A gauge that is rewritten with its old
        # value does not show; but of jobs side by side, one with nothing to show may as well have been taken by the
        # other's orchestrator. Only a job that was alone for certain keeps what targeting presumed.
        line = "metric: success series of others moved, this orchestrator's did not"
        return [EvidenceItem(None if self._was_alone(trace) else AttributionKind.MISSING, line)]

    def _targets_beside(self, trace: JobTrace, since: float) -> set[Target]:
        """Return the targets of other jobs of the pipeline and model that were in flight since a reading began."""
        return {
            other.job.target
            for other in self._traces[trace.job.pipeline_model]
            if other is not trace and other.may_change_series_after(since)
        }

    def _was_alone(self, trace: JobTrace) -> bool:
        """Return True if no other job of the pipeline and model was in flight together with this one."""
        end = trace.ended_monotonic if trace.ended_monotonic is not None else float("inf")
        return not any(
            other is not trace
            and other.sent_monotonic <= end
            and (other.ended_monotonic is None or other.ended_monotonic >= trace.sent_monotonic)
            for other in self._traces[trace.job.pipeline_model]
        )

    def _find_trace(self, event: JobCompletedEvent) -> JobTrace | None:
        """Return the one ended job that an event may be about; None if it fits none, or more than one."""
        if self.events is None:
            return None
        groups = [self._traces.get(event.pipeline_model, [])]
        if event.byoc:  # it carries no model, so it may be about a job of any model of its capability
            pipeline = event.pipeline_model.pipeline
            groups = [traces for key, traces in self._traces.items() if key.pipeline == pipeline]
        candidates = [
            trace
            for trace in chain.from_iterable(groups)
            if trace.ended_monotonic is not None
            and self.events.matches(
                event, trace.job.pipeline_model, trace.ended_at, trace.round_trip_s, byoc=trace.job.capability.byoc
            )
        ]
        return candidates[0] if len(candidates) == 1 else None


def _weigh_event(event: JobCompletedEvent, target: Target, index: OrchestratorIndex) -> list[EvidenceItem]:
    """Weigh an event that is certainly about a job of this target."""
    cause = "" if event.is_success or _MEANINGLESS_ERROR in event.error.lower() else event.error
    if event.service_uri or event.address:
        meant = index.find(event.service_uri, event.address)
        return [_weigh_name(meant, target, f"event: served by {event.service_uri}", cause)]
    return [EvidenceItem(None, f"event: {cause}", cause)] if cause else []


def _weigh_name(meant: frozenset[Target], target: Target, line: str, cause: str = "") -> EvidenceItem:
    """Weigh the name of an orchestrator that served a job, by which targets it may mean."""
    if proves(meant, target):
        return EvidenceItem(AttributionKind.PROVEN, line, cause)
    if refutes(meant, target):
        return EvidenceItem(AttributionKind.REFUTED, f"{line}, which is another orchestrator", cause)
    return EvidenceItem(None, f"{line}, which names no known orchestrator for certain", cause)
