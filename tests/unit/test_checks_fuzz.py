"""No answer breaks a check: whatever comes, the finding is about the answer, and comes soon."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobtester.checks import json_field
from jobtester.checks.answer_body import count_tokens
from jobtester.checks.base import Check, CheckFailedError, Expectation, FetchedFile, NoteCollector
from jobtester.checks.chat_stream import assemble_completion
from jobtester.checks.evaluation import CheckReport, CheckTask, evaluate
from jobtester.checks.text import word_error_rate
from jobtester.checks.untrusted_json import find_value, parse_json
from jobtester.checks.worker import Worker
from jobtester.checks.worker_protocol import encode_report
from jobtester.domain.reasons import Fault
from tests.unit.corpus import media_factory as make
from tests.unit.corpus.answers import FILE, GOOD, Case, request

SLUGS = sorted({case.pipeline for case in GOOD})
BY_SLUG = {slug: [case for case in GOOD if case.pipeline == slug and isinstance(case.answer, dict)] for slug in SLUGS}

numbers = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**30, -(10**400), 1e308])
)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=30) | st.sampled_from(["\ud800", "\0", FILE, "data:,"])
keys = st.text(max_size=8) | st.sampled_from(
    ["images", "url", "seed", "text", "chunks", "timestamp", "choices", "message", "content", "usage", "data", "masks"]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)


def evaluate_answer(slug: str, body: bytes, content: bytes = b"") -> CheckReport:
    """Evaluate an answer, every file it names being `content`, within two seconds."""
    started = time.process_time()
    task = CheckTask(request(slug).expectation, body)
    report = evaluate(task)
    if report.urls:
        files = {url: FetchedFile(url, 200, content) for url in report.urls}
        report = evaluate(CheckTask(task.expectation, body, files=files))
    assert time.process_time() - started < 2
    for finding in report.findings:
        assert finding.fault is not Fault.TESTER, finding.message
        assert len(finding.message) < 1000
        finding.message.encode()  # what is shown and posted has to be text
    json.dumps(encode_report(report))
    return report


@pytest.mark.parametrize("slug", SLUGS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=values)
def test_any_json(slug: str, answer: Any) -> None:
    """Any JSON at all is evaluated, and is no right answer."""
    report = evaluate_answer(slug, json.dumps(answer).encode())
    assert not all(finding.passed for finding in report.findings)


@pytest.mark.parametrize("slug", SLUGS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_right_answers_with_one_thing_changed(slug: str, data: st.DataObject) -> None:
    """A right answer of which one part is replaced by anything, or left out, is still evaluated."""
    case: Case = data.draw(st.sampled_from(BY_SLUG[slug]))
    answer = copy.deepcopy(case.answer)
    places = list(_places(answer))
    holder, key = data.draw(st.sampled_from(places[:200]))
    if data.draw(st.booleans()):
        holder[key] = data.draw(values)
    else:
        del holder[key]
    content = next(iter(case.files.values())).body if case.files else b""
    evaluate_answer(slug, json.dumps(answer).encode(), content)


@pytest.mark.parametrize("slug", SLUGS)
@settings(max_examples=30, deadline=None)
@given(body=st.binary(max_size=200))
def test_any_bytes(slug: str, body: bytes) -> None:
    """Bytes that are not JSON are bad JSON and nothing else."""
    report = evaluate_answer(slug, b"\xff" + body)
    assert [finding.problem for finding in report.findings] == ["bad_json"]


MEDIA = {
    "picture": ("image", make.picture(96, 64)),
    "JPEG": ("image", make.picture(96, 64, "JPEG")),
    "WebP": ("image", make.picture(96, 64, "WEBP")),
    "video": ("video", make.video(64, 64, 6)),
    "sound": ("audio", make.sound(0.2, rate=8000)),
    "MP3": ("audio", make.sound(1.2, "mp3")),
    "FLAC": ("audio", make.sound(1.2, "flac")),
}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """Yield one worker for all damaged files; it has to live to the end."""
    shared = Worker.start()
    yield shared
    status = Path(f"/proc/{shared.process.pid}/status").read_text()
    shared.stop()
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
    assert int(peak.split()[1]) < 200 * 1024, "kB, the most that it ever had"


@pytest.mark.parametrize("name", MEDIA)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files(worker: Worker, name: str, data: st.DataObject) -> None:
    """Files with bytes changed, cut out or doubled neither end the decoder's process nor keep it busy."""
    kind, content = MEDIA[name]
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        inserted = data.draw(st.binary(max_size=8))
        length = data.draw(st.sampled_from([0, 1, 4, len(inserted), len(damaged)]))
        damaged[at : at + length] = inserted
        damaged = damaged or bytearray(b"\0")
    expectation = Expectation((Check("json", json_field.Params(path="url", is_=kind)),))  # type: ignore[arg-type]
    files = {"/x": FetchedFile("/x", 200, bytes(damaged))}
    report = worker.evaluate(CheckTask(expectation, b'{"url": "/x"}', files=files), cpu_s=2)
    assert report.findings[0].fault is not Fault.TESTER, report.findings[0].message


@settings(max_examples=200, deadline=None)
@given(body=st.lists(st.binary(max_size=20) | st.just(b"[DONE]") | values.map(lambda v: json.dumps(v).encode())))
def test_any_stream(body: list[bytes]) -> None:
    """A stream of anything becomes a completion, or is refused."""
    whole = b"\n\n".join(b"data: " + line for line in body)
    try:
        answer = assemble_completion(whole, NoteCollector())
    except CheckFailedError as error:
        assert error.problem in ("bad_json", "stream_error")  # noqa: PT017 - either is right
    else:
        assert isinstance(answer["choices"][0]["message"]["content"], str)
        count_tokens(answer)


@given(value=values, path=st.text(alphabet="ab.01", max_size=10))
def test_any_path(value: Any, path: str) -> None:
    """A path leads to what is there, or is missing."""
    try:
        find_value(value, path)
    except CheckFailedError as error:
        assert error.problem == "missing"  # noqa: PT017 - either is right


@given(value=values)
def test_untrusted_json_reads_what_json_writes(value: Any) -> None:
    """Whatever can be written as JSON is parsed to the same, or refused for numbers that nobody sends."""
    written = json.dumps(value)
    try:
        assert parse_json(written) == value
    except ValueError as error:
        assert "digits" in str(error)  # noqa: PT017 - either is right


@given(transcript=st.lists(st.sampled_from("abcd"), max_size=12), spoken=st.lists(st.sampled_from("abcd"), max_size=12))
def test_word_error_rate(transcript: list[str], spoken: list[str]) -> None:
    """The rate is 0 for equal texts only, and never more than replacing every word."""
    rate = word_error_rate(transcript, spoken)
    assert (rate == 0) == (transcript == spoken)
    assert rate <= max(len(transcript), len(spoken)) / max(len(spoken), 1)
    assert round(rate * max(len(spoken), 1)) == round(word_error_rate(spoken, transcript) * max(len(transcript), 1))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in an answer as its holder and key."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(inside):
        yield value, key
        if not isinstance(item, list) or len(item) < 50:
            yield from _places(item)
