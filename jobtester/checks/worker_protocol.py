"""Send check tasks to a worker process and reports back, as JSON and plain bytes.

Connections of `multiprocessing` frame the messages, but nothing is ever pickled: a decoder that a stranger's file has
taken over could make a pickle run code in the daemon. JSON can carry nothing but values.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import orjson

from jobtester.checks.base import AssetMetadata, Check, Expectation, FetchedFile
from jobtester.checks.evaluation import CheckReport, CheckTask
from jobtester.checks.registry import CHECK_TYPES
from jobtester.domain.reasons import Fault, Finding, Note
from jobtester.domain.result_details import RECEIVED_TYPES, ReceivedFile

# A report repeats from the answer at most the addresses that it names, so it is never larger than the largest answer.
# A worker that sends more is not sending a report, and the daemon does not make room for it.
_MAX_MESSAGE_BYTES = 32 * 2**20
_DIGEST = re.compile("[0-9a-f]{64}")


def send_message(link: Connection, message: Mapping[str, Any]) -> None:
    """Send one JSON message. Raises OSError if the other side is gone."""
    link.send_bytes(orjson.dumps(message))


def receive_message(link: Connection) -> dict[str, Any]:
    """Return the next JSON message.

    Raises EOFError or OSError if the other side is gone, OSError for a message that is too large, and ValueError for
    one that is not JSON.
    """
    message: dict[str, Any] = orjson.loads(link.recv_bytes(_MAX_MESSAGE_BYTES))
    return message


def send_task(link: Connection, task: CheckTask, *, cpu_s: float) -> None:
    """Send a task that may take `cpu_s` seconds of processor time: a JSON header, then body and files as they are."""
    files = None if task.files is None else list(task.files.values())
    header = {
        "checks": [(check.name, check.params) for check in task.expectation.checks],
        "parameters": task.expectation.parameters,
        "inputs": task.expectation.inputs,
        "is_streamed": task.expectation.is_streamed,
        "files": None
        if files is None
        else [(file.url, file.status, file.problem, file.is_uncertain) for file in files],
    }
    send_message(link, {"task": header, "cpu_s": cpu_s})
    link.send_bytes(task.body)
    for file in files or ():
        link.send_bytes(file.body)


def receive_task(link: Connection, header: Mapping[str, Any]) -> CheckTask:
    """Return the task whose header has arrived. Raises EOFError or OSError if the daemon is gone."""
    expectation = Expectation(
        checks=tuple(
            Check(name, CHECK_TYPES[name].params(**_restore_tuples(params))) for name, params in header["checks"]
        ),
        parameters=header["parameters"],
        inputs={name: AssetMetadata(**_restore_tuples(facts)) for name, facts in header["inputs"].items()},
        is_streamed=header["is_streamed"],
    )
    body = link.recv_bytes()
    if header["files"] is None:
        return CheckTask(expectation, body)
    files = {
        url: FetchedFile(url, status, link.recv_bytes(), problem, is_uncertain)
        for url, status, problem, is_uncertain in header["files"]
    }
    return CheckTask(expectation, body, files)


def _restore_tuples(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a frozen value: JSON has no tuples, and frozen values have no lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}


def encode_report(report: CheckReport) -> dict[str, Any]:
    """Return a report as values that JSON can carry."""
    return asdict(report)


def decode_report(message: Mapping[str, Any]) -> CheckReport:
    """Return the report that `encode_report` made a message of."""
    findings = tuple(
        Finding(
            facts["check"],
            facts["problem"],
            facts["message"],
            Fault(facts["fault"]),
            tuple(Note(**note) for note in facts["notes"]),
        )
        for facts in message["findings"]
    )
    return CheckReport(findings, tuple(message["urls"]), message["tokens"])


def encode_received(file: ReceivedFile | None) -> dict[str, Any]:
    """Return a received file as values that JSON can carry."""
    if file is None:
        return {"received": None}
    return {"received": asdict(file) | {"content": base64.b64encode(file.content).decode()}}


def decode_received(message: Mapping[str, Any]) -> ReceivedFile | None:
    """Return the file that `encode_received` made a message of.

    It is stored and served, and a decoder that a file has taken over may have written it. So it is only believed to be
    what it can be; raises KeyError, TypeError or ValueError otherwise.
    """
    fields = message["received"]
    if fields is None:
        return None
    numbers = {name: fields[name] for name in ("original_size", "width", "height", "seconds")}
    is_sound = fields["content_type"] in RECEIVED_TYPES and _DIGEST.fullmatch(fields["sha256"])
    if not is_sound or not all(isinstance(value, int | float) and 0 <= value < 2**40 for value in numbers.values()):
        raise ValueError("is not a received file")
    seconds = float(numbers.pop("seconds"))
    return ReceivedFile(
        content_type=fields["content_type"],
        content=base64.b64decode(fields["content"], validate=True),
        sha256=fields["sha256"],
        seconds=seconds,
        **{name: int(value) for name, value in numbers.items()},
    )
