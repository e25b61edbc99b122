"""Looking: everything that happens to one answer once it is there, as one pure function, and how the task travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO

import orjson

from jobtester.domain.notes import Note
from jobtester.domain.outcome import Fault, Finding
from jobtester.pipelines import answers
from jobtester.pipelines.checks import registry
from jobtester.pipelines.checks.sample import Artefact, Check, Expectation, Notes, Sample, Truth, Wrong

_LENGTH = 8  # bytes before each message that say how long it is


@dataclass(frozen=True, slots=True)
class Task:
    """One answer to look at. `artefacts` is None before the files it names were fetched."""

    expectation: Expectation
    body: bytes
    stream: bool = False
    artefacts: Mapping[str, Artefact] | None = None

    @property
    def size(self) -> int:
        """Give how many bytes there are to look at."""
        return len(self.body) + sum(len(artefact.body) for artefact in (self.artefacts or {}).values())


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; or, where `urls` is not empty, which files have to be fetched before anything can be said."""

    findings: tuple[Finding, ...] = ()
    urls: tuple[str, ...] = ()
    tokens: int | None = None

    @property
    def heavy(self) -> bool:
        """Tell whether the memory was not enough."""
        return any(finding.problem == "too_heavy" for finding in self.findings)


def look(task: Task) -> Report:
    """Read the answer and run every check on it. Raises nothing but MemoryError while reading."""
    notes = Notes()
    report, answer = _read(task, notes)
    return report or _checked(task, answer, notes)


def glance(task: Task) -> Report | None:
    """Look at a small answer as far as that takes microseconds; None where it takes a worker to go on."""
    notes = Notes()
    report, answer = _read(task, notes)
    if report is None and registry.light(task.expectation.checks):
        return _checked(task, answer, notes)
    return report


def _read(task: Task, notes: Notes) -> tuple[Report | None, Any]:
    """Read the answer; the report is None where the checks can run."""
    chat = any(check.name == "chat" for check in task.expectation.checks)
    try:
        answer = answers.parse(task.body, stream=task.stream, chat=chat, notes=notes)
    except Wrong as wrong:
        return Report((Finding("body", wrong.problem, wrong.message, wrong.fault, notes.of("body")),)), None
    wanted = registry.urls(task.expectation.checks, answer) if task.artefacts is None else ()
    return (Report(urls=tuple(wanted)) if wanted else None), answer


def _checked(task: Task, answer: Any, notes: Notes) -> Report:
    sample = Sample(answer, task.expectation, task.artefacts or {})
    findings = tuple(registry.run(check, sample) for check in task.expectation.checks)
    if odd := notes.of("body"):
        findings = (Finding("body", notes=odd), *findings)
    chat = next((check.params for check in task.expectation.checks if check.name == "chat"), None)
    return Report(findings, tokens=answers.tokens(answer, chat.path) if chat else None)


def send(task: Task, out: BinaryIO, *, cpu_s: float) -> None:
    """Write a task: one JSON message, then the bytes of body and artefacts as they are.

    `cpu_s` is the processor time that looking may take, in seconds.
    """
    artefacts = None if task.artefacts is None else list(task.artefacts.values())
    expectation = task.expectation
    header = {
        "checks": [(check.name, check.params) for check in expectation.checks],
        "parameters": expectation.parameters,
        "inputs": expectation.inputs,
        "stream": task.stream,
        "body": len(task.body),
        "artefacts": artefacts
        if artefacts is None
        else [(one.url, one.status, one.problem, one.unsure, len(one.body)) for one in artefacts],
    }
    write({"task": header, "cpu_s": cpu_s}, out)
    out.write(task.body)
    for artefact in artefacts or ():
        out.write(artefact.body)
    out.flush()


def receive(header: Mapping[str, Any], source: BinaryIO) -> Task:
    """Read the rest of a task whose header has come. Raises EOFError where the sender went away."""
    expectation = Expectation(
        checks=tuple(Check(name, registry.KINDS[name].params(**params)) for name, params in header["checks"]),
        parameters=header["parameters"],
        inputs={name: _truth(facts) for name, facts in header["inputs"].items()},
    )
    task = Task(expectation, exactly(source, header["body"]), header["stream"])
    if header["artefacts"] is None:
        return task
    found = (
        Artefact(url, status, exactly(source, size), problem, unsure)
        for url, status, problem, unsure, size in header["artefacts"]
    )
    return replace(task, artefacts={artefact.url: artefact for artefact in found})


def pack(report: Report) -> dict[str, Any]:
    """Give a report as plain values: nothing but JSON comes back from where strangers' bytes were decoded."""
    return asdict(report)


def unpack(message: Mapping[str, Any]) -> Report:
    """Read a report again."""
    findings = tuple(map(_finding, message["findings"]))
    return Report(findings, tuple(message["urls"]), message["tokens"])


def _finding(facts: Mapping[str, Any]) -> Finding:
    notes = tuple(Note(**note) for note in facts["notes"])
    return Finding(facts["check"], facts["problem"], facts["message"], Fault(facts["fault"]), notes)


def write(message: Mapping[str, Any], out: BinaryIO) -> None:
    """Write one JSON message with its length before it."""
    encoded = orjson.dumps(message)
    out.write(len(encoded).to_bytes(_LENGTH, "big") + encoded)


def read(source: BinaryIO) -> dict[str, Any] | None:
    """Read one JSON message; None where the other side has gone."""
    try:
        length = int.from_bytes(exactly(source, _LENGTH), "big")
        message: dict[str, Any] = orjson.loads(exactly(source, length))
    except EOFError:
        return None
    return message


def exactly(source: BinaryIO, size: int) -> bytes:
    """Read so many bytes. Raises EOFError where there are fewer."""
    content = source.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _truth(facts: Mapping[str, Any]) -> Truth:
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    return Truth(**plain)
