"""Right answers of every maker's shape pass, and wrong ones are caught, each with its own reason."""

from __future__ import annotations

from collections import Counter

import pytest

from jobtester.domain.outcome import Fault, Finding
from jobtester.pipelines import catalogue, looking
from jobtester.pipelines.looking import Report, Task
from tests.unit.corpus.answers import ALL, BAD, GOOD, Case, request


def looked_at(case: Case) -> Report:
    """Look at an answer as the examiner does: first for the files it names, then at all of it."""
    task = Task(request(case.pipeline, case.model).expectation, case.body)
    report = looking.look(task)
    if not report.urls:
        return report
    files = {url: case.files[url] for url in report.urls if url in case.files}
    return looking.look(Task(task.expectation, case.body, artefacts=files))


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_right_answers_pass(case: Case) -> None:
    """What a maker that does its work may answer is no failure, whatever its shape."""
    findings = looked_at(case).findings
    assert findings
    assert [finding for finding in findings if not finding.passed] == []
    notes = [note for finding in findings for note in finding.notes]
    assert {note.code for note in notes} == set(case.notes)
    assert all(10 < len(note.message) < 400 for note in notes)


@pytest.mark.parametrize("case", BAD, ids=str)
def test_wrong_answers_are_caught(case: Case) -> None:
    """Every kind of wrong answer is a failure of the orchestrator, but for files that the gateway does not give."""
    finding = caught(case)
    assert finding.problem == case.problem, finding.message
    doors = {"unreachable": Fault.GATEWAY, "token_limit": Fault.TESTER}
    assert finding.fault is doors.get(case.problem, Fault.ORCHESTRATOR)
    assert 10 < len(finding.message) < 400


def test_every_wrong_answer_has_its_own_reason() -> None:
    """No two of a pipeline's wrong answers get the same words, so that an operator sees which it was."""
    said = Counter(
        (case.pipeline, caught(case).problem, caught(case).message) for case in BAD if case.problem != "token_limit"
    )
    assert {reason: count for reason, count in said.items() if count > 1} == {}


def test_every_pipeline_has_a_corpus() -> None:
    """Each built-in pipeline has right answers of several shapes, and at least fifteen wrong ones."""
    slugs = set(catalogue.builtin())
    assert {case.pipeline for case in ALL} == slugs
    right, wrong = Counter(case.pipeline for case in GOOD), Counter(case.pipeline for case in BAD)
    assert min(right.values()) >= 5
    assert min(wrong.values()) >= 15


def caught(case: Case) -> Finding:
    """Give the first thing that is wrong."""
    return next(finding for finding in looked_at(case).findings if not finding.passed)
