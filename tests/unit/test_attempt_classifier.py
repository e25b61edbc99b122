"""Attempts are classified exactly where calls take longer than questions, and never wrongly where they do not."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobtester.domain.attempts import AttemptPattern
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.gateway.attempt_classifier import classify_by_questions, classify_by_time
from tests.harness.samples import each_sample
from tests.unit.corpus.question_patterns import AskingGateway

KINDS = ("reached", "busy", "busy_without_tail", "leaked", "nobody", "down")
TRUTH = {
    "reached": AttemptPattern.REACHED,
    "busy": AttemptPattern.BUSY,
    "busy_without_tail": AttemptPattern.BUSY,
    "leaked": AttemptPattern.REACHED,
    "nobody": AttemptPattern.NOBODY,
    "down": AttemptPattern.DOWN,
}


def questions_of_job(kind: str, gateway: AskingGateway, job_s: float) -> list[float]:
    """Return one job's questions."""
    match kind:
        case "reached":
            return gateway.fail_at_orchestrator(job_s)
        case "busy":
            return gateway.find_busy()
        case "busy_without_tail":
            return gateway.find_busy(tail=False)
        case "leaked":
            return gateway.leak_slot(job_s)
        case "nobody":
            return gateway.find_nobody()
        case _:
            return gateway.find_down()


# A kind of job, a seed for the gateway's times, and how long a question takes.
ANY_JOB = {"kind": st.sampled_from(KINDS), "seed": st.integers(0, 2**32), "question_ms": st.floats(0.3, 3.0)}


@settings(max_examples=300, deadline=None)
@given(
    **ANY_JOB,
    call_ms=st.floats(0.0, 300.0),
    job_ms=st.floats(0.5, 4_000.0),
    stall_share=st.sampled_from((0.0, 0.0, 0.02, 0.1)),
)
def test_never_wrong(
    kind: str, seed: int, question_ms: float, call_ms: float, job_ms: float, stall_share: float
) -> None:
    """For calls of 0 to 300 ms a pattern is the truth or unclear: above all, busy is never taken for failed."""
    gateway = AskingGateway(random.Random(seed), question_ms / 1e3, call_ms / 1e3, stall_share=stall_share)
    questions = questions_of_job(kind, gateway, job_ms / 1e3)
    assert classify_by_questions(questions, is_answered=False).pattern in (TRUTH[kind], AttemptPattern.UNCLEAR)


@settings(max_examples=300, deadline=None)
@given(
    **ANY_JOB,
    far=st.floats(5.0, 80.0),
    job_ms=st.floats(20.0, 900.0),
)
def test_clear_at_ordinary_distances(kind: str, seed: int, question_ms: float, far: float, job_ms: float) -> None:
    """Where a call takes five times as long as a question or more, and more than one try fits, nothing is unclear."""
    call_s = min(0.3, far * question_ms / 1e3)
    questions = questions_of_job(kind, AskingGateway(random.Random(seed), question_ms / 1e3, call_s), job_ms / 1e3)
    assert classify_by_questions(questions, is_answered=False).pattern is TRUTH[kind]


@pytest.mark.parametrize(
    ("job_s", "pattern"),
    [(3.0, AttemptPattern.REACHED), (12.0, AttemptPattern.REACHED), (0.001, AttemptPattern.UNCLEAR)],
)
def test_one_try(job_s: float, pattern: AttemptPattern) -> None:
    """One try that took long reached its orchestrator; one refused at once after a slow call may have been busy."""
    slow_call_s = 0.15 if job_s > 1 else 1.2
    gateway = AskingGateway(random.Random(1), 0.002, slow_call_s)
    assert classify_by_questions(gateway.fail_at_orchestrator(job_s), is_answered=False).pattern is pattern


def test_the_runners_400_needs_no_second_try() -> None:
    """A gateway does not try again after a runner's 400, so one quick try is enough."""
    gateway = AskingGateway(random.Random(1), 0.002, 0.03)
    gateway.attempt(0.01)
    gateway.ask(2)
    assert (
        classify_by_questions(gateway.asked, is_answered=False, tries_exhausted=False).pattern is AttemptPattern.REACHED
    )


@pytest.mark.parametrize(
    ("count", "pattern"),
    [
        (0, AttemptPattern.NOT_FOLLOWING),
        (2, AttemptPattern.NOT_FOLLOWING),
        (3, AttemptPattern.NOT_FOLLOWING),
        (4, AttemptPattern.NOT_FOLLOWING),
        (5, AttemptPattern.ANSWERED),
        (7, AttemptPattern.ANSWERED),
        (14, AttemptPattern.ANSWERED),
    ],
)
def test_answered(count: int, pattern: AttemptPattern) -> None:
    """An answer needs five questions before it: three are a half-configured gateway's, which serves from memory."""
    assert classify_by_questions([0.01 * n for n in range(count)], is_answered=True).pattern is pattern


