"""Streams become the answers they would have been, and tokens are counted on the text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from jobtester.checks.answer_body import count_tokens, measure_tokens, parse_answer
from jobtester.checks.base import Check, CheckFailedError, NoteCollector
from jobtester.checks.chat import Params as ChatParams
from jobtester.checks.evaluation import CheckTask, evaluate
from tests.unit.corpus.answers import expected_word, request


def events(*chunks: dict[str, Any], end: str = "") -> bytes:
    """Write a stream of events."""
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + end.encode()


def delta(content: str | None = None, *, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one event of a streamed completion."""
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
    """Whichever server streams, the text is assembled with its finish reason."""
    answer = parse_answer(stream, stream=True)
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "42"}
    assert choice["finish_reason"] == "stop"


WHOLE = json.dumps(delta("42", reason="stop")).encode()
FORMS: dict[str, tuple[bytes, set[str]]] = {
    "without a blank": (GATEWAY.replace(b"data: ", b"data:"), set()),
    "without empty lines": (GATEWAY.replace(b"\n\n", b"\n"), set()),
    "ended by returns": (GATEWAY.replace(b"\n", b"\r"), set()),
    "a byte order mark": (b"\xef\xbb\xbf" + GATEWAY, {"byte_order_mark"}),
    "named events": (b"event: message\nid: 7\nretry: 3\n" + GATEWAY, set()),
    "OpenRouter's pings": (b": OPENROUTER PROCESSING\n\n" + GATEWAY, set()),
    "pings as data": (b"data: ping\n\n" + GATEWAY + b'event: ping\ndata: {"type": "ping"}\n\n', set()),
    "an event in several lines": (b"data: " + WHOLE.replace(b", ", b",\ndata: ") + b"\n\n", {"split_event"}),
    "an event whose lines lack their names": (b"data: " + WHOLE.replace(b", ", b",\n") + b"\n\n", {"split_event"}),
    "no end mark": (events(delta("4"), delta("2")), set()),
    "null for a content": (events({"choices": [{"index": 0, "delta": {"content": None}}]}) + GATEWAY, set()),
    "null for choices": (events({"choices": None}) + GATEWAY, set()),
    "usage before all": (events({"choices": [], "usage": USAGE}) + GATEWAY, set()),
    "another index": (GATEWAY.replace(b'"index": 0', b'"index": 2'), set()),
    "two choices": (events({"choices": [{"index": 1, "delta": {"content": "7"}}]}) + GATEWAY, {"choices"}),
    "parts": (events(delta([{"type": "text", "text": "42"}], reason="stop")), {"content_parts"}),  # type: ignore[arg-type]
    "thoughts": (events({"choices": [{"delta": {"reasoning_content": "41?"}}]}) + GATEWAY, set()),
    "the whole at the end": (
        GATEWAY[: GATEWAY.rindex(b"data:")]
        + events({"choices": [{"index": 0, "message": {"content": "42"}, "finish_reason": "stop"}]}),
        set(),
    ),
    "an error after the end": (GATEWAY + events({"error": {"message": "late"}}), {"error"}),
    "Ollama's lines": (
        b'{"message":{"role":"assistant","content":"4"},"done":false}\n'
        b'{"message":{"role":"assistant","content":"2"},"done":true,"done_reason":"stop"}\n',
        {"lines"},
    ),
    "Anthropic's": (
        events(
            {"type": "message_start", "message": {"role": "assistant", "content": []}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "42"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        ),
        set(),
    ),
    "OpenAI's responses": (
        events({"type": "response.output_text.delta", "delta": "42"}, {"type": "response.completed"}),
        set(),
    ),
    "empty lines without end": (GATEWAY + b"\n" * 100_000, set()),
    "zeros behind it": (GATEWAY + bytes(100), {"padding"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_stream_is_read(name: str) -> None:
    """However a server writes its events, the text is assembled, and what is odd is noted."""
    body, noted = FORMS[name]
    notes = NoteCollector()
    answer = parse_answer(body, stream=True, notes=notes)
    assert answer["choices"][0]["message"]["content"] == "42"
    assert {note.code for note in notes.for_check("body")} == noted


def test_the_checks_run_on_streams_too() -> None:
    """A streamed completion is checked like any other, and a wrong one is caught."""
    expectation = replace(request("llm").expectation, is_streamed=True)
    right = evaluate(CheckTask(expectation, events(delta(expected_word("llm")), delta("", reason="stop"))))
    wrong = evaluate(CheckTask(expectation, events(delta("no idea"))))
    assert [finding.problem for finding in (*right.findings, *wrong.findings)] == ["", "contains"]


def test_an_answer_that_was_not_streamed_is_taken() -> None:
    """A server that ignores `stream` answers as JSON, which is as good."""
    assert parse_answer(b' {"choices": []}', stream=True) == {"choices": []}


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
    with pytest.raises(CheckFailedError) as caught:
        parse_answer(body, stream=True)
    assert caught.value.problem == problem


SENTENCE = "A bear is a large mammal that lives in forests and eats fish, 42 of them."
WRITTEN = 18  # words, numbers and signs


def whole(content: str = SENTENCE, *, counted: Any = None, **message: Any) -> dict[str, Any]:
    """Return a completion that was not streamed; `counted` is its `completion_tokens`."""
    usage = {} if counted is None else {"usage": {"completion_tokens": counted}}
    return {"choices": [{"index": 0, "message": {"content": content, **message}, "finish_reason": "stop"}], **usage}


def stream_completion(*, counted: int | None = None) -> bytes:
    """Return a completion that was streamed, a token in each event."""
    pieces = [delta(f"{word} ") for word in SENTENCE.split()]
    usage = {} if counted is None else {"usage": {"completion_tokens": counted}}
    return events(*pieces, {**delta("", reason="stop"), **usage}, end="data: [DONE]\n\n")


@pytest.mark.parametrize(
    "counted", [None, WRITTEN, 2 * WRITTEN, 2 * WRITTEN + 1, 50 * WRITTEN, 0, 1, True, "2", 10**40]
)
def test_what_a_server_counts_changes_no_rate(counted: Any) -> None:
    """The tokens that a rate is measured on are those of the text; far more than it shows are measured on nothing."""
    expected = None if counted == 50 * WRITTEN else WRITTEN
    assert count_tokens(whole(counted=counted)) == expected
    if type(counted) is int:
        assert count_tokens(parse_answer(stream_completion(counted=counted), stream=True)) == expected


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        (whole("42"), 1),
        (whole("42", counted=4), 1),
        (whole("lighthouse"), 2),
        (whole("你好，世界。"), 6),
        (whole("42", reasoning_content="They want 42."), 5),
        (whole("42", counted=900, reasoning_content=SENTENCE), 1 + WRITTEN),
        (
            {**whole("42"), "usage": {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 300}}},
            None,
        ),
        ({"message": {"content": SENTENCE}, "eval_count": 2 * WRITTEN}, WRITTEN),
        ({"usage": {"completion_tokens": 7}}, None),
        (whole(""), None),
        ([], None),
        (None, None),
    ],
)
def test_tokens_are_counted_on_the_text(answer: Any, count: int | None) -> None:
    """Words, numbers and signs, thoughts that are shown included; hidden ones cannot be counted."""
    assert count_tokens(answer) == count


def notes_on(answer: bytes, *, stream: bool) -> set[str]:
    """Return the notes on an answer to any question."""
    expectation = replace(request("llm").expectation, checks=(Check("chat", ChatParams()),), is_streamed=stream)
    (finding,) = evaluate(CheckTask(expectation, answer)).findings
    assert finding.passed, finding.message
    return {note.code for note in finding.notes} - {"usage"}


def test_tokens_that_are_counted_twice_are_noted() -> None:
    """Twice the pieces of a stream, or far more than the text has; an honest count is not."""
    pieces = len(SENTENCE.split())
    assert notes_on(stream_completion(counted=2 * pieces), stream=True) == {"token_count"}
    assert notes_on(stream_completion(counted=pieces + 2), stream=True) == set()
    assert notes_on(json.dumps(whole(SENTENCE * 3, counted=6 * WRITTEN)).encode(), stream=False) == {"token_count"}
    assert notes_on(json.dumps(whole(SENTENCE * 3, counted=4 * WRITTEN)).encode(), stream=False) == set()


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
    assert measure_tokens(count, round_trip_s, first_token_s) == measured
