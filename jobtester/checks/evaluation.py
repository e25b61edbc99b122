"""Looking: everything that happens to one answer once it is there, as one pure function, and how the task travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

import orjson

from jobtester.checks.answer_body import count_tokens, parse_answer
from jobtester.checks.base import (
    AssetMetadata,
    Check,
    CheckFailedError,
    CheckInput,
    Expectation,
    FetchedFile,
    NoteCollector,
)
from jobtester.checks.registry import CHECK_TYPES, file_urls, is_inline, run_check
from jobtester.domain.notes import Note
from jobtester.domain.reasons import Fault, Finding

_LENGTH = 8  # bytes before each message that say how long it is


@dataclass(frozen=True, slots=True)
class CheckTask:
    """One answer to look at. `artifacts` is None before the files it names were fetched."""

    expectation: Expectation
    body: bytes
    files: Mapping[str, FetchedFile] | None = None

    @property
    def size(self) -> int:
        """Give how many bytes there are to look at."""
        return len(self.body) + sum(len(artifact.body) for artifact in (self.files or {}).values())


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found; or, where `urls` is not empty, which files have to be fetched before anything can be said."""

    findings: tuple[Finding, ...] = ()
    urls: tuple[str, ...] = ()
    tokens: int | None = None

    @property
    def out_of_memory(self) -> bool:
        """Tell whether the memory was not enough."""
        return any(finding.problem == "too_heavy" for finding in self.findings)


def evaluate(task: CheckTask) -> CheckReport:
    """Read the answer and run every check on it. Raises nothing but MemoryError while reading."""
    notes = NoteCollector()
    report, answer = _read(task, notes)
    return report or _checked(task, answer, notes)


def evaluate_inline(task: CheckTask) -> CheckReport | None:
    """Look at a small answer as far as that takes microseconds; None where it takes a worker to go on."""
    notes = NoteCollector()
    report, answer = _read(task, notes)
    if report is None and is_inline(task.expectation.checks):
        return _checked(task, answer, notes)
    return report


def _read(task: CheckTask, notes: NoteCollector) -> tuple[CheckReport | None, Any]:
    """Read the answer; the report is None where the checks can run."""
    chat = any(check.name == "chat" for check in task.expectation.checks)
    try:
        answer = parse_answer(task.body, stream=task.expectation.is_streamed, chat=chat, notes=notes)
    except CheckFailedError as wrong:
        return CheckReport((Finding("body", wrong.problem, wrong.message, wrong.fault, notes.for_check("body")),)), None
    wanted = file_urls(task.expectation.checks, answer) if task.files is None else ()
    return (CheckReport(urls=tuple(wanted)) if wanted else None), answer


def _checked(task: CheckTask, answer: Any, notes: NoteCollector) -> CheckReport:
    sample = CheckInput(answer, task.expectation, task.files or {})
    findings = tuple(run_check(check, sample) for check in task.expectation.checks)
    if odd := notes.for_check("body"):
        findings = (Finding("body", notes=odd), *findings)
    chat = next((check.params for check in task.expectation.checks if check.name == "chat"), None)
    return CheckReport(findings, tokens=count_tokens(answer, chat.path) if chat else None)


def write_task(task: CheckTask, out: BinaryIO, *, cpu_s: float) -> None:
    """Write a task: one JSON message, then the bytes of body and artifacts as they are.

    `cpu_s` is the processor time that looking may take, in seconds.
    """
    artifacts = None if task.files is None else list(task.files.values())
    expectation = task.expectation
    header = {
        "checks": [(check.name, check.params) for check in expectation.checks],
        "parameters": expectation.parameters,
        "inputs": expectation.inputs,
        "is_streamed": expectation.is_streamed,
        "body": len(task.body),
        "artifacts": artifacts
        if artifacts is None
        else [(one.url, one.status, one.problem, one.is_uncertain, len(one.body)) for one in artifacts],
    }
    write_message({"task": header, "cpu_s": cpu_s}, out)
    out.write(task.body)
    for artifact in artifacts or ():
        out.write(artifact.body)
    out.flush()


def read_task(header: Mapping[str, Any], source: BinaryIO) -> CheckTask:
    """Read the rest of a task whose header has come. Raises EOFError where the sender went away."""
    expectation = Expectation(
        checks=tuple(Check(name, CHECK_TYPES[name].params(**params)) for name, params in header["checks"]),
        parameters=header["parameters"],
        inputs={name: _truth(facts) for name, facts in header["inputs"].items()},
        is_streamed=header["is_streamed"],
    )
    task = CheckTask(expectation, read_exactly(source, header["body"]))
    if header["artifacts"] is None:
        return task
    found = (
        FetchedFile(url, status, read_exactly(source, size), problem, unsure)
        for url, status, problem, unsure, size in header["artifacts"]
    )
    return replace(task, files={artifact.url: artifact for artifact in found})


def encode_report(report: CheckReport) -> dict[str, Any]:
    """Give a report as plain values: nothing but JSON comes back from where strangers' bytes were decoded."""
    return asdict(report)


def decode_report(message: Mapping[str, Any]) -> CheckReport:
    """Read a report again."""
    findings = tuple(map(_finding, message["findings"]))
    return CheckReport(findings, tuple(message["urls"]), message["tokens"])


def _finding(facts: Mapping[str, Any]) -> Finding:
    notes = tuple(Note(**note) for note in facts["notes"])
    return Finding(facts["check"], facts["problem"], facts["message"], Fault(facts["fault"]), notes)


def write_message(message: Mapping[str, Any], out: BinaryIO) -> None:
    """Write one JSON message with its length before it."""
    encoded = orjson.dumps(message)
    out.write(len(encoded).to_bytes(_LENGTH, "big") + encoded)


def read_message(source: BinaryIO) -> dict[str, Any] | None:
    """Read one JSON message; None where the other side has gone."""
    try:
        length = int.from_bytes(read_exactly(source, _LENGTH), "big")
        message: dict[str, Any] = orjson.loads(read_exactly(source, length))
    except EOFError:
        return None
    return message


def read_exactly(source: BinaryIO, size: int) -> bytes:
    """Read so many bytes. Raises EOFError where there are fewer."""
    content = source.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _truth(facts: Mapping[str, Any]) -> AssetMetadata:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return AssetMetadata(**plain)
