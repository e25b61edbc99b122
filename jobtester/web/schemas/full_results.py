"""Define the JSON of one result with everything behind it: the request, what was expected, what came, and its stat."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from jobtester.checks.advice import advise
from jobtester.store.full_results import FullResult, KeptFile
from jobtester.web.comparison import compare_answer
from jobtester.web.curl import write_command, write_test_command
from jobtester.web.schemas.base import Count, Instant, Schema, Seconds
from jobtester.web.schemas.outbox import OutboxEntrySchema
from jobtester.web.schemas.results import ResultDetailSchema

Bytes = Count


class TimingSchema(Schema):
    """The parts of a job's time; only `wait_s` and `transfer_s` belong to the round trip."""

    connect_s: Seconds | None = Field(description="resolving the name and opening the connection, seconds")
    wait_s: Seconds = Field(description="from sending the request to the first byte of the answer, seconds")
    transfer_s: Seconds | None = Field(description="from the first byte to the last, seconds; null without an answer")


class InputFileSchema(Schema):
    """A file of the request, and what is known of it."""

    field: str = Field(description="the form field")
    name: str
    sha256: str
    url: str = Field(description="where the tester serves the very file")
    facts: dict[str, Any]


class SentRequestSchema(Schema):
    """The request as it left, without secrets."""

    method: str
    url: str
    headers: dict[str, str]
    inputs: list[InputFileSchema]
    body_url: str = Field(description="where the tester serves the very body")
    curl: str = Field(description="a command that sends the same request again; put your token in place of ****")


class CheckSchema(Schema):
    """A check of the answer with its expected values; `problem` is empty if it passed."""

    check: str
    parameters: dict[str, Any]
    problem: str = ""
    message: str = ""
    advice: str = ""


class ComparedWordSchema(Schema):
    """A word, and whether the other text has it too."""

    word: str
    matches: bool


class ComparisonSchema(Schema):
    """The expected words beside those that came."""

    expected: list[ComparedWordSchema]
    received: list[ComparedWordSchema] = Field(description="empty where single words were looked for")
    text: str = Field(description="the answer's text")
    error_rate: float | None = Field(description="wrong words per expected word, for transcripts")


class ReceivedFileSchema(Schema):
    """What came back, made small; everything but `size` and `content_type` is about the original."""

    content_type: str
    url: str
    size: Bytes
    original_size: Bytes
    sha256: str
    width: Count
    height: Count
    seconds: Seconds


class StreamSchema(Schema):
    """What a live video did over time; every time is in seconds from its start."""

    delays: list[tuple[Seconds, Seconds]] = Field(description="when frames arrived, and how long after they were sent")
    states: list[tuple[Seconds, str]] = Field(description="when the runner first reported each state")


class StatEntrySchema(OutboxEntrySchema):
    """The stat of a result, and its way to the Leaderboard."""

    look_ups: Count = Field(description="look-ups in a row that did not find it")
    audited_at: Instant | None = Field(description="when it was read back after its delivery")


class FullResultSchema(ResultDetailSchema):
    """One result with everything that is stored about it; a part is null where it was not recorded."""

    sent: SentRequestSchema | None
    timing: TimingSchema | None
    checks: list[CheckSchema]
    comparison: ComparisonSchema | None
    received: ReceivedFileSchema | None
    stream: StreamSchema | None = Field(description="of live video; null for any other job")
    reference: str = Field(
        description="id of a pass whose received file shows what a failure should have brought; empty if none"
    )
    reference_file: ReceivedFileSchema | None = Field(description="the received file of `reference`")
    stat: StatEntrySchema | None
    test_command: str = Field(description="a command that tests the capability again; stop the daemon first")

    @classmethod
    def from_full_result(cls, full: FullResult, base_url: str, *, needs_token: bool = False) -> Self:
        """Return the schema of a result; its curl command fetches long bodies from `base_url`."""
        row = full.result
        checks = [
            CheckSchema(**check, advice=advise(check["check"], check.get("problem", "")) if "problem" in check else "")
            for check in full.details.get("checks", ())
        ]
        comparison = compare_answer(row.response, full.details)
        values = ResultDetailSchema.read_fields(row) | {
            "sent": _describe_request(full, write_command(full, base_url, needs_token=needs_token)),
            "timing": _split_time(full),
            "checks": checks,
            "comparison": ComparisonSchema.model_validate(comparison) if comparison is not None else None,
            "received": _describe_file(full.received, row.id),
            "stream": full.details.get("stream"),
            "reference": full.reference,
            "reference_file": _describe_file(full.reference_file, full.reference),
            "stat": StatEntrySchema.from_entry(full.stat) if full.stat is not None else None,
            "test_command": write_test_command(full),
        }
        own_advice = next((check.advice for check in checks if check.problem and check.advice), "")
        if row.reason.startswith("check:") and own_advice:
            values["advice"] = own_advice
        return cls.model_validate(values)


def _describe_request(full: FullResult, curl: str) -> SentRequestSchema | None:
    sent = full.details.get("request")
    if not sent:
        return None
    place = f"/r/{full.result.id}"
    return SentRequestSchema(
        **sent,
        inputs=[
            InputFileSchema(
                field=field,
                name=facts["name"],
                sha256=facts.get("sha256", ""),
                url=f"{place}/input/{field}",
                facts={key: value for key, value in facts.items() if key not in ("name", "sha256", "pixels")},
            )
            for field, facts in full.details.get("inputs", {}).items()
        ],
        body_url=f"{place}/body",
        curl=curl,
    )


def _split_time(full: FullResult) -> TimingSchema | None:
    if not full.details.get("request"):
        return None
    round_trip_s, first_byte_s = full.result.round_trip_s, full.details.get("first_byte_s")
    return TimingSchema(
        connect_s=full.details.get("connect_s"),
        wait_s=round_trip_s if first_byte_s is None else min(first_byte_s, round_trip_s),
        transfer_s=None if first_byte_s is None else max(0.0, round_trip_s - first_byte_s),
    )


def _describe_file(file: KeptFile | None, job_id: str) -> ReceivedFileSchema | None:
    if file is None:
        return None
    fields = ReceivedFileSchema.read_fields(file)
    return ReceivedFileSchema.model_validate(fields | {"url": f"/r/{job_id}/received"})
