"""Right answers in the shapes of all servers pass, and wrong ones are caught, each with its own reason."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from jobtester.checks.base import AssetMetadata, Check
from jobtester.checks.caption import Params as CaptionParams
from jobtester.checks.evaluation import CheckReport, CheckTask, evaluate
from jobtester.domain.reasons import Fault, Finding
from jobtester.pipelines.catalogue import builtin_tables
from tests.unit.corpus.answers import ALL, BAD, GOOD, Case, request


def evaluate_case(case: Case) -> CheckReport:
    """Evaluate an answer as the checker does: first for the files it names, then all of it."""
    task = CheckTask(request(case.pipeline, case.model).expectation, case.body)
    report = evaluate(task)
    if not report.urls:
        return report
    files = {url: case.files[url] for url in report.urls if url in case.files}
    return evaluate(CheckTask(task.expectation, case.body, files=files))


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_right_answers_pass(case: Case) -> None:
    """What a server that does its work may answer is no failure, whatever its shape."""
    findings = evaluate_case(case).findings
    assert findings
    assert [finding for finding in findings if not finding.passed] == []
    notes = [note for finding in findings for note in finding.notes]
    assert {note.code for note in notes} == set(case.notes)
    assert all(10 < len(note.message) < 400 for note in notes)


@pytest.mark.parametrize("case", BAD, ids=str)
def test_wrong_answers_are_caught(case: Case) -> None:
    """Every kind of wrong answer is a failure of the orchestrator, except for files that the gateway does not serve."""
    finding = first_problem(case)
    assert finding.problem == case.problem, finding.message
    others_faults = {"unreachable": Fault.GATEWAY, "token_limit": Fault.TESTER, "language": Fault.TESTER}
    assert finding.fault is others_faults.get(case.problem, Fault.ORCHESTRATOR)
    assert 10 < len(finding.message) < 400


def test_every_wrong_answer_has_its_own_reason() -> None:
    """No two of a pipeline's wrong answers get the same message, so that an operator sees which it was."""
    reasons = Counter(
        (case.pipeline, first_problem(case).problem, first_problem(case).message)
        for case in BAD
        if case.problem != "token_limit"
    )
    assert {reason: count for reason, count in reasons.items() if count > 1} == {}


def test_every_pipeline_has_a_corpus() -> None:
    """Each built-in pipeline has right answers of several shapes, and at least fifteen wrong ones.

    The apps of live runners answer as external capabilities do, and are checked by the same checks. Live video has no
    answer; its frames are judged elsewhere.
    """
    tables = builtin_tables()
    slugs = {slug for slug, table in tables.items() if not (table.get("runner") or table.get("video"))}
    assert {case.pipeline for case in ALL} == slugs
    checked = {check["check"] for slug in slugs for check in tables[slug]["checks"]}
    assert {check["check"] for table in tables.values() for check in table.get("checks", ())} <= checked
    right, wrong = Counter(case.pipeline for case in GOOD), Counter(case.pipeline for case in BAD)
    assert min(right.values()) >= 5
    assert min(wrong.values()) >= 15


def first_problem(case: Case) -> Finding:
    """Return the first thing that is wrong."""
    return next(finding for finding in evaluate_case(case).findings if not finding.passed)


CHINESE = "今天早上面包师在街道还很暗的时候就开了店门。"
TRANSCRIPTS: dict[str, tuple[str, str, str]] = {
    "as it is": (CHINESE, CHINESE, ""),
    "without a full stop": (CHINESE, CHINESE[:-1], ""),
    "with spaces": (CHINESE, " ".join(CHINESE), ""),
    "two characters misheard": (CHINESE, CHINESE.replace("面包师", "面包是").replace("很暗", "很按"), ""),
    "another text": (CHINESE, "港口的渡轮九点出发，晚饭之前回来，请不要迟到。", "words"),
    "half of it": (CHINESE, CHINESE[: len(CHINESE) // 2], "words"),
    "Japanese": ("赤いボールが草の上にあります", "赤いボールが草の上に有ります。", ""),
    "Thai": ("ลูกบอลสีแดงวางอยู่บนพื้นหญ้า", "ลูกบอลสีแดงวางอยู่บน พื้นหญ้า", ""),
    "Hindi": ("हरी घास पर एक लाल गेंद है", "हरी घास पर एक लाल गेंद हैं", ""),
    "Korean": ("푸른 잔디 위에 빨간 공이 있다", "푸른 잔디 위에 빨간 공이 있다.", ""),
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcripts_without_spaces(name: str) -> None:
    """Without spaces between words, characters are compared: one that is misheard is not the whole text."""
    spoken, transcript, problem = TRANSCRIPTS[name]
    sent = request("audio-to-text").expectation
    expectation = replace(sent, inputs={"audio": AssetMetadata(transcript=spoken, duration_s=5.0)})
    answer = {"text": transcript, "chunks": [{"text": transcript, "timestamp": [0.0, 5.0]}]}
    (finding,) = evaluate(CheckTask(expectation, json.dumps(answer).encode())).findings
    assert finding.problem == problem, finding.message


@pytest.mark.parametrize(
    ("words", "text", "problem"),
    [
        (("球", "ball"), "草地上有一个红色的球", ""),
        (("气球",), "天空中有一个气球", ""),
        (("气球",), "天气很好，草地上有球", "words"),
        (("мяч",), "красный мяч лежит на траве", ""),
        (("мяч",), "большая собака бежит по дороге", "words"),
        (("мяч",), "a red ball on the grass", "language"),
        (("pelota",), "a red ball on the grass", "words"),
        (("pelota",), "una pelota roja sobre la hierba", ""),
        (("ball", "pelota", "мяч"), "una casa blanca en la colina", "language"),
        (("ボール",), "青い空の下、草の上に犬がいます", "words"),
        (("ボール",), "草地上有一个红色的球", "language"),
        (("球",), "青い空の下、草の上にボールがあります", "language"),
    ],
)
def test_captions_in_the_languages_of_the_words(words: tuple[str, ...], text: str, problem: str) -> None:
    """A list of words judges captions in its own languages, and no others."""
    sent = request("image-to-text").expectation
    expectation = replace(sent, checks=(Check("caption", CaptionParams(words=words)),))
    (finding,) = evaluate(CheckTask(expectation, json.dumps({"text": text}).encode())).findings
    assert finding.problem == problem, finding.message
