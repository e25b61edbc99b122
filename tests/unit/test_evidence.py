"""Evidence proves, refutes, or says nothing; it never guesses."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job, PipelineModel
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.evidence import CollectedEvidence, EvidenceCollector, JobTrace
from jobtester.gateway.gateway_events import EventLog, parse_events
from jobtester.gateway.gateway_metrics import MetricsReader, MetricsSnapshot, OrchestratorLabels, SeriesKey
from jobtester.gateway.orchestrator_index import OrchestratorIndex, proves, refutes

A = Orchestrator("0xaaaa", "https://a.example:8935", local_address="0x1111")
B = Orchestrator("0xbbbb", "https://b.example:8935", local_address="0x2222")
A2 = Orchestrator("0xaaaa", "https://a2.example:8935", local_address="0x1111")
TWIN = Orchestrator("0xcccc", "https://c.example:8935", local_address="0x2222")
PIPELINE_MODEL = PipelineModel("llm", "m")


def job(orchestrator: Orchestrator, name: str = "j") -> Job:
    """Return a job for the pipeline and model."""
    return Job(name, "t", orchestrator, Capability("llm", "m"), "Llm", 10.0, 1.0)


def passed_exchange(sent: float, ended: float) -> Exchange:
    """Return a successful exchange."""
    return Exchange(Ending.ANSWERED, 1.7e9 + sent, sent, ended, 200, b'{"choices": []}')


def failed_exchange(sent: float, ended: float) -> Exchange:
    """Return an exchange that the gateway gave up on."""
    body = b'{"error":{"message":"Service Unavailable Error"}}'
    return Exchange(Ending.ANSWERED, 1.7e9 + sent, sent, ended, 503, body)


@pytest.mark.parametrize(
    ("uri", "address", "proven", "refuted"),
    [
        ("https://A.example:8935/", "", True, False),
        ("a.example:8935", "0x9999", True, False),
        ("https://10.0.0.1:8935", "0x1111", True, False),
        ("https://10.0.0.1:8935", "0xAAAA", True, False),
        ("https://b.example:8935", "0x1111", False, True),
        ("https://10.0.0.1:1", "0x2222", False, True),
        ("https://a2.example:8935", "0x1111", False, False),
        ("https://nobody.example", "0x9999", False, False),
        ("", "", False, False),
    ],
)
def test_names_prove_and_refute_only_when_they_are_sure(uri: str, address: str, proven: bool, refuted: bool) -> None:
    """Host and port outweigh addresses; another node of the same operator neither proves nor refutes."""
    meant = OrchestratorIndex([A, B, A2, TWIN]).find(uri, address)
    assert proves(meant, A.target) == proven
    assert refutes(meant, A.target) == refuted


class EvidenceFromReadings:
    """An evidence collector over readings that the test adds."""

    def __init__(self, *orchestrators: Orchestrator) -> None:
        self.reader = MetricsReader(GatewayClient("g", "http://127.0.0.1:1"))
        self.evidence = EvidenceCollector("g", self.reader, None, OrchestratorIndex(orchestrators or (A, B)))
        self.add_reading(0.0)

    def set_series(self, at: float, **values: tuple[tuple[Orchestrator, float], ...]) -> None:
        """Add a reading in which the success (`ok`) and error (`bad`) series of orchestrators have these values."""
        successes = [(_series(orchestrator, ""), value) for orchestrator, value in values.get("ok", ())]
        errors = [(_series(orchestrator, "cause"), value) for orchestrator, value in values.get("bad", ())]
        self.add_reading(at, *successes, *errors)

    def add_reading(self, at: float, *changed: tuple[SeriesKey, float]) -> None:
        """Add a reading with these changes."""
        self.reader.history.add(MetricsSnapshot(at, changed=changed))


def _series(orchestrator: Orchestrator, code: str) -> SeriesKey:
    labels = OrchestratorLabels(orchestrator.service_uri, orchestrator.local_address)
    return SeriesKey(not code, PIPELINE_MODEL, labels, code)


async def test_only_our_series_moved_proves() -> None:
    """A pass makes its server's series move; if that is ours alone, it was ours."""
    weighing = EvidenceFromReadings()
    trace = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(trace, passed_exchange(1, 2))
    weighing.set_series(3.0, ok=((A, 0.5),))
    collected = await weighing.evidence.collect(trace, passed_exchange(1, 2))
    assert collected.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PROVEN


