"""A stat is what the Leaderboard accepts, and can be found there again."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.stats import MAX_PAYLOAD_BYTES, Stat, UnpostableError, find_problem
from tests.harness.results import make_job, make_result

GOOD: dict[str, Any] = {
    "region": "FRA", "orchestrator": "0x" + "1" * 40, "model": "m", "pipeline": "Llm", "round_trip_time": 0.5,
    "success_rate": 1,
}  # fmt: skip


def post(**changes: Any) -> dict[str, Any]:
    """Return the fields of a result's stat."""
    fields: dict[str, Any] = orjson.loads(Stat.from_result(make_result(**changes), "FRA").body)
    return fields


def test_a_pass_counts_in_full_and_names_no_error() -> None:
    """Request and answer are posted as they are."""
    fields = post(request='{"prompt":"hi"}', response='{"answer":"42"}')
    assert (fields["success_rate"], fields["errors"]) == (1, [])
    assert (fields["timestamp"], fields["round_trip_time"]) == (1_700_000_000, 0.25)
    assert (fields["pipeline"], fields["model"], fields["model_is_warm"]) == ("Llm", "model", True)
    assert (fields["input_parameters"], fields["response_payload"]) == ('{"prompt":"hi"}', '{"answer":"42"}')


def test_a_pass_in_a_session_has_its_times() -> None:
    """A live runner's reservation and first answer are posted before the answer, whatever text that is."""
    measures = {"session_seconds": 0.1234, "ready_seconds": 2.0, "tokens_per_s": 9.0}
    payload = orjson.loads(post(response="\ud800x", measures=measures)["response_payload"])
    assert list(payload.items())[:2] == [("session_seconds", 0.123), ("ready_seconds", 2.0)]
    assert payload["answer"].endswith("x")


def test_a_failure_says_why() -> None:
    """The reason's code is the error, and the payload begins with the reason."""
    fields = post(code="503", response="busy")
    (error,) = fields["errors"]
    assert (fields["success_rate"], error["error_code"], error["count"]) == (0, "503", 1)
    payload = orjson.loads(fields["response_payload"])
    assert (payload["reason"], payload["job"], payload["answer"]) == ("503", "job-1", "busy")


def test_the_round_trip_is_posted_to_the_last_bit() -> None:
    """It is the key by which the row is found again."""
    assert post(round_trip_s=1 / 3)["round_trip_time"] == 1 / 3


@pytest.mark.parametrize(
    "text", ["", "not JSON", '{"a": "' + "x" * MAX_PAYLOAD_BYTES + '"}', "\0", '"\\u0000"', "\ud800"]
)
def test_payloads_are_always_short_json_without_nul(text: str) -> None:
    """Readers of the Leaderboard parse them, and its database refuses U+0000."""
    payload = post(response=text, request=text)["response_payload"]
    orjson.loads(payload)
    assert len(payload.encode()) <= MAX_PAYLOAD_BYTES
    assert "\0" not in payload
    assert "\\u0000" not in payload


def test_messages_are_clean_and_bounded() -> None:
    """U+0000 goes, and a thousand characters stay."""
    verdict = Verdict(Verdict.from_code("503").outcome, "503", "\0" + "x" * 5000)
    (error,) = post(verdict=verdict)["errors"]
    assert error["message"] == "x" * 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"region": " "}, "region is empty"),
        ({"model": ""}, "model is empty"),
        ({"pipeline": "a\0"}, "pipeline contains U+0000"),
        ({"orchestrator": "0x" + "1" * 60}, "orchestrator is longer"),
        ({"model": "ü" * 600}, "longer than 1024 bytes"),
        ({"round_trip_time": 0}, "round_trip_time"),
        ({"round_trip_time": float("nan")}, "round_trip_time"),
        ({"round_trip_time": True}, "round_trip_time"),
        ({"round_trip_time": 86_400}, "round_trip_time"),
        ({"success_rate": 0.5}, "success_rate"),
        ({"success_rate": True}, "success_rate"),
        ({}, ""),
    ],
)
def test_what_the_leaderboard_would_refuse_is_found(change: dict[str, Any], words: str) -> None:
    """Each of its rules, and those that keep its pages readable."""
    problem = find_problem(GOOD | change)
    assert (words in problem) if words else not problem


def test_an_unfit_result_makes_no_stat() -> None:
    """A stat without a model would break reads for everybody."""
    job = make_job(orchestrator=Orchestrator("0x" + "1" * 40, "https://o"), capability=Capability("llm", " "))
    with pytest.raises(UnpostableError, match="model is empty"):
        Stat.from_result(make_result(job=job), "FRA")


@pytest.mark.parametrize(
    "answer",
    [
        r'{"a":"\u00\u000000"}',
        r'{"a":"\u0\u0000000"}',
        r'{"a":"\u0000"}',
        '{"a":"\0"}',
        r'{"a":"\\\u0000"}',
        r'{"a":"\\u0000"}',
        '{"a":"\\ud800"}',
        "\ud800",
    ],
)
def test_no_payload_carries_what_the_database_refuses(answer: str) -> None:
    """Not even where taking out one escape of U+0000 would make another one of what stands around it."""
    stat = Stat.from_result(make_result(response=answer), "FRA")
    payload = json.loads(json.loads(stat.body)["response_payload"])
    text = json.dumps(payload, ensure_ascii=False)
    assert "\0" not in str(payload)
    assert "\\u0000" not in text.replace("\\\\", "")
    text.encode()


def test_an_escaped_backslash_before_u0000_is_no_escape() -> None:
    """The answer stays as it is."""
    stat = Stat.from_result(make_result(response=r'{"a":"x\\u0000y"}'), "FRA")
    assert json.loads(json.loads(stat.body)["response_payload"]) == {"a": "x\\u0000y"}


@pytest.mark.parametrize("key", ["region", "orchestrator", "model", "pipeline"])
def test_half_characters_make_a_stat_unfit(key: str) -> None:
    """With a message, not with an error of the encoder's."""
    fields = json.loads(Stat.from_result(make_result(), "FRA").body)
    assert key in find_problem(fields | {key: "m\ud800"})
