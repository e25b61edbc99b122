"""What a gateway does with one batch job: select, try, complete, try again, and answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobtester.simulator import background_tasks as background
from jobtester.simulator import job_log, orchestrator, scenario
from jobtester.simulator.gateway import events, metrics, result_store, selection
from jobtester.simulator.runner import ai_runner
from jobtester.simulator.runner import known_inputs as truths

_SAYS_NULL = ("audio-to-text", "segment-anything-2", "image-to-text")
_NOBODY = "no orchestrators available"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the client gets: status None is a closed connection, `fault` may spoil the answer's bytes."""

    status: int | None
    payload: Any = None
    fault: str = ""


@dataclass(slots=True)
class Attempts:
    """How far one job has come: its tries, how many reached an orchestrator, and who refused it without a slot."""

    job: ai_runner.Job
    request_id: str
    wanted: str
    gone: asyncio.Event
    received_at: float
    tries: int = 0
    reached: int = 0
    refused_by: list[orchestrator.Orchestrator] = field(default_factory=list)
    node: orchestrator.Orchestrator | None = None
    success: bool = False
    fault: str = ""
    cause: str = ""
    entry: job_log.Served | None = None

    @property
    def took_s(self) -> float:
        """Tell how long ago it began."""
        return time.monotonic() - self.received_at


@dataclass(frozen=True, slots=True)
class Batch:
    """The parts of a gateway that batch jobs need."""

    spec: scenario.GatewaySpec
    selection: selection.Selection
    metrics: metrics.Meter
    result_store: result_store.Store
    truth: truths.Truth
    log: job_log.Log
    report: Callable[[str, dict[str, Any]], None]

    async def process(self, run: Attempts) -> Verdict:
        """Take the job to its end, and log who served it before the client can know."""
        job = run.job
        self.metrics.requested(job.pipeline, job.model)
        self.report("ai_batch_request", events.received(run.request_id, job.pipeline, job.model))
        verdict = await self._try(run) if job.model else Verdict(None)
        if not run.gone.is_set():
            self._record(run, verdict.status)
        return verdict

    async def _try(self, run: Attempts) -> Verdict:
        verdict = await self._run_tries(run)
        for node in run.refused_by:  # their sessions were kept; each is completed when the tries are over
            await self.selection.close(run.job.pipeline, run.job.model, node, failed=False)
        return verdict

    async def _run_tries(self, run: Attempts) -> Verdict:
        job = run.job
        while self._may_try(run):
            run.tries += 1
            node = await self.selection.select(job.pipeline, job.model, run.wanted)
            if run.gone.is_set():
                await self._left(run, node, is_reached=False)
                return Verdict(None)
            if node is None:
                run.cause = run.cause or _NOBODY
                continue
            run.node = node
            try:
                answer = await background.unless(run.gone, self._attempt(run, node))
            except orchestrator.AttemptFailed as error:
                run.cause = error.cause
                await self._failed(run, node, error)
                if run.gone.is_set():
                    self._record(run, None)
                    return Verdict(None)
                if error.bad_request:
                    return _refused(job, error.bad_request)
                continue
            if answer is None:
                await self._left(run, node, is_reached=True)
                return Verdict(None)
            return await self._succeeded(run, node, answer)
        return self._exhausted(run)

    def _may_try(self, run: Attempts) -> bool:
        """Whether another try may begin. The window is looked at only here, and is never over before the first try."""
        if run.tries == 0:
            return True
        return run.took_s < self.spec.retry_window and (
            not self.spec.generation.capped or run.tries < self.spec.max_tries
        )

    async def _failed(self, run: Attempts, node: orchestrator.Orchestrator, error: orchestrator.AttemptFailed) -> None:
        """Remove the session, unless the orchestrator only had no free slot.

        Metrics name an orchestrator only if the connection to it broke.
        """
        job = run.job
        if error.broken:
            self.metrics.failed(job.pipeline, job.model, node, error.cause)
        if error.refused:
            run.refused_by.append(node)
        else:
            run.reached += 1
            await self.selection.close(job.pipeline, job.model, node, failed=True)

    def _exhausted(self, run: Attempts) -> Verdict:
        """Answer after the last try.

        A line without an orchestrator is counted if the window is over, or if go-livepeer finds that it has no answer
        at all. After a try at an image or audio pipeline it does not find that: it sends the empty answer it has.
        """
        job, generation = run.job, self.spec.generation
        if run.fault == "null":
            return Verdict(200, None)
        if run.fault == "eof":
            return Verdict(None)
        if run.took_s >= self.spec.retry_window:
            self.metrics.failed(
                job.pipeline, job.model, None, f"{_NOBODY} within {_go(self.spec.retry_window)} timeout"
            )
            return unavailable()
        is_tried = run.node is not None
        if is_tried and job.pipeline != "llm":
            return Verdict(200, None) if job.pipeline in _SAYS_NULL else Verdict(None)
        if is_tried or generation.unselectable == "503":
            self.metrics.failed(job.pipeline, job.model, None, _NOBODY)
        return unavailable() if generation.unselectable == "503" else Verdict(None)

    async def _attempt(self, run: Attempts, node: orchestrator.Orchestrator) -> ai_runner.Answer:
        job = run.job
        began = time.monotonic()
        run.fault = node.fault_for(job.pipeline)
        await node.run(job.pipeline, job.model, run.fault)
        try:
            spec = node.model(job.pipeline, job.model)
            thinking_tokens = spec.thinking_tokens if spec else 0
            answer = await asyncio.to_thread(ai_runner.answer, job, run.fault, self.truth, thinking_tokens)
        except ai_runner.Undecodable as error:
            raise orchestrator.AttemptFailed(str(error)) from error
        except ai_runner.RunnerRefused as error:
            cause = f"{job.pipeline} container returned 400: {error}"
            raise orchestrator.AttemptFailed(cause, bad_request=str(error)) from error
        self.metrics.succeeded(job.pipeline, job.model, node, time.monotonic() - began)
        run.success = True
        run.reached += 1
        return answer

    async def _succeeded(self, run: Attempts, node: orchestrator.Orchestrator, answer: ai_runner.Answer) -> Verdict:
        job = run.job
        payload = _payload(job, answer, self.result_store.save(answer.files))
        await self.selection.close(job.pipeline, job.model, node, failed=False, took_s=run.took_s)
        if run.gone.is_set():
            self._record(run, None)
            return Verdict(None)
        if run.fault == "gateway_500":
            return _error(500, "Internal Server Error")
        if run.fault == "gone_410":
            return gone(job.pipeline)
        return Verdict(200, payload, run.fault)

    async def _left(self, run: Attempts, node: orchestrator.Orchestrator | None, *, is_reached: bool) -> None:
        """Clean up after a client that has gone: the session is removed a little later."""
        run.cause = "context canceled"
        if node is not None and is_reached:
            run.reached += 1
            self.metrics.failed(run.job.pipeline, run.job.model, node, run.cause)
        self._record(run, None)
        if node is not None:
            await asyncio.sleep(self.spec.stray_delay)
            await self.selection.close(run.job.pipeline, run.job.model, node, failed=True)

    def _record(self, run: Attempts, status: int | None) -> None:
        job, spec = run.job, run.node.spec if run.node else scenario.OrchestratorSpec(address="")
        run.entry = self.log.add(
            gateway=self.spec.name,
            mode=self.spec.mode,
            request_id=run.request_id,
            pipeline=job.pipeline,
            model=job.model,
            address=spec.address,
            service_uri=spec.service_uri,
            received_at=run.received_at,
            status=status,
            success=run.success,
            tries=run.tries,
            fault=run.fault,
            disconnected=run.gone.is_set(),
            reached=run.reached,
            refused=len(run.refused_by),
        )
        error = "" if run.success else run.cause or "unknown"
        self.report(
            "ai_llm_request" if job.pipeline == "llm" else "ai_batch_request",
            events.completed(
                run.request_id,
                job.pipeline,
                job.model,
                tries=run.tries,
                took_s=run.took_s,
                orch_url=spec.service_uri,
                error=error,
            ),
        )


