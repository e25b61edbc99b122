"""Tasks and reports cross a real connection unchanged, and nothing else gets through."""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import orjson
import pytest

from jobtester.checks.base import AssetMetadata, Check, Expectation, FetchedFile
from jobtester.checks.caption import Params as CaptionParams
from jobtester.checks.evaluation import CheckReport, CheckTask
from jobtester.checks.worker_protocol import (
    decode_received,
    decode_report,
    encode_received,
    encode_report,
    receive_message,
    receive_task,
    send_message,
    send_task,
)
from jobtester.domain.reasons import Fault, Finding, Note
from jobtester.domain.result_details import ReceivedFile

EXPECTATION = Expectation(
    checks=(Check("caption", CaptionParams(words=("ball",))),),
    parameters={"n": 1, "prompt": "what is it?"},
    inputs={
        "image": AssetMetadata(sha256="ab", width=64, height=48, box=(1, 2, 3, 4), caption_words=("ball", "grass"))
    },
    is_streamed=True,
)
FILES: dict[str, dict[str, FetchedFile] | None] = {
    "not fetched yet": None,
    "no files": {},
    "files": {
        "/a": FetchedFile("/a", 200, bytes(range(256)) * 20),
        "/empty": FetchedFile("/empty", 200),
        "/gone": FetchedFile("/gone", None, problem="no route", is_uncertain=True),
    },
}


@pytest.fixture
def link() -> Iterator[tuple[Connection, Connection]]:
    """Yield both ends of a connection."""
    ours, theirs = Pipe()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("body", [b"", b"null", b"\xff" * 10_000], ids=["empty", "short", "not UTF-8"])
@pytest.mark.parametrize("name", FILES)
def test_a_task_arrives_as_it_was_sent(link: tuple[Connection, Connection], name: str, body: bytes) -> None:
    """Whatever bytes the body and the files have, they reach the worker with all that is expected of the answer."""
    sender, receiver = link
    task = CheckTask(EXPECTATION, body, FILES[name])
    send_task(sender, task, cpu_s=1.5)
    message = receive_message(receiver)
    assert message["cpu_s"] == 1.5
    assert receive_task(receiver, message["task"]) == task


@pytest.mark.parametrize(
    "report",
    [
        CheckReport(),
        CheckReport(urls=("/a", "https://gateway/b")),
        CheckReport((Finding("chat", "contains", "…", Fault.TESTER, (Note("chat", "usage", "odd"),)),), tokens=7),
    ],
    ids=["empty", "files to fetch", "a finding"],
)
def test_a_report_arrives_as_it_was_sent(link: tuple[Connection, Connection], report: CheckReport) -> None:
    """Findings, notes, faults and addresses are the same on both sides."""
    sender, receiver = link
    send_message(sender, encode_report(report))
    assert decode_report(receive_message(receiver)) == report


def test_a_pickle_is_refused(link: tuple[Connection, Connection]) -> None:
    """A worker that a file has taken over cannot have an object made in the daemon."""
    sender, receiver = link
    sender.send_bytes(pickle.dumps(Note("chat", "usage", "odd")))
    with pytest.raises(orjson.JSONDecodeError):
        receive_message(receiver)


def test_a_message_that_is_too_large_is_refused() -> None:
    """Its length is announced first, and no memory is taken for it."""
    ours, theirs = socket.socketpair()
    with theirs, Connection(ours.detach()) as receiver:
        theirs.sendall(struct.pack("!i", 2**30))
        with pytest.raises(OSError, match="length"):
            receive_message(receiver)


def test_the_end_of_the_other_side_is_an_error(link: tuple[Connection, Connection]) -> None:
    """Neither side waits for a process that is gone."""
    sender, receiver = link
    sender.close()
    with pytest.raises(EOFError):
        receive_message(receiver)


GOOD_FILE = ReceivedFile("image/jpeg", b"\xff\xd8", "ab" * 32, 900, 512, 512)


def test_a_received_file_survives_the_way() -> None:
    """What a worker sends of a file is what the daemon gets, none included."""
    assert decode_received(orjson.loads(orjson.dumps(encode_received(GOOD_FILE)))) == GOOD_FILE
    assert decode_received(encode_received(None)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"content_type": "text/html"}, {"sha256": "<b>"}, {"sha256": 7}, {"width": -1}, {"width": "512"},
        {"height": None}, {"seconds": 1e300}, {"content": "?"}, {"content": 7}, {"original_size": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_received_file_is_not_believed(change: dict[str, object]) -> None:
    """A worker that was taken over can neither choose a type nor store texts or numbers that no file has."""
    message = encode_received(GOOD_FILE)
    message["received"] |= change
    with pytest.raises((KeyError, TypeError, ValueError)):
        decode_received(message)
