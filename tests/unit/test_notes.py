"""Notes: what is odd about an answer travels with its result, and changes no outcome."""

from __future__ import annotations

import io

from jobtester.domain.attribution import Attribution, Kind
from jobtester.domain.jobs import Job
from jobtester.domain.notes import Note
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.outcome import Finding, verdict
from jobtester.domain.report import Report as TickReport
from jobtester.domain.results import Result
from jobtester.metrics import Metrics
from jobtester.pipelines import looking
from jobtester.pipelines.checks.sample import Notes
from jobtester.pipelines.looking import Report
from jobtester.tick.progress import Progress


def test_a_thousand_oddities_of_one_kind_are_one_note() -> None:
    """The first message of a code stays, so that no answer makes a result large."""
    notes = Notes()
    for number in range(1000):
        notes.add("usage", f"message {number}")
    notes.add("finish", "another")
    assert notes.of("chat") == (Note("chat", "usage", "message 0"), Note("chat", "finish", "another"))


def test_notes_come_back_from_a_worker() -> None:
    """A report goes through JSON and is the same afterwards."""
    report = Report((Finding("chat", notes=(Note("chat", "usage", "3 + 4 is not 8"),)), Finding("json", "type", "x")))
    pipe = io.BytesIO()
    looking.write(looking.pack(report), pipe)
    pipe.seek(0)
    message = looking.read(pipe)
    assert message is not None
    assert looking.unpack(message) == report


def test_a_note_is_no_problem() -> None:
    """A finding with notes alone passes."""
    assert Finding("chat", notes=(Note("chat", "usage", "odd"),)).passed


def test_each_note_of_a_recorded_result_is_counted() -> None:
    """By check and code, for every result, also for one that passed."""
    capability = Capability("llm", "m")
    job = Job("j", "t", Orchestrator(f"0x{1:040x}", "https://o", (capability,)), capability, "Llm", 1.0, 1.0)
    notes = (Note("chat", "usage", "odd"), Note("chat", "finish", "odd"))
    result = Result(job, verdict("ok"), Attribution(Kind.PROVEN), "g", "query", 1.7e9, 0.5, notes=notes)
    metrics = Metrics()
    progress = Progress(TickReport("t", "test", 1.7e9), metrics)
    progress.recorded(result)
    progress.recorded(result)
    counted = [line for line in metrics.render().decode().splitlines() if line.startswith("jobtester_answer_notes_t")]
    assert sorted(counted) == [
        'jobtester_answer_notes_total{check="chat",note="finish"} 2.0',
        'jobtester_answer_notes_total{check="chat",note="usage"} 2.0',
    ]
