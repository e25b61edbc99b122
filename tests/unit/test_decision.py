"""What becomes of a judged job, row by row: recorded, retried, held back or taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.tick.attempt import JudgedJob
from jobtester.tick.decision import (
    AwaitLlm,
    Decision,
    JobHistory,
    Record,
    Requeue,
    RetryExclusively,
    RetryLater,
    as_unproven,
    decide,
)

CAPABILITY = Capability("llm", "m")
JOB = Job("j", "t", Orchestrator("0x1", "https://o", (CAPABILITY,)), CAPABILITY, "Llm", 1.0, 1.0)
REFUSED = Verdict.from_code("400", "the runner refused")


def result(code: str) -> Result:
    """Return a result with a reason code."""
    return Result(JOB, Verdict.from_code(code), Attribution(AttributionKind.PRESUMED), "g", "webhook", 0.0, 0.5)


def judge_job(code: str, **changes: object) -> JudgedJob:
    """Return a judged job of a gateway that is alive and whose answer is attributed, but for the changes."""
    plain = JudgedJob(result(code), is_unattributed=False, is_gateway_alive=True, was_never_sent=False)
    return replace(plain, **changes)  # type: ignore[arg-type]


PLAIN = JobHistory(max_busy_retries=2, busy_backoff_s=10.0)
STOPPING = replace(PLAIN, is_stopping=True)
LAST_PASS = replace(PLAIN, is_last_pass=True)
LOST = {"is_gateway_alive": False, "was_never_sent": True}


@pytest.mark.parametrize(
    ("job", "history", "decision"),
    [
        (judge_job("ok"), PLAIN, Record(result("ok"))),
        (judge_job("503"), STOPPING, Record(result("503"))),
        # A job that never left is taken back, unless nothing may leave any more.
        (judge_job("gateway_lost", **LOST), PLAIN, Requeue()),
        (judge_job("gateway_lost", **LOST), STOPPING, Record(result("gateway_lost"))),
        (judge_job("gateway_lost", is_gateway_alive=False), PLAIN, Record(result("gateway_lost"))),
        # Busy is deferred twice, each time for longer, and then recorded.
        (judge_job("busy"), PLAIN, RetryLater(10.0)),
        (judge_job("busy"), replace(PLAIN, busy_retries=1), RetryLater(20.0)),
        (judge_job("busy"), replace(PLAIN, busy_retries=2), Record(result("busy"))),
        (judge_job("busy"), STOPPING, Record(result("busy"))),
        # What was paid for is not paid for again.
        (judge_job("busy", is_paid=True), PLAIN, Record(result("busy"))),
        # Whose answer it was is found out alone, once.
        (judge_job("ok", is_unattributed=True), PLAIN, RetryExclusively("unproven")),
        (judge_job("ok", is_unattributed=True), LAST_PASS, Record(as_unproven(result("ok")))),
        (judge_job("ok", is_unattributed=True), STOPPING, Record(as_unproven(result("ok")))),
        (judge_job("unclear", is_unclear=True), PLAIN, RetryExclusively("unclear")),
        (judge_job("unclear", is_unclear=True), LAST_PASS, Record(result("unclear"))),
        (judge_job("500", is_unclear=True, is_unattributed=True), LAST_PASS, Record(result("500"))),
        # A gateway's 500 to llm is the runner's 400 only where the gateway serves llm at all.
        (
            judge_job("500", runner_refusal=REFUSED),
            PLAIN,
            AwaitLlm(result("500"), replace(result("500"), verdict=REFUSED)),
        ),
        (
            judge_job("500", runner_refusal=REFUSED),
            replace(PLAIN, gateway_serves_llm=True),
            Record(replace(result("500"), verdict=REFUSED)),
        ),
        (judge_job("500", runner_refusal=REFUSED, is_unattributed=True), PLAIN, RetryExclusively("unproven")),
    ],
)
def test_decisions(job: JudgedJob, history: JobHistory, decision: Decision) -> None:
    """Each row is one rule or one exception to it."""
    assert decide(job, history) == decision


def test_nothing_runs_again_once_the_tick_stops() -> None:
    """Whatever was judged, a stopping tick records it or holds it for the record."""
    for code in ("ok", "busy", "unclear", "500", "gateway_lost"):
        for unattributed in (False, True):
            for refusal in (None, REFUSED):
                job = judge_job(
                    code, is_unattributed=unattributed, runner_refusal=refusal, is_unclear=code == "unclear"
                )
                assert isinstance(decide(job, STOPPING), Record | AwaitLlm)
