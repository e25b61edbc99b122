"""The examiner: has answers looked at without ever holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from jobtester.checks.answer_body import token_measures
from jobtester.checks.base import Expectation, FetchedFile
from jobtester.checks.evaluation import CheckReport, CheckTask, evaluate_inline
from jobtester.checks.worker import Worker, WorkerLostError
from jobtester.domain.reasons import Fault, Finding, Note

_SMALL = 16 * 1024  # bytes up to which reading and checking takes less time than handing it over
_LARGEST = 24 * 2**20  # bytes up to which an answer with its files is looked at


class RetrievedFile(Protocol):
    """A file as it was fetched."""

    @property
    def status(self) -> int | None: ...
    @property
    def body(self) -> bytes: ...
    @property
    def problem(self) -> str: ...
    @property
    def is_uncertain(self) -> bool: ...


Fetch = Callable[[str], Awaitable[RetrievedFile]]


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """What was found. `artifact_s` is how long fetching took, None where there was nothing to fetch."""

    findings: tuple[Finding, ...] = ()
    artifact_s: float | None = None
    tokens: int | None = None

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return what is odd about the answer and held against nobody."""
        return tuple(note for finding in self.findings for note in finding.notes)

    def measures(self, round_trip_s: float, first_token_s: float | None = None) -> Mapping[str, float]:
        """Give `first_token_s` and `tokens_per_s` where they are known, and nothing for an answer that is wrong."""
        if not all(finding.passed for finding in self.findings):
            return {}
        return token_measures(self.tokens, round_trip_s, first_token_s)


class AnswerChecker:
    """Looks at answers: small ones of plain JSON at once, all others in processes that are killed if they overrun.

    `cpu_s` is the processor time in seconds that looking at one answer may take; the machine being busy does not count
    against anybody. `wall_s` is when a worker is given up, which is the tester's fault. Workers start when needed and
    end after `idle_s` seconds without work.
    """

    def __init__(self, *, workers: int = 2, cpu_s: float = 2.0, wall_s: float = 20.0, idle_s: float = 30.0) -> None:
        """Start nothing yet."""
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self._idle_s = idle_s
        self._threads = ThreadPoolExecutor(workers, "checker")
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._rest: asyncio.TimerHandle | None = None

    async def check(self, expectation: Expectation, body: bytes, *, fetch: Fetch) -> CheckedAnswer:
        """Look at one answer; the files that it names are fetched first, by `fetch`, all at the same time."""
        task = CheckTask(expectation, body)
        report = await self._look(task)
        if not report.urls:
            return CheckedAnswer(report.findings, None, report.tokens)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            fetching = {url: group.create_task(_fetched(fetch, url)) for url in report.urls}
        took = loop.time() - began
        artifacts = {url: artifact.result() for url, artifact in fetching.items()}
        report = await self._look(replace(task, files=artifacts))
        return CheckedAnswer(report.findings, took, report.tokens)

    async def close(self) -> None:
        """End every worker, also those at work."""
        if self._rest is not None:
            self._rest.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._busy):
            worker.process.kill()
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        await asyncio.to_thread(self._stop_idle)

    async def _look(self, task: CheckTask) -> CheckReport:
        if task.size <= _SMALL:
            report = evaluate_inline(task)
            if report is not None:
                return report
        if task.size > _LARGEST:
            return _failed(task, "too_large", f"answer and files have {task.size} bytes, more than any right answer")
        loop = asyncio.get_running_loop()
        report = await loop.run_in_executor(self._threads, self._ask, task)
        if self._rest is not None:
            self._rest.cancel()
        self._rest = loop.call_later(self._idle_s, self._threads.submit, self._stop_idle)
        return report

    def _ask(self, task: CheckTask) -> CheckReport:
        """Have a worker look, on a thread of ours."""
        try:
            worker = self._worker()
        except OSError as error:  # no process, no memory or no descriptor is left
            return _failed(task, "unchecked", f"the answer could not be looked at: {error}", Fault.TESTER)
        self._busy.add(worker)
        try:
            report = worker.evaluate(task, cpu_s=self._cpu_s)
        except WorkerLostError as lost:
            if lost.exceeded_cpu:
                message = f"looking at the answer takes more than the {self._cpu_s:g} s that the tester grants"
                return _failed(task, "too_slow", message, Fault.TESTER)
            return _failed(task, "unchecked", f"the answer could not be looked at: {lost}", Fault.TESTER)
        except BaseException:  # in what state it is nobody knows
            worker.kill()
            raise
        finally:
            self._busy.discard(worker)
        if report.is_out_of_memory:
            worker.stop()  # what it holds is not worth keeping
        else:
            self._idle.append(worker)
        return report

    def _worker(self) -> Worker:
        while (worker := self._idle_one()) is not None:
            if worker.is_alive:
                return worker
            worker.stop()
        return Worker.start(wall_s=self._wall_s)

    def _idle_one(self) -> Worker | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _stop_idle(self) -> None:
        while (worker := self._idle_one()) is not None:
            worker.stop()


async def _fetched(fetch: Fetch, url: str) -> FetchedFile:
    found = await fetch(url)
    return FetchedFile(url, found.status, found.body, found.problem, found.is_uncertain)


def _failed(task: CheckTask, problem: str, message: str, fault: Fault = Fault.ORCHESTRATOR) -> CheckReport:
    name = next((check.name for check in task.expectation.checks), "body")
    return CheckReport((Finding(name, problem, message, fault),))
