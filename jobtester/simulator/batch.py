"""What a gateway does with one batch job: select, try, complete, try again, and answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobtester.simulator import answers, events, meter, orchestrator, requests, scenario, selection, served, store
from jobtester.simulator import tasks as background
from jobtester.simulator import truth as truths

_SAYS_NULL = ("audio-to-text", "segment-anything-2", "image-to-text")
_NOBODY = "no orchestrators available within 2s timeout"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the client gets: status None is a closed connection, `fault` may spoil the answer's bytes."""

    status: int | None
    payload: Any = None
    fault: str = ""


@dataclass(slots=True)
class Attempts:
    """How far one job has come."""

    job: requests.Job
    request_id: str
    wanted: str
    gone: asyncio.Event
    received_at: float
    tries: int = 0
    node: orchestrator.Orchestrator | None = None
    success: bool = False
    fault: str = ""
    cause: str = ""
    entry: served.Served | None = None

    @property
    def took_s(self) -> float:
        """Tell how long ago it began."""
        return time.monotonic() - self.received_at


@dataclass(frozen=True, slots=True)
class Batch:
    """The parts of a gateway that batch jobs need."""

    spec: scenario.GatewaySpec
    selection: selection.Selection
    meter: meter.Meter
    store: store.Store
    truth: truths.Truth
    log: served.Log
    report: Callable[[str, dict[str, Any]], None]

    async def process(self, run: Attempts) -> Verdict:
        """Take the job to its end, and log who served it before the client can know."""
        job = run.job
        self.meter.requested(job.pipeline, job.model)
        self.report("ai_batch_request", events.received(run.request_id, job.pipeline, job.model))
        verdict = await self._try(run) if job.model else Verdict(None)
        if not run.gone.is_set():
            self._record(run, verdict.status)
        return verdict

    async def _try(self, run: Attempts) -> Verdict:
        job, spec = run.job, self.spec
        while run.tries < spec.max_tries and (run.tries == 0 or run.took_s < spec.retry_window):
            run.tries += 1
            node = await self.selection.select(job.pipeline, job.model, run.wanted)
            if run.gone.is_set():
                await self._left(run, node)
                return Verdict(None)
            run.node = node
            if node is None:
                return self._nobody(run)
            try:
                answer = await background.unless(run.gone, self._attempt(run, node))
            except orchestrator.AttemptFailed as error:
                run.cause = error.cause
                self.meter.failed(job.pipeline, job.model, node, error.cause)
                await self.selection.close(job.pipeline, job.model, node, failed=not _busy(error))
                if run.gone.is_set():
                    self._record(run, None)
                    return Verdict(None)
                if error.bad_request:
                    return _refused(job, error.bad_request)
                continue
            if answer is None:
                await self._left(run, node)
                return Verdict(None)
            return await self._succeeded(run, node, answer)
        return _exhausted(run, spec)

    async def _attempt(self, run: Attempts, node: orchestrator.Orchestrator) -> answers.Answer:
        job = run.job
        began = time.monotonic()
        run.fault = node.fault_for(job.pipeline)
        await node.run(job.pipeline, job.model, run.fault)
        try:
            answer = await asyncio.to_thread(answers.answer, job, run.fault, self.truth)
        except answers.Undecodable as error:
            raise orchestrator.AttemptFailed(str(error)) from error
        except answers.RunnerRefused as error:
            cause = f"{job.pipeline} container returned 400: {error}"
            raise orchestrator.AttemptFailed(cause, bad_request=str(error)) from error
        self.meter.succeeded(job.pipeline, job.model, node, time.monotonic() - began)
        run.success = True
        return answer

    async def _succeeded(self, run: Attempts, node: orchestrator.Orchestrator, answer: answers.Answer) -> Verdict:
        job = run.job
        payload = _payload(job.pipeline, answer, self.store.save(answer.artefacts))
        await self.selection.close(job.pipeline, job.model, node, failed=False, took_s=run.took_s)
        if run.gone.is_set():
            self._record(run, None)
            return Verdict(None)
        if run.fault == "gateway_500":
            return _error(500, "Internal Server Error")
        if run.fault == "gone_410":
            return gone(job.pipeline)
        return Verdict(200, payload, run.fault)

    async def _left(self, run: Attempts, node: orchestrator.Orchestrator | None) -> None:
        """Clean up after a client that has gone: the session is removed a little later."""
        run.cause = "context canceled"
        self._record(run, None)
        if node is not None:
            await asyncio.sleep(self.spec.stray_delay)
            await self.selection.close(run.job.pipeline, run.job.model, node, failed=True)

    def _nobody(self, run: Attempts) -> Verdict:
        run.cause = _NOBODY
        self.meter.failed(run.job.pipeline, run.job.model, None, _NOBODY)
        return unavailable() if self.spec.nobody == "503" else Verdict(None)

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


def _busy(error: orchestrator.AttemptFailed) -> bool:
    return error.cause == "insufficient capacity"


def _refused(job: requests.Job, message: str) -> Verdict:
    if message == answers.UNMEASURED:
        return bad_request(message)
    return _error(500, "Internal Server Error") if job.pipeline == "llm" else bad_request(f": {message}")


def _exhausted(run: Attempts, spec: scenario.GatewaySpec) -> Verdict:
    if run.fault == "null":
        return Verdict(200, None)
    if run.fault == "eof":
        return Verdict(None)
    if run.took_s >= spec.retry_window:
        return unavailable()
    return Verdict(200, None) if run.job.pipeline in _SAYS_NULL else Verdict(None)


def _payload(pipeline: str, answer: answers.Answer, urls: list[str]) -> Any:
    if pipeline == "text-to-speech":
        return {"audio": {"url": urls[0]}}
    if answer.payload is None:
        return {"images": [{"nsfw": False, "seed": answer.seed, "url": url} for url in urls]}
    return answer.payload
