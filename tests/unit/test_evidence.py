"""Evidence proves, refutes, or says nothing; it never guesses."""

from __future__ import annotations

import asyncio

import pytest

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job, PipelineModel
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.evidence import CollectedEvidence, EvidenceCollector, JobTrace
from jobtester.gateway.gateway_events import EventLog, parse_events
from jobtester.gateway.gateway_metrics import (
    MetricsReader,
    MetricsSnapshot,
    OrchestratorLabels,
    SeriesChange,
    SeriesHistory,
    SeriesKey,
    parse_metrics,
)
from jobtester.gateway.orchestrator_index import OrchestratorIndex, proves, refutes

A = Orchestrator("0xaaaa", "https://a.example:8935", local_address="0x1111")
B = Orchestrator("0xbbbb", "https://b.example:8935", local_address="0x2222")
A2 = Orchestrator("0xaaaa", "https://a2.example:8935", local_address="0x1111")
TWIN = Orchestrator("0xcccc", "https://c.example:8935", local_address="0x2222")
PAIR = PipelineModel("llm", "m")


def job(one: Orchestrator, name: str = "j") -> Job:
    """Make a job for the pair."""
    return Job(name, "t", one, Capability("llm", "m"), "Llm", 10.0, 1.0)


def passed_exchange(sent: float, ended: float) -> Exchange:
    """Make a successful exchange."""
    return Exchange(Ending.ANSWERED, 1.7e9 + sent, sent, ended, 200, b'{"choices": []}')


def failed_exchange(sent: float, ended: float) -> Exchange:
    """Make an exchange that the gateway gave up on."""
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


def test_metrics_text_is_read_with_its_escapes() -> None:
    """Unrelated and broken lines are passed over."""
    text = (
        "# HELP x y\n"
        'livepeer_ai_request_latency_score{model_name="a \\"q\\" \\\\ b",orchestrator_address="0x1",'
        'orchestrator_uri="https://a",pipeline="llm"} 0.25\n'
        'livepeer_ai_request_errors{error_code="OrchestratorCapped",model_name="m",orchestrator_uri="u",'
        'pipeline="llm"} 3\n'
        "livepeer_ai_request_latency_score{broken\nlivepeer_ai_request_latency_score{} NaN-ish\n"
        "process_start_time_seconds 1.7e+09\n"
    )
    found = parse_metrics(text.encode(), 5.0)
    assert set(found.changed) == {
        (SeriesKey(True, PipelineModel("llm", 'a "q" \\ b'), OrchestratorLabels("https://a", "0x1"), ""), 0.25),
        (SeriesKey(False, PipelineModel("llm", "m"), OrchestratorLabels("u", ""), "OrchestratorCapped"), 3.0),
    }
    assert found.gateway_started_at == 1.7e9


def test_only_what_is_new_in_a_reading_is_fresh() -> None:
    """A series that says the same as before is not looked at again, whatever stands around it."""
    text = 'livepeer_ai_request_latency_score{{pipeline="llm"}} {}\nprocess_start_time_seconds 1.7e+09'
    first = parse_metrics(text.format("0.25").encode(), 1.0)
    again = parse_metrics(text.format("0.25").encode() + b"\n", 2.0, first.lines)
    moved = parse_metrics(text.format("0.5").encode(), 3.0, again.lines)
    assert [len(one.changed) for one in (first, again, moved)] == [1, 0, 1]
    assert again.gateway_started_at == moved.gateway_started_at == 1.7e9


def test_what_moved_since_a_reading_is_what_moved_after_it() -> None:
    """Gauges move to any other value, running sums only up; what stood at the first reading did not move."""
    ledger, pair = SeriesHistory(), PipelineModel("llm", "m")
    gauge, total = (
        SeriesKey(True, pair, OrchestratorLabels("a", ""), ""),
        SeriesKey(False, pair, OrchestratorLabels("b", ""), "cause"),
    )
    first = ledger.add(MetricsSnapshot(1.0, changed=((gauge, 0.5), (total, 3.0))))
    assert ledger.changes_since(first, pair) == SeriesChange(frozenset(), {})
    second = ledger.add(MetricsSnapshot(2.0, changed=((gauge, 0.4), (total, 2.0))))
    assert ledger.changes_since(first, pair) == SeriesChange(frozenset({gauge.orchestrator}), {})
    ledger.add(MetricsSnapshot(3.0, changed=((total, 3.0),)))
    assert ledger.changes_since(first, pair) == SeriesChange(
        frozenset({gauge.orchestrator}), {total.orchestrator: ("cause",)}
    )
    assert ledger.changes_since(second, pair) == SeriesChange(frozenset(), {total.orchestrator: ("cause",)})
    assert ledger.changes_since(first, PipelineModel("llm", "other")) == SeriesChange(frozenset(), {})


