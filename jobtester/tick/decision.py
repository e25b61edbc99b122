"""Decide what becomes of a judged job: its result is recorded, or the job runs once more. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.tick.attempt import JudgedJob


@dataclass(frozen=True, slots=True)
class Record:
    """Record this result; the job is done."""

    result: Result


@dataclass(frozen=True, slots=True)
class Requeue:
    """Return the job to the queue as if it had never been taken: it never left."""


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Try a busy orchestrator again after `pause_s` seconds."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class RetryExclusively:
    """Run the job again at the end of the tick, with nothing beside it; `reason` is a label of the metrics."""

    reason: str


@dataclass(frozen=True, slots=True)
class AwaitLlm:
    """Hold the result until it is known whether the gateway serves llm at all; if it does, `refused` is recorded."""

    result: Result
    refused: Result


Decision = Record | Requeue | RetryLater | RetryExclusively | AwaitLlm


@dataclass(frozen=True, slots=True)
class JobHistory:
    """What decides besides the judgement: what happened to the job before, and how far the tick is.

    `busy_retries` counts how often a busy orchestrator has sent the job away, of at most `max_busy_retries` times;
    `busy_backoff_s` is the first pause in seconds, which doubles each time. `is_last_pass` is set while jobs run
    alone, `is_stopping` once no further job may begin, and `gateway_serves_llm` once one llm job has passed.
    """

    busy_retries: int = 0
    max_busy_retries: int = 3
    busy_backoff_s: float = 15.0
    is_last_pass: bool = False
    is_stopping: bool = False
    gateway_serves_llm: bool = False


def decide(judged: JudgedJob, history: JobHistory) -> Decision:
    """Return what becomes of a judged job."""
    result = judged.result
    if not history.is_stopping:
        if not judged.is_gateway_alive and judged.was_never_sent:
            return Requeue()
        if result.verdict.code == "busy" and not judged.is_paid and history.busy_retries < history.max_busy_retries:
            return RetryLater(history.busy_backoff_s * 2**history.busy_retries)
    if judged.is_unattributed or judged.is_unclear:
        # Only alone, without another job's questions and metrics beside, may it show who served it.
        if not history.is_last_pass and not history.is_stopping:
            return RetryExclusively("unclear" if judged.is_unclear else "unproven")
        return Record(result if judged.is_unclear else as_unproven(result))
    if judged.runner_refusal is not None:
        refused = replace(result, verdict=judged.runner_refusal)
        return Record(refused) if history.gateway_serves_llm else AwaitLlm(result, refused)
    return Record(result)


def as_unproven(result: Result) -> Result:
    """Return the result of a job whose answer nobody could be shown to have given."""
    return replace(result, verdict=Verdict.from_code("unproven"))
