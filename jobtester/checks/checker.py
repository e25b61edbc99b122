"""Check answers without ever holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from jobtester.checks.answer_body import measure_tokens
from jobtester.checks.base import Expectation, FetchedFile
from jobtester.checks.evaluation import CheckReport, CheckTask, evaluate_inline
from jobtester.checks.preview import has_media
from jobtester.checks.worker import Worker, WorkerLostError
from jobtester.domain.reasons import Fault, Finding, Note
from jobtester.domain.result_details import ReceivedFile, StreamDetails

_MAX_INLINE_BYTES = 16 * 1024  # up to here, parsing and checking take less time than sending the answer to a worker
# An answer with its files that is larger is not checked. It is far more than any right answer has, and bounds what
# the daemon and its workers hold in memory.
_MAX_TASK_BYTES = 24 * 2**20


class RetrievedFile(Protocol):
    """A file as the gateway's client fetched it; the fields mean what those of FetchedFile mean."""

    @property
    def status(self) -> int | None:
        """Return the HTTP status."""

    @property
    def body(self) -> bytes:
        """Return the content."""

    @property
    def problem(self) -> str:
        """Return why there is no usable body."""

    @property
    def is_uncertain(self) -> bool:
        """Return True if the tester's own network may be at fault."""


Fetch = Callable[[str], Coroutine[Any, Any, RetrievedFile]]


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """The findings on one answer. `artifact_s` is how long fetching took, None if there was nothing to fetch.

    `received` is the answer's file made small, None where nothing is kept; `stream` what a live video did over time.
    """

    findings: tuple[Finding, ...] = ()
    artifact_s: float | None = None
    tokens: int | None = None
    received: ReceivedFile | None = None
    stream: StreamDetails | None = None

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return what is odd about the answer and held against nobody."""
        return tuple(note for finding in self.findings for note in finding.notes)

    def measures(self, round_trip_s: float, first_token_s: float | None = None) -> Mapping[str, float]:
        """Return `first_token_s` and `tokens_per_s` where they are known, and nothing for a wrong answer."""
        if not all(finding.passed for finding in self.findings):
            return {}
        return measure_tokens(self.tokens, round_trip_s, first_token_s)


class AnswerChecker:
    """Checks small answers of plain JSON at once, and all others in processes that are killed if they overrun.

    `cpu_s` is the processor time in seconds that one answer may take; a busy machine is held against nobody. After
    `wall_s` seconds a worker is given up, which is the tester's fault. Workers start when needed and end after
    `idle_s` seconds without work.
    """

    def __init__(self, *, workers: int = 2, cpu_s: float = 2.0, wall_s: float = 20.0, idle_s: float = 30.0) -> None:
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self._idle_s = idle_s
        self._threads = ThreadPoolExecutor(workers, "checker")
        # Threads share these two. Each operation on them is one call, which the interpreter does not interrupt.
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._idle_timer: asyncio.TimerHandle | None = None

    async def check(
        self, expectation: Expectation, body: bytes, *, fetch: Fetch, max_kept_bytes: int = 0
    ) -> CheckedAnswer:
        """Return the findings on an answer; the files that it names are fetched first, all at the same time.

        With `max_kept_bytes` its first file also comes back, made as small as that.
        """
        task = CheckTask(expectation, body)
        report = await self._evaluate(task, max_kept_bytes)
        if not report.urls:
            return CheckedAnswer(report.findings, None, report.tokens, report.received)
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.TaskGroup() as group:
            fetches = {url: group.create_task(fetch(url)) for url in report.urls}
        artifact_s = loop.time() - started
        retrieved = {url: fetch_task.result() for url, fetch_task in fetches.items()}
        files = {
            url: FetchedFile(url, file.status, file.body, file.problem, file.is_uncertain)
            for url, file in retrieved.items()
        }
        report = await self._evaluate(replace(task, files=files), max_kept_bytes)
        return CheckedAnswer(report.findings, artifact_s, report.tokens, report.received)

    async def close(self) -> None:
        """End every worker, also those at work."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        # A thread waits for its worker, so the workers have to end before the threads can be waited for.
        for worker in list(self._busy):
            worker.process.kill()
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        await asyncio.to_thread(self._stop_idle)

    async def _evaluate(self, task: CheckTask, max_kept_bytes: int) -> CheckReport:
        if task.size <= _MAX_INLINE_BYTES:
            report = evaluate_inline(task)
            if report is not None:
                return report
        if task.size > _MAX_TASK_BYTES:
            message = f"answer and files have {task.size} bytes, more than any right answer"
            return _report_problem(task, "too_large", message, Fault.ORCHESTRATOR)
        loop = asyncio.get_running_loop()
        report = await loop.run_in_executor(self._threads, self._evaluate_in_worker, task, max_kept_bytes)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = loop.call_later(self._idle_s, self._threads.submit, self._stop_idle)
        return report

    def _evaluate_in_worker(self, task: CheckTask, max_kept_bytes: int) -> CheckReport:
        """Evaluate a task in a worker. Blocks, so it runs on one of the checker's threads."""
        try:
            worker = self._take_worker()
        except OSError as error:  # no process, no memory or no descriptor is left
            return _report_problem(task, "unchecked", f"the answer could not be checked: {error}")
        self._busy.add(worker)
        try:
            report = worker.evaluate(task, cpu_s=self._cpu_s)
        except WorkerLostError as error:
            if error.exceeded_cpu:
                message = f"checking the answer takes more than the {self._cpu_s:g} s that the tester grants"
                return _report_problem(task, "too_slow", message)
            return _report_problem(task, "unchecked", f"the answer could not be checked: {error}")
        except BaseException:
            # Half a message may be on its way: a worker in an unknown state would answer the next task with this one.
            worker.kill()
            raise
        finally:
            self._busy.discard(worker)
        if report.is_out_of_memory:
            worker.stop()  # its heap stays as large as the task made it
            return report
        if max_kept_bytes and not report.urls and has_media(task):
            # Its own request with its own limit: an answer is judged by what its check takes, not by its preview.
            try:
                report = replace(report, received=worker.preview(max_bytes=max_kept_bytes, cpu_s=self._cpu_s))
            except WorkerLostError:
                return report
            except BaseException:
                worker.kill()
                raise
        self._idle.append(worker)
        return report

    def _take_worker(self) -> Worker:
        """Return an idle worker that still lives, or a new one. Raises OSError."""
        while (worker := self._pop_idle()) is not None:
            if worker.is_alive:
                return worker
            worker.stop()
        return Worker.start(wall_s=self._wall_s)

    def _stop_idle(self) -> None:
        while (worker := self._pop_idle()) is not None:
            worker.stop()

    def _pop_idle(self) -> Worker | None:
        # Asking for the length first would leave room for another thread in between.
        try:
            return self._idle.pop()
        except IndexError:
            return None


def _report_problem(task: CheckTask, problem: str, message: str, fault: Fault = Fault.TESTER) -> CheckReport:
    name = next((check.name for check in task.expectation.checks), "body")
    return CheckReport((Finding(name, problem, message, fault),))