async def test_only_anothers_series_moved_refutes() -> None:
    """And takes back even what targeting presumed."""
    weighing = EvidenceFromReadings()
    trace = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(trace, passed_exchange(1, 2))
    weighing.set_series(3.0, ok=((B, 0.5),))
    collected = await weighing.evidence.collect(trace, passed_exchange(1, 2))
    assert collected.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.REFUTED


async def test_two_jobs_that_swapped_are_not_proven() -> None:
    """Both series moved while both jobs were in flight: nothing shows which job moved which."""
    weighing = EvidenceFromReadings()
    first, second = weighing.evidence.on_sent(job(A, "1"), 1.0), weighing.evidence.on_sent(job(B, "2"), 1.0)
    for trace in (first, second):
        weighing.evidence.on_ended(trace, passed_exchange(1, 2))
    weighing.set_series(3.0, ok=((A, 0.5), (B, 0.5)))
    for trace in (first, second):
        collected = await weighing.evidence.collect(trace, passed_exchange(1, 2))
        assert collected.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PRESUMED


async def test_a_pass_that_moved_nothing_beside_one_that_did_is_not_credited() -> None:
    """Both jobs were served by A: the one aimed at B has nothing to show, though the metrics work."""
    weighing = EvidenceFromReadings()
    first, second = weighing.evidence.on_sent(job(A, "1"), 1.0), weighing.evidence.on_sent(job(B, "2"), 1.0)
    for trace in (first, second):
        weighing.evidence.on_ended(trace, passed_exchange(1, 2))
    weighing.set_series(3.0, ok=((A, 0.5),))
    collected = await weighing.evidence.collect(second, passed_exchange(1, 2))
    assert collected.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.MISSING


async def test_failures_are_proven_by_errors_and_say_their_cause() -> None:
    """The error counter shows who failed, and why."""
    weighing = EvidenceFromReadings()
    trace = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(trace, failed_exchange(1, 2))
    weighing.set_series(3.0, bad=((A, 1.0),))
    collected = await weighing.evidence.collect(trace, failed_exchange(1, 2))
    assert collected.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PROVEN
    assert collected.cause == "cause"


def set_no_orchestrator(weighing: EvidenceFromReadings, at: float, **more: float) -> None:
    """Add a reading in which the gateway found no orchestrator, and with `a` A failed too."""
    code = "no orchestrators available within 2s timeout"
    changed = [(SeriesKey(False, PIPELINE_MODEL, OrchestratorLabels("", ""), code), 1.0)]
    if more:
        changed.append((_series(A, "dial tcp: i/o timeout"), more["a"]))
    weighing.add_reading(at, *changed)


async def test_a_line_that_names_nobody_says_nothing() -> None:
    """The gateway writes it whenever its tries run out, for whatever reason."""
    weighing = EvidenceFromReadings()
    trace = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(trace, failed_exchange(1, 2))
    set_no_orchestrator(weighing, 3.0)
    collected = await weighing.evidence.collect(trace, failed_exchange(1, 2))
    assert collected.items == ()
    assert collected.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PRESUMED


async def test_that_nobody_was_left_hides_no_failure() -> None:
    """Where ours failed first, the cause is that, and it is proven."""
    weighing = EvidenceFromReadings()
    trace = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(trace, failed_exchange(1, 2))
    set_no_orchestrator(weighing, 3.0, a=1.0)
    collected = await weighing.evidence.collect(trace, failed_exchange(1, 2))
    assert collected.cause == "dial tcp: i/o timeout"
    assert collected.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PROVEN


