"""Notes: what is odd about an answer travels with its result, and changes no outcome."""

from __future__ import annotations

from multiprocessing import Pipe

from jobtester.checks.base import NoteCollector
from jobtester.checks.evaluation import CheckReport
from jobtester.checks.worker_protocol import decode_report, encode_report, receive_message, send_message
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Finding, Note, Verdict
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport as TickReport
from jobtester.metrics import Metrics
from jobtester.tick.progress import TickProgress


def test_a_thousand_oddities_of_one_kind_are_one_note() -> None:
    """The first message of a code stays, so that no answer makes a result large."""
    notes = NoteCollector()
    for number in range(1000):
        notes.add("usage", f"message {number}")
    notes.add("finish", "another")
    assert notes.for_check("chat") == (Note("chat", "usage", "message 0"), Note("chat", "finish", "another"))


def test_notes_come_back_from_a_worker() -> None:
    """A report goes through JSON and is the same afterwards."""
    report = CheckReport(
        (Finding("chat", notes=(Note("chat", "usage", "3 + 4 is not 8"),)), Finding("json", "type", "x"))
    )
    receiver, sender = Pipe()
    with receiver, sender:
        send_message(sender, encode_report(report))
        assert decode_report(receive_message(receiver)) == report


def test_a_note_is_no_problem() -> None:
    """A finding with notes alone passes."""
    assert Finding("chat", notes=(Note("chat", "usage", "odd"),)).passed


def test_each_note_of_a_recorded_result_is_counted() -> None:
    """By check and code, for every result, also for one that passed."""
    capability = Capability("llm", "m")
    job = Job("j", "t", Orchestrator(f"0x{1:040x}", "https://o", (capability,)), capability, "Llm", 1.0, 1.0)
    notes = (Note("chat", "usage", "odd"), Note("chat", "finish", "odd"))
    result = Result(
        job, Verdict.from_code("ok"), Attribution(AttributionKind.PROVEN), "g", "query", 1.7e9, 0.5, notes=notes
    )
    metrics = Metrics()
    progress = TickProgress(TickReport("t", "test", 1.7e9), metrics)
    progress.on_recorded(result)
    progress.on_recorded(result)
    counted = [line for line in metrics.render().decode().splitlines() if line.startswith("jobtester_answer_notes_t")]
    assert sorted(counted) == [
        'jobtester_answer_notes_total{check="chat",note="finish"} 2.0',
        'jobtester_answer_notes_total{check="chat",note="usage"} 2.0',
    ]