@pytest.mark.parametrize(
    ("count", "pattern"),
    [
        (0, AttemptPattern.NOT_FOLLOWING),
        (2, AttemptPattern.DOWN),
        (3, AttemptPattern.NOT_FOLLOWING),
        (5, AttemptPattern.REACHED),
    ],
)
def test_a_job_that_the_tester_left(count: int, pattern: AttemptPattern) -> None:
    """Where the tester left first, the last pair has not come yet."""
    assert (
        classify_by_questions([0.01 * n for n in range(count)], is_answered=False, gateway_may_continue=True).pattern
        is pattern
    )


@pytest.mark.parametrize("count", [1, 3, 4, 5, 6, 8, 9, 11])
def test_odd_counts_of_evenly_spaced_questions_blame_nobody(count: int) -> None:
    """Without a difference between pauses there is no pattern."""
    pattern = classify_by_questions([0.01 * n for n in range(count)], is_answered=False).pattern
    assert pattern in (AttemptPattern.UNCLEAR, AttemptPattern.NOT_FOLLOWING)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(4, 160))
def test_noise_is_unclear(seed: int, count: int) -> None:
    """Questions at random instants are hardly ever a pattern, and never that of a failed job for sure."""
    rng = random.Random(seed)
    instants = sorted(rng.uniform(0, 2) for _ in range(count))
    pattern = classify_by_questions(instants, is_answered=False).pattern
    assert pattern is not AttemptPattern.REACHED or count < 30


@pytest.mark.parametrize("count", [20, 22, 25, 29])
def test_a_little_noise_is_hardly_ever_a_failed_job(count: int) -> None:
    """Of so few questions chance makes such a pattern, in less than one of a hundred cases."""
    cases = 500
    reached = 0
    for seed in range(cases):
        rng = random.Random(seed)
        instants = sorted(rng.uniform(0, 2) for _ in range(count))
        reached += classify_by_questions(instants, is_answered=False).pattern is AttemptPattern.REACHED
    assert reached < cases / 100


def test_many_questions_are_classified_quickly() -> None:
    """A gateway that asks without a bound does not hold the tester up for long."""
    questions = AskingGateway(random.Random(3), 0.0008, 0.001).find_nobody(max_tries=1_000)
    began = time.process_time()
    assert classify_by_questions(questions, is_answered=False).pattern in (
        AttemptPattern.NOBODY,
        AttemptPattern.UNCLEAR,
    )
    assert time.process_time() - began < 2


@each_sample("webhook-questions.json")
def test_questions_of_whole_jobs(sample: Path) -> None:
    """Of real gateways, and made up: 20 refusals twice in a row are busy, and tries at a failing runner are reached."""
    traces = json.loads(sample.read_text())["traces"]
    for trace in traces:
        questions = [moment / 1e3 for moment in trace["questions_ms"]]
        calls = trace["runner_calls"]
        statuses = {call["status"] for call in calls}
        pattern = classify_by_questions(questions, is_answered=False).pattern
        if len(questions) == 2:
            assert pattern is AttemptPattern.DOWN
        elif not calls and len(questions) % 140 == 0:
            for start in range(0, len(questions), 140):
                assert (
                    classify_by_questions(questions[start : start + 140], is_answered=False).pattern
                    is AttemptPattern.BUSY
                )
        elif not calls:
            assert pattern is not AttemptPattern.REACHED
        elif len(calls) > 1 and statuses <= {500}:
            for tries in range(2, 21):
                attempts = classify_by_questions(questions[: 7 * tries], is_answered=False)
                assert (attempts.pattern, attempts.tries) == (AttemptPattern.REACHED, tries)
        assert classify_by_questions(questions, is_answered=True).pattern is (
            AttemptPattern.ANSWERED if len(questions) >= 5 else AttemptPattern.NOT_FOLLOWING
        )


@pytest.mark.parametrize(
    ("status", "round_trip_s", "pattern"),
    [
        (200, 1.0, AttemptPattern.ANSWERED),
        (500, 3.0, AttemptPattern.UNCLEAR),
        (503, 0.1, AttemptPattern.UNCLEAR),
        (503, 2.0, AttemptPattern.UNCLEAR),
        (503, 2.7, AttemptPattern.DOWN),
        (503, 3.3, AttemptPattern.DOWN),
        (503, 3.5, AttemptPattern.UNCLEAR),
        (503, 14.9, AttemptPattern.UNCLEAR),
        (503, 15.0, AttemptPattern.REACHED),
    ],
)
def test_time(status: int, round_trip_s: float, pattern: AttemptPattern) -> None:
    """Without questions only a 503 after an unanswered call, or after longer than any selection, shows something."""
    exchange = Exchange(Ending.ANSWERED, 1.7e9, 0.0, round_trip_s, status, b'{"images": []}')
    assert classify_by_time(exchange, retry_window_s=3.5 if round_trip_s == 2.7 else 2.0).pattern is pattern


def test_a_request_that_was_not_answered_has_no_pattern() -> None:
    """How long the tester waited shows nothing of the gateway."""
    exchange = Exchange(Ending.TIMEOUT, 1.7e9, 0.0, 20.0)
    assert classify_by_time(exchange, retry_window_s=2.0).pattern is AttemptPattern.UNCLEAR