class EvidenceFromReadings:
    """Evidence over readings that are given, not fetched."""

    def __init__(self, *known: Orchestrator) -> None:
        self.reader = MetricsReader(GatewayClient("g", "http://127.0.0.1:1"))
        self.evidence = EvidenceCollector("g", self.reader, None, OrchestratorIndex(known or (A, B)))
        self.takes(0.0)

    def reads(self, at: float, **passed_or_failed: tuple[tuple[Orchestrator, float], ...]) -> None:
        """Make the next reading say this."""
        self.takes(
            at,
            *((SeriesKey(True, PAIR, _named(one), ""), value) for one, value in passed_or_failed.get("ok", ())),
            *((SeriesKey(False, PAIR, _named(one), "cause"), value) for one, value in passed_or_failed.get("bad", ())),
        )

    def takes(self, at: float, *fresh: tuple[SeriesKey, float]) -> None:
        """Take this as the next reading."""
        self.reader.history.add(MetricsSnapshot(at, changed=fresh))


def _named(one: Orchestrator) -> OrchestratorLabels:
    return OrchestratorLabels(one.service_uri, one.local_address)


async def test_only_our_series_moved_proves() -> None:
    """A pass makes its server's series move; if that is ours alone, it was ours."""
    weighing = EvidenceFromReadings()
    life = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(life, passed_exchange(1, 2))
    weighing.reads(3.0, ok=((A, 0.5),))
    gathered = await weighing.evidence.collect(life, passed_exchange(1, 2))
    assert gathered.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PROVEN


async def test_only_anothers_series_moved_refutes() -> None:
    """And takes back even what targeting presumed."""
    weighing = EvidenceFromReadings()
    life = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(life, passed_exchange(1, 2))
    weighing.reads(3.0, ok=((B, 0.5),))
    gathered = await weighing.evidence.collect(life, passed_exchange(1, 2))
    assert gathered.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.REFUTED


async def test_two_of_a_pair_that_swapped_are_not_proven() -> None:
    """Both series moved while both jobs were in the air: nobody can say which job moved which."""
    weighing = EvidenceFromReadings()
    one, other = weighing.evidence.on_sent(job(A, "1"), 1.0), weighing.evidence.on_sent(job(B, "2"), 1.0)
    for life in (one, other):
        weighing.evidence.on_ended(life, passed_exchange(1, 2))
    weighing.reads(3.0, ok=((A, 0.5), (B, 0.5)))
    for life in (one, other):
        gathered = await weighing.evidence.collect(life, passed_exchange(1, 2))
        assert gathered.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PRESUMED


async def test_a_pass_that_moved_nothing_beside_one_that_did_is_not_credited() -> None:
    """Both jobs were served by A: the one aimed at B has nothing to show, though the metrics work."""
    weighing = EvidenceFromReadings()
    one, other = weighing.evidence.on_sent(job(A, "1"), 1.0), weighing.evidence.on_sent(job(B, "2"), 1.0)
    for life in (one, other):
        weighing.evidence.on_ended(life, passed_exchange(1, 2))
    weighing.reads(3.0, ok=((A, 0.5),))
    gathered = await weighing.evidence.collect(other, passed_exchange(1, 2))
    assert gathered.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.MISSING


async def test_failures_are_proven_by_errors_and_say_their_cause() -> None:
    """The error counter tells who failed, and why."""
    weighing = EvidenceFromReadings()
    life = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(life, failed_exchange(1, 2))
    weighing.reads(3.0, bad=((A, 1.0),))
    gathered = await weighing.evidence.collect(life, failed_exchange(1, 2))
    assert gathered.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PROVEN
    assert gathered.cause == "cause"


def nobody(weighing: EvidenceFromReadings, at: float, **more: float) -> None:
    """Make the next reading say that the gateway found nobody, and with `a` that A failed too."""
    moved = [(SeriesKey(False, PAIR, OrchestratorLabels("", ""), "no orchestrators available within 2s timeout"), 1.0)]
    if more:
        moved.append((SeriesKey(False, PAIR, _named(A), "dial tcp: i/o timeout"), more["a"]))
    weighing.takes(at, *moved)


async def test_a_line_that_names_nobody_says_nothing() -> None:
    """The gateway writes it whenever its tries run out, for whatever reason."""
    weighing = EvidenceFromReadings()
    life = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(life, failed_exchange(1, 2))
    nobody(weighing, 3.0)
    gathered = await weighing.evidence.collect(life, failed_exchange(1, 2))
    assert gathered.items == ()
    assert gathered.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PRESUMED


async def test_that_nobody_was_left_hides_no_failure() -> None:
    """Where ours failed first, the cause is that, and it is proven."""
    weighing = EvidenceFromReadings()
    life = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(life, failed_exchange(1, 2))
    nobody(weighing, 3.0, a=1.0)
    gathered = await weighing.evidence.collect(life, failed_exchange(1, 2))
    assert gathered.cause == "dial tcp: i/o timeout"
    assert gathered.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PROVEN


