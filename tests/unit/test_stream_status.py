"""Stream status: what gateways say of streams is read safely, and adds up to who served and what went wrong."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtester.domain.stream_status import StreamStatus, StreamTrace, UnusableStatusError

ORCHESTRATOR = "https://orchestrator.example:8935"


def status(**values: Any) -> StreamStatus:
    """Return the status that a gateway's answer with these values is read as."""
    return StreamStatus.from_json(orjson.dumps(values))


def running(start_time: int = 1, **inference: Any) -> StreamStatus:
    """Return a status of a stream that the orchestrator serves."""
    return status(
        state="ONLINE",
        start_time=start_time,
        inference_status=inference,
        orchestrator_info={"address": "0x" + "a" * 40, "url": ORCHESTRATOR},
        request_id="4586d6b2",
        gateway_status={"whep_url": ""},
    )


def test_a_whole_status_is_read() -> None:
    """Every value that decides something comes out of an answer."""
    parsed = running(7, fps=23.5, last_params_hash="abc", restart_count=2, last_error="out of memory")
    assert parsed.has_runner_event
    assert (parsed.state, parsed.orchestrator_url, parsed.request_id) == ("ONLINE", ORCHESTRATOR, "4586d6b2")
    assert (parsed.inference_fps, parsed.params_hash, parsed.restarts) == (23.5, "abc", 2)
    assert (parsed.runner_started_ms, parsed.runner_error) == (7, "out of memory")


def test_the_gateway_alone_is_no_event_of_a_runner() -> None:
    """An answer of 200 without a runner's event does not mean that the stream is ready."""
    alone = status(gateway_status={"error": {"error_message": "no orchestrators available"}})
    assert not alone.has_runner_event
    assert alone.has_found_nobody


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b'"ONLINE"', b"\xff"])
def test_an_answer_that_is_no_object_is_refused(body: bytes) -> None:
    """What is no JSON object is no status."""
    with pytest.raises(UnusableStatusError):
        StreamStatus.from_json(body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("state", "start_time", "orchestrator_info", "inference_status", "gateway_status", "request_id", "input_status")


@given(st.dictionaries(st.sampled_from(KEYS), json_values))
def test_any_object_is_read_without_harm(values: dict[str, Any]) -> None:
    """Wrong types are as good as missing values, and what is shown has no control characters."""
    try:
        body = orjson.dumps(values)
    except TypeError:  # lone surrogates, which no answer can have either
        return
    parsed = StreamStatus.from_json(body)
    shown = parsed.state + parsed.orchestrator_url + parsed.gateway_error + parsed.runner_error
    assert all(character.isprintable() or character in "\u00a0\u3000 " or ord(character) > 159 for character in shown)
    StreamTrace().add(parsed, 1.0)


def test_a_trace_names_each_orchestrator_once_for_each_change() -> None:
    """A swap and the way back are two changes."""
    other = status(state="ONLINE", orchestrator_info={"url": "https://other.example:8935"})
    trace = StreamTrace()
    for at_s, seen in enumerate([running(), running(), other, running()]):
        trace = trace.add(seen, float(at_s))
    assert trace.orchestrator_urls == (ORCHESTRATOR, "https://other.example:8935", ORCHESTRATOR)
    assert trace.swaps == 2
    assert trace.was_served_by(ORCHESTRATOR) is False


@pytest.mark.parametrize(
    ("service_uri", "is_same"),
    [
        (ORCHESTRATOR, True),
        ("https://orchestrator.example:8935/", True),
        ("https://ORCHESTRATOR.example:8935", True),
        ("https://orchestrator.example:893", False),
        ("http://orchestrator.example:8935", False),
        ("https://orchestrator.example.org:8935", False),
    ],
)
def test_the_whole_url_decides_who_served(service_uri: str, is_same: bool) -> None:
    """A part of a URL names somebody else."""
    assert StreamTrace().add(running(), 1.0).was_served_by(service_uri) is is_same


def test_nobody_is_named_before_the_gateway_says_who() -> None:
    """Without a name it is unknown who served, not false."""
    assert StreamTrace().was_served_by(ORCHESTRATOR) is None


def test_a_stream_is_forgotten_once_the_gateway_has_known_it() -> None:
    """A status that names nobody, or a connection that broke, shows that the gateway had the stream."""
    assert StreamTrace().add_unknown(1.0) == StreamTrace(unknown_s=1.0)
    alone = status(gateway_status={"whep_url": ""})
    assert StreamTrace().add(alone, 1.0).add_unknown(2.0).is_forgotten
    assert StreamTrace().add(running(), 1.0).add_unknown(2.0).is_forgotten
    assert StreamTrace().add_unknown(2.0, is_taken=True).is_forgotten


def test_a_new_start_on_the_same_orchestrator_is_a_swap() -> None:
    """Under a pin only the runner's start time tells that the stream was begun again."""
    assert StreamTrace().add(running(1), 1.0).add(running(2), 2.0).swaps == 1


def test_errors_of_a_regular_end_are_none() -> None:
    """A gateway calls the end of its input an error."""
    trace = StreamTrace()
    for message in ("mediamtx ingest disconnected", "Next segment has started", "trickle subscribe error reading: x"):
        trace = trace.add(status(gateway_status={"error": {"error_message": message}}), 1.0)
    assert trace.gateway_errors == ("trickle subscribe error reading: x",)


def test_applied_parameters_are_seen_by_their_hash_once_they_are_awaited() -> None:
    """A hash that was reported before the change proves nothing."""
    trace = StreamTrace().add(running(last_params_hash="abc"), 1.0)
    assert trace.applied_s is None
    trace = trace.add(running(last_params_hash="abc"), 2.0, awaited_hashes={"abc"})
    assert trace.add(running(last_params_hash="abc"), 3.0, awaited_hashes={"abc"}).applied_s == 2.0


def test_a_hostile_gateway_cannot_fill_the_trace() -> None:
    """Changes are bounded in number."""
    trace = StreamTrace()
    for number in range(1000):
        seen = status(state=f"S{number}", start_time=number, orchestrator_info={"url": f"https://{number}.example"})
        trace = trace.add(seen, float(number))
    assert len(trace.states) <= 100
    assert len(trace.orchestrator_urls) <= 100
