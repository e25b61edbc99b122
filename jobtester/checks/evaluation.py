"""Judge one answer: parse its body and run every check on it. Pure, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobtester.checks.answer_body import count_tokens, parse_answer
from jobtester.checks.base import CheckFailedError, CheckInput, Expectation, FetchedFile, NoteCollector
from jobtester.checks.registry import file_urls, is_inline, run_check
from jobtester.domain.reasons import Finding
from jobtester.domain.result_details import ReceivedFile


@dataclass(frozen=True, slots=True)
class CheckTask:
    """One answer to judge. `files` is None until the files that the answer names have been fetched."""

    expectation: Expectation
    body: bytes
    files: Mapping[str, FetchedFile] | None = None

    @property
    def size(self) -> int:
        """Return the bytes of the body and the fetched files together."""
        return len(self.body) + sum(len(file.body) for file in (self.files or {}).values())


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The findings on one answer; or, where `urls` is not empty, the files to fetch before it can be judged.

    `received` is the answer's file made small, where that was asked for.
    """

    findings: tuple[Finding, ...] = ()
    urls: tuple[str, ...] = ()
    tokens: int | None = None
    received: ReceivedFile | None = None

    @property
    def is_out_of_memory(self) -> bool:
        """Return True if a check hit the memory limit of the worker."""
        return any(finding.problem == "too_heavy" for finding in self.findings)


def evaluate(task: CheckTask) -> CheckReport:
    """Return the report on an answer. Raises MemoryError if parsing the body hits the worker's limit."""
    notes = NoteCollector()
    report, answer = _parse_body(task, notes)
    return report or _run_checks(task, answer, notes)


def evaluate_inline(task: CheckTask) -> CheckReport | None:
    """Return the report on a small answer if that takes microseconds; None if a worker has to go on."""
    notes = NoteCollector()
    report, answer = _parse_body(task, notes)
    if report is None and is_inline(task.expectation.checks):
        return _run_checks(task, answer, notes)
    return report


def _parse_body(task: CheckTask, notes: NoteCollector) -> tuple[CheckReport | None, Any]:
    """Return the parsed answer; with a report if nothing can be checked yet, or ever."""
    chat = any(check.name == "chat" for check in task.expectation.checks)
    try:
        answer = parse_answer(task.body, stream=task.expectation.is_streamed, chat=chat, notes=notes)
    except CheckFailedError as error:
        finding = Finding("body", error.problem, error.message, error.fault, notes.for_check("body"))
        return CheckReport((finding,)), None
    urls = file_urls(task.expectation.checks, answer) if task.files is None else ()
    return (CheckReport(urls=tuple(urls)) if urls else None), answer


def _run_checks(task: CheckTask, answer: Any, notes: NoteCollector) -> CheckReport:
    sample = CheckInput(answer, task.expectation, task.files or {})
    findings = tuple(run_check(check, sample) for check in task.expectation.checks)
    if body_notes := notes.for_check("body"):
        findings = (Finding("body", notes=body_notes), *findings)
    chat = next((check.params for check in task.expectation.checks if check.name == "chat"), None)
    return CheckReport(findings, tokens=count_tokens(answer, chat.path) if chat else None)