async def test_of_two_that_failed_the_named_one_alone_has_a_cause() -> None:
    """The line without an orchestrator is about neither for sure."""
    weighing = EvidenceFromReadings()
    one, other = weighing.evidence.on_sent(job(A, "1"), 1.0), weighing.evidence.on_sent(job(B, "2"), 1.0)
    for life in (one, other):
        weighing.evidence.on_ended(life, failed_exchange(1, 2))
    nobody(weighing, 3.0, a=1.0)
    assert (await weighing.evidence.collect(one, failed_exchange(1, 2))).cause == "dial tcp: i/o timeout"
    assert (await weighing.evidence.collect(other, failed_exchange(1, 2))).cause == ""


async def test_metrics_that_do_not_move_say_nothing() -> None:
    """A gauge may be rewritten with its old value; that contradicts nothing."""
    weighing = EvidenceFromReadings()
    life = weighing.evidence.on_sent(job(A), 1.0)
    weighing.evidence.on_ended(life, passed_exchange(1, 2))
    weighing.reads(3.0)
    gathered = await weighing.evidence.collect(life, passed_exchange(1, 2))
    assert gathered.apply_to(Attribution(AttributionKind.PRESUMED)).kind is AttributionKind.PRESUMED


async def test_jobs_of_a_pair_are_separable_only_after_a_reading() -> None:
    """Another job of the pair can be told apart once the one before is over and has been read."""
    weighing = EvidenceFromReadings()
    assert weighing.evidence.is_distinguishable(PAIR)
    life = weighing.evidence.on_sent(job(A), 1.0)
    assert not weighing.evidence.is_distinguishable(PAIR)
    weighing.evidence.on_ended(life, passed_exchange(1, 2))
    assert not weighing.evidence.is_distinguishable(PAIR)
    weighing.reads(2.5)
    assert weighing.evidence.is_distinguishable(PAIR)


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
    assert event.pipeline_model == PAIR
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
    """Evidence from events alone, of a job that has been answered, and the event that is about it."""

    def __init__(self) -> None:
        self.log = EventLog()
        self.evidence = EvidenceCollector("g", None, self.log, OrchestratorIndex([A, B]))
        self.life = self.answered(job(A))
        (self.event,) = parse_events([GENERATIONS[0]], 1700000002.5)

    def answered(self, one: Job) -> JobTrace:
        """Send a job and answer it."""
        life = self.evidence.on_sent(one, 1.0)
        self.evidence.on_ended(life, ANSWERED)
        return life

    def hears(self) -> tuple[str, AttributionKind | None] | None:
        """Deliver the event; return whose stored result it is about, and what it says."""
        self.log.add(self.event)
        found = self.evidence.weigh_late_event(self.event)
        return (found[0], found[1].kind) if found is not None else None


async def test_a_late_event_names_the_one_job_it_fits() -> None:
    """By pair, end and duration; two jobs that fit are one too many."""
    one = EvidenceFromEvents()
    assert (await one.evidence.add_events(one.life, CollectedEvidence(), wait=False)).items == ()
    assert one.evidence.on_recorded(one.life) == []
    assert one.hears() == ("j", AttributionKind.REFUTED)
    one.answered(job(B, "k"))
    assert one.evidence.weigh_late_event(one.event) is None


async def test_an_event_that_comes_before_its_job_is_weighed_is_weighed_with_it() -> None:
    """Once, and not a second time as a late one."""
    one = EvidenceFromEvents()
    assert one.hears() is None
    (testimony,) = (await one.evidence.add_events(one.life, CollectedEvidence(), wait=False)).items
    assert testimony.kind is AttributionKind.REFUTED
    assert one.evidence.on_recorded(one.life) == []


async def test_an_event_that_comes_before_its_result_is_kept_is_owed_to_it() -> None:
    """Looking at an answer takes a while: what the gateway says meanwhile must not be lost."""
    one = EvidenceFromEvents()
    await one.evidence.add_events(one.life, CollectedEvidence(), wait=False)
    assert one.hears() is None
    (testimony,) = one.evidence.on_recorded(one.life)
    assert testimony.kind is AttributionKind.REFUTED


async def test_an_event_that_would_change_something_is_waited_for() -> None:
    """It comes a little later than the answer, since the gateway collects what it sends."""
    one = EvidenceFromEvents()
    one.log.patience_s = 30.0
    telling = asyncio.ensure_future(one.evidence.add_events(one.life, CollectedEvidence(), wait=True))
    await asyncio.sleep(0)
    assert one.hears() is None
    (testimony,) = (await telling).items
    assert testimony.kind is AttributionKind.REFUTED