async def test_of_two_that_failed_the_named_one_alone_has_a_cause() -> None:
    """The line without an orchestrator is about neither for sure."""
    weighing = EvidenceFromReadings()
    first, second = weighing.evidence.on_sent(job(A, "1"), 1.0), weighing.evidence.on_sent(job(B, "2"), 1.0)
    for trace in (first, second):
        weighing.evidence.on_ended(trace, failed_exchange(1, 2))
    set_no_orchestrator(weighing, 3.0, a=1.0)
    assert (await weighing.evidence.collect(first, failed_exchange(1, 2))).cause == "dial tcp: i/o timeout"
    assert (await weighing.evidence.collect(second, failed_exchange(1, 2))).cause == ""


async def test_metrics_that_do_not_move_say_nothing() -> None:
    """A gauge may be rewritten with its old value; that contradicts nothing."""
    weighing = EvidenceFromReadings()
    trace = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(trace, passed_exchange(1, 2))
    weighing.set_series(3.0)
    collected = await weighing.evidence.collect(trace, passed_exchange(1, 2))
    assert collected.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PRESUMED


async def test_jobs_are_distinguishable_only_after_a_reading() -> None:
    """A second job of the pipeline and model can be attributed once the first has ended and has been read."""
    weighing = EvidenceFromReadings()
    assert weighing.evidence.is_distinguishable(PIPELINE_MODEL)
    trace = weighing.evidence.on_sent(job(A), 1.0)
    assert not weighing.evidence.is_distinguishable(PIPELINE_MODEL)
    weighing.evidence.on_ended(trace, passed_exchange(1, 2))
    assert not weighing.evidence.is_distinguishable(PIPELINE_MODEL)
    weighing.set_series(2.5)
    assert weighing.evidence.is_distinguishable(PIPELINE_MODEL)


GENERATIONS = [
    {"id": "1", "type": "ai_batch_request", "timestamp": "2023-11-14T22:13:22Z", "gateway": "g", "payload": {
        "type": "ai_batch_request_completed", "pipeline": "llm", "model_id": "m", "success": False,
        "orch_url": "https://b.example:8935", "duration_ms": 2000, "timestamp": 1700000002000,
        "error_type": "OrchestratorCapped", "error": "insufficient capacity"}},
    {"id": "1", "type": "ai_batch_request", "timestamp": "1700000002000", "gateway": "g", "data": {
        "type": "ai_batch_request_completed", "pipeline": "llm", "model_id": "m", "success": False,
        "orch_url": "https://b.example:8935", "duration_ms": 2000,
        "error_type": "OrchestratorCapped", "error": "insufficient capacity"}},
]  # fmt: skip


@pytest.mark.parametrize("envelope", GENERATIONS)
def test_both_generations_of_envelopes_are_read(envelope: object) -> None:
    """With payload and RFC 3339, or with data and milliseconds as text."""
    (event,) = parse_events([envelope], 1700000002.5)
    assert event.pipeline_model == PIPELINE_MODEL
    assert event.ended_at == 1700000002
    assert event.duration_s == 2
    assert event.service_uri == "https://b.example:8935"
    assert "insufficient capacity" in event.error


@pytest.mark.parametrize(
    "junk", [None, 3, "x", [], [None], [{}], {"payload": 3}, [{"payload": {"type": "ai_batch_request_completed"}}],
             [{"data": [{"type": 3}, None]}], [{"payload": {"type": "job_gateway_completed", "orchestrator_info": 3,
                                                             "timestamp": 1e300, "duration_ms": "x"}}]],
)  # fmt: skip
def test_junk_in_a_batch_does_no_harm(junk: object) -> None:
    """A sink sends what it likes; reading never raises."""
    for event in parse_events(junk, 1.0):
        assert event.arrived_at == 1.0