def gone(pipeline: str) -> Verdict:
    """Say that the pipeline is retired."""
    return _error(410, f'pipeline "{pipeline}" is deprecated and no longer supported')


def unavailable() -> Verdict:
    """Say what all 503 say."""
    return _error(503, "Service Unavailable Error")


def bad_request(message: str) -> Verdict:
    """Refuse with a text."""
    return _error(400, message)


def _error(status: int, message: str) -> Verdict:
    return Verdict(status, {"error": {"message": message}})


def _refused(job: ai_runner.Job, message: str) -> Verdict:
    if message == ai_runner.UNMEASURED:
        return bad_request(message)
    return _error(500, "Internal Server Error") if job.pipeline == "llm" else bad_request(f": {message}")


def _go(seconds: float) -> str:
    """Return a duration as Go prints it."""
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


def _payload(job: ai_runner.Job, answer: ai_runner.Answer, urls: list[str]) -> Any:
    if job.is_llm_form:
        chat = answer.payload
        return {"response": chat["choices"][0]["message"]["content"], "tokens_used": chat["usage"]["total_tokens"]}
    if job.pipeline == "text-to-speech":
        return {"audio": {"url": urls[0]}}
    if answer.payload is None:
        return {"images": [{"nsfw": False, "seed": answer.seed, "url": url} for url in urls]}
    return answer.payload
