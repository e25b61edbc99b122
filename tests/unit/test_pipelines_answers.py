"""Streams become the answers they would have been, and tokens are counted honestly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobtester.pipelines import answers, looking
from jobtester.pipelines.checks.sample import Wrong
from jobtester.pipelines.looking import Task
from tests.unit.answers_corpus import request, said


def events(*chunks: dict[str, Any], end: str = "") -> bytes:
    """Write a stream of events."""
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + end.encode()


def delta(content: str | None = None, *, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Give one event of a streamed completion."""
    piece = {"role": "assistant"} if content is None else {"content": content}
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": piece, "finish_reason": reason}], **more}


USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
GATEWAY = events(delta(), delta("4"), delta("2"), delta("", reason="stop"))
OPENAI = events(
    delta(""), delta("4"), delta("2", reason="stop"), {"choices": [], "usage": USAGE}, end="data: [DONE]\n\n"
)
BYOC = events(delta("42", reason="stop"), {"balance": 1200}, end="data: [DONE]\n\n\n\n\n\n")
COMMENTED = b": keep-alive\r\n\r\n" + GATEWAY.replace(b"\n", b"\r\n")
NO_ERROR = b"data:\n\n" + events(*(delta(text, error=None) for text in (None, "4", "2")), delta("", reason="stop"))


@pytest.mark.parametrize(
    "stream",
    [GATEWAY, OPENAI, BYOC, COMMENTED, NO_ERROR],
    ids=["gateway", "openai", "byoc", "comments", "null for an error"],
)
def test_streams_become_answers(stream: bytes) -> None:
    """Whoever streams, what was said is put together with its finish reason."""
    answer = answers.parse(stream, stream=True)
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "42"}
    assert choice["finish_reason"] == "stop"


def test_the_checks_run_on_streams_too() -> None:
    """A streamed completion is checked like any other, and a wrong one is caught."""
    expectation = request("llm").expectation
    right = looking.look(Task(expectation, events(delta(said("llm")), delta("", reason="stop")), stream=True))
    wrong = looking.look(Task(expectation, events(delta("no idea")), stream=True))
    assert [finding.problem for finding in (*right.findings, *wrong.findings)] == ["", "contains"]


def test_an_answer_that_was_not_streamed_is_taken() -> None:
    """A maker that ignores `stream` answers as JSON, which is as good."""
    assert answers.parse(b' {"choices": []}', stream=True) == {"choices": []}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "bad_json"),
        (b"Internal Server Error", "bad_json"),
        (b"data: [DONE]\n\n", "bad_json"),
        (b"data: {broken\n\n", "bad_json"),
        (b'data: {"balance": 1}\n\n', "bad_json"),
        (events(delta("4"), {"error": {"message": "out of memory"}}), "stream_error"),
    ],
)
def test_broken_streams_are_caught(body: bytes, problem: str) -> None:
    """A stream without events, with an unreadable one or with an error is no answer."""
    with pytest.raises(Wrong) as caught:
        answers.parse(body, stream=True)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ({"usage": USAGE}, 2),
        ({"eval_count": 7}, 7),
        ({"chunks": 3}, 3),
        ({"usage": USAGE, "chunks": 3}, 2),
        ({"usage": {"completion_tokens": 0}}, None),
        ({"usage": {"completion_tokens": True}}, None),
        ({"usage": {"completion_tokens": 10**40}}, None),
        ({"usage": {"completion_tokens": "2"}}, None),
        ({"usage": [2]}, None),
        ([], None),
        (None, None),
    ],
)
def test_tokens_are_what_the_maker_counts(answer: Any, count: int | None) -> None:
    """The count is the maker's own, for streams without one the number of events, and nothing that is no count."""
    assert answers.tokens(answer) == count


@pytest.mark.parametrize(
    ("count", "round_trip_s", "first_token_s", "measured"),
    [
        (None, 2.0, None, {}),
        (10, 2.0, None, {"tokens_per_s": 5.0}),
        (10, 2.5, 0.5, {"first_token_s": 0.5, "tokens_per_s": 5.0}),
        (1, 2.0, 1.9, {"first_token_s": 1.9, "tokens_per_s": 0.5}),
        (10, 2.0, 2.0, {"first_token_s": 2.0}),
        (None, 2.0, 0.5, {"first_token_s": 0.5}),
    ],
)
def test_measures(
    count: int | None, round_trip_s: float, first_token_s: float | None, measured: dict[str, float]
) -> None:
    """The rate is tokens over the time of writing, without the wait for the first one where that is known."""
    assert answers.measures(count, round_trip_s, first_token_s) == measured