ANSWERED = Exchange(Ending.ANSWERED, 1700000000.0, 1.0, 3.0, 200, b"{...............}")


class EvidenceFromEvents:
    """An evidence collector with events only, an ended job, and the event that is about it."""

    def __init__(self) -> None:
        self.log = EventLog()
        self.evidence = EvidenceCollector("g", None, self.log, OrchestratorIndex([A, B]))
        self.trace = self.add_ended(job(A))
        (self.event,) = parse_events([GENERATIONS[0]], 1700000002.5)

    def add_ended(self, job: Job) -> JobTrace:
        """Send and end a job."""
        trace = self.evidence.on_sent(job, 1.0)
        self.evidence.on_ended(trace, ANSWERED)
        return trace

    def deliver_event(self) -> tuple[str, AttributionKind | None] | None:
        """Deliver the event; return whose stored result it is about, and what it says."""
        self.log.add(self.event)
        late = self.evidence.weigh_late_event(self.event)
        return (late[0], late[1].kind) if late is not None else None


async def test_a_late_event_names_the_one_job_it_fits() -> None:
    """By pipeline, model, end and duration; two jobs that fit are one too many."""
    setting = EvidenceFromEvents()
    assert (await setting.evidence.add_events(setting.trace, CollectedEvidence(), wait=False)).items == ()
    assert setting.evidence.on_recorded(setting.trace) == []
    assert setting.deliver_event() == ("j", AttributionKind.REFUTED)
    setting.add_ended(job(B, "k"))
    assert setting.evidence.weigh_late_event(setting.event) is None


async def test_an_event_that_comes_before_its_job_is_weighed_is_weighed_with_it() -> None:
    """Once, and not a second time as a late one."""
    setting = EvidenceFromEvents()
    assert setting.deliver_event() is None
    (item,) = (await setting.evidence.add_events(setting.trace, CollectedEvidence(), wait=False)).items
    assert item.kind is AttributionKind.REFUTED
    assert setting.evidence.on_recorded(setting.trace) == []


async def test_an_event_that_comes_before_its_result_is_stored_waits_for_it() -> None:
    """Looking at an answer takes a while: what the gateway says meanwhile must not be lost."""
    setting = EvidenceFromEvents()
    await setting.evidence.add_events(setting.trace, CollectedEvidence(), wait=False)
    assert setting.deliver_event() is None
    (item,) = setting.evidence.on_recorded(setting.trace)
    assert item.kind is AttributionKind.REFUTED


async def test_an_event_that_would_change_something_is_waited_for() -> None:
    """It comes a little later than the answer, since the gateway collects what it sends."""
    setting = EvidenceFromEvents()
    setting.log.patience_s = 30.0
    collecting = asyncio.ensure_future(setting.evidence.add_events(setting.trace, CollectedEvidence(), wait=True))
    await asyncio.sleep(0)
    assert setting.deliver_event() is None
    (item,) = (await collecting).items
    assert item.kind is AttributionKind.REFUTED


def test_an_event_is_matched_whatever_the_gateways_clock_says() -> None:
    """The smallest delay seen is taken for the difference of the clocks; then end and duration have to fit."""
    log = EventLog()
    (event,) = parse_events([GENERATIONS[0]], 1700000002.5)
    behind = replace(event, ended_at=event.ended_at - 3600)
    assert not log.matches(behind, PIPELINE_MODEL, 1700000002, 2.0, byoc=False)
    log.add(behind)
    assert log.matches(behind, PIPELINE_MODEL, 1700000002, 2.0, byoc=False)
    assert not log.matches(behind, PIPELINE_MODEL, 1700000005, 2.0, byoc=False)
    assert not log.matches(behind, PIPELINE_MODEL, 1700000002, 9.0, byoc=False)
    assert not log.matches(behind, PipelineModel("llm", "other"), 1700000002, 2.0, byoc=False)
    assert not log.matches(behind, PIPELINE_MODEL, 1700000002, 2.0, byoc=True)
