"""Stats: the JSON object that the Leaderboard accepts, made from a result, and the rules that it must keep."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.errors import JobTesterError

MAX_ADDRESS_CHARS = 56
MAX_PAYLOAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 4_000_000
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # after an even number of backslashes


class UnpostableError(JobTesterError):
    """The stat would be refused by the Leaderboard, or would break reads for everybody."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The exact bytes to post, and the fields by which the stored row is found again."""

    body: bytes
    region: str
    orchestrator: str
    pipeline: str
    model: str
    timestamp: int
    round_trip_s: float

    @classmethod
    def from_result(cls, result: Result, region: str) -> Self:
        """Return the stat of a result. Raises UnpostableError where the Leaderboard's rules do not allow one."""
        job = result.job
        passed = result.verdict.outcome is Outcome.PASSED
        fields = {
            "region": region,
            "orchestrator": job.orchestrator.address,
            "success_rate": 1 if passed else 0,
            # Not rounded: with the timestamp it is the key by which the row is found again.
            "round_trip_time": result.round_trip_s,
            "errors": []
            if passed
            else [{"error_code": result.verdict.code, "message": _clean(result.verdict.message)[:1000], "count": 1}],
            "timestamp": int(result.started_at),
            "model": job.model,
            "model_is_warm": job.warm,
            "pipeline": job.pipeline_name,
            "input_parameters": _payload(result.request),
            "response_payload": _payload(success_payload(result) if passed else failure_payload(result)),
        }
        problem = find_problem(fields)
        if problem:
            raise UnpostableError(problem)
        return cls(
            body=orjson.dumps(fields),
            region=region,
            orchestrator=job.orchestrator.address,
            pipeline=job.pipeline_name,
            model=job.model,
            timestamp=int(result.started_at),
            round_trip_s=result.round_trip_s,
        )


def success_payload(result: Result) -> str:
    """Return what people see of a pass: the answer, as JSON text; of a job in a session its times before it."""
    times = {name: round(value, 3) for name, value in result.measures.items() if name.endswith("_seconds")}
    if not times:
        return result.response
    return orjson.dumps({**times, "answer": _clean(result.response)[:2000]}).decode()


def failure_payload(result: Result) -> str:
    """Return what people see of a failure, as JSON text: the reason first, then the beginning of the answer."""
    payload: dict[str, Any] = {
        "outcome": result.verdict.outcome,
        "reason": result.verdict.code,
        "message": _clean(result.verdict.message)[:1000],
        "job": result.id,
    }
    if result.job.is_video:  # of a stream the measures say what came; a pass posts them as its answer
        payload |= result.measures
    if result.response:
        payload["answer"] = _clean(result.response)[:2000]
    return orjson.dumps(payload).decode()


def find_problem(fields: Mapping[str, object]) -> str:
    """Return what makes an AI stat unfit to be posted, empty if nothing."""
    for key in ("region", "orchestrator", "model", "pipeline"):
        value = fields.get(key)
        if not isinstance(value, str) or not value.strip():
            return f"{key} is empty: the stat would be dropped or break reads for everybody"
        if "\0" in value or value != value.encode("utf-8", "replace").decode():
            return f"{key} contains U+0000 or half a character, which the Leaderboard's database refuses"
    if len(str(fields["orchestrator"])) > MAX_ADDRESS_CHARS:
        return f"orchestrator is longer than {MAX_ADDRESS_CHARS} characters"
    if len(str(fields["model"]).encode()) > 1024 or len(str(fields["pipeline"]).encode()) > 1024:
        return "model or pipeline is longer than 1024 bytes"
    round_trip_s = fields.get("round_trip_time")
    if (
        not isinstance(round_trip_s, int | float)
        or isinstance(round_trip_s, bool)
        or not math.isfinite(round_trip_s)
        or not 0 < round_trip_s < 86_400
    ):
        return "round_trip_time has to be a positive number of seconds below a day"
    if fields.get("success_rate") not in (0, 1) or isinstance(fields.get("success_rate"), bool):
        return "success_rate has to be 0 or 1"
    return ""


def _payload(text: str) -> str:
    # A reader of the Leaderboard parses every payload, so it must be valid JSON, however long or odd the text is.
    text = _clean(text)
    if not text:
        return "{}"
    if len(text.encode()) <= MAX_PAYLOAD_BYTES:
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return orjson.dumps({"message": text[:2000]}).decode()
        return text
    return orjson.dumps({"message": "left out: too long", "bytes": len(text.encode()), "begin": text[:2000]}).decode()


def _clean(text: str) -> str:
    # The Leaderboard's database refuses lone surrogates and U+0000, even as JSON's escape of it. Taking one escape out
    # may make another one of what stands around it, so that goes on until there is none.
    text = text.replace("\0", "").encode("utf-8", "replace").decode()
    while (cleaned := _ESCAPED_NUL.sub(r"\1", text)) != text:
        text = cleaned
    return text
