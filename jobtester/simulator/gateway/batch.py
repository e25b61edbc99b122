"""How a gateway processes a batch job: select an orchestrator, send it the job, try again if it fails, respond."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobtester.simulator.background_tasks import run_unless_set
from jobtester.simulator.gateway import events
from jobtester.simulator.gateway.metrics import GatewayMetrics
from jobtester.simulator.gateway.result_store import ResultStore
from jobtester.simulator.gateway.selection import Selection
from jobtester.simulator.job_log import JobLog, LoggedJob
from jobtester.simulator.orchestrator import AttemptFailedError, Orchestrator
from jobtester.simulator.runner.ai_runner import (
    DURATION_ERROR,
    BatchRequest,
    RunnerRefusedError,
    RunnerResult,
    UndecodableUploadError,
    run_job,
)
from jobtester.simulator.runner.known_inputs import KnownInputs
from jobtester.simulator.scenario import GatewaySpec, OrchestratorSpec

_NULL_BODY_PIPELINES = ("audio-to-text", "segment-anything-2", "image-to-text")
_NO_ORCHESTRATORS = "no orchestrators available"


@dataclass(frozen=True, slots=True)
class BatchResponse:
    """What the client gets. `status` None closes the connection; `fault` may spoil the bytes of the body."""

    status: int | None
    payload: Any = None
    fault: str = ""


@dataclass(slots=True)
class BatchJob:
    """One job while it is processed.

    `request` is what the client sent, `requested_uri` the orchestrator that the query names, `client_gone` is set when
    the client disconnects. The rest tells how far the job has come: its tries, how many reached an orchestrator, which
    orchestrators refused it for lack of a slot, the orchestrator of the last try, and how that try ended.
    """

    request: BatchRequest
    request_id: str
    requested_uri: str
    client_gone: asyncio.Event
    received_at: float
    tries: int = 0
    reached: int = 0
    refused_by: list[Orchestrator] = field(default_factory=list)
    node: Orchestrator | None = None
    success: bool = False
    fault: str = ""
    cause: str = ""
    log_entry: LoggedJob | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the whole request was read."""
        return time.monotonic() - self.received_at


@dataclass(frozen=True, slots=True)
class BatchProcessor:
    """Processes batch jobs with the parts of one gateway."""

    spec: GatewaySpec
    selection: Selection
    metrics: GatewayMetrics
    result_store: ResultStore
    known_inputs: KnownInputs
    job_log: JobLog
    emit_event: Callable[[str, dict[str, Any]], None]

    async def process(self, job: BatchJob) -> BatchResponse:
        """Process the job to its end and log it. The response is not written yet: the log is ahead of the client."""
        request = job.request
        self.metrics.count_request(request.pipeline, request.model)
        self.emit_event("ai_batch_request", events.batch_received(job.request_id, request.pipeline, request.model))
        response = BatchResponse(None)
        if request.model:
            response = await self._try_until_done(job)
            # A session is kept where only a slot was missing. go-livepeer completes these after the last try.
            for node in job.refused_by:
                await self.selection.close_session(request.pipeline, request.model, node, failed=False)
        if not job.client_gone.is_set():
            self._record(job, response.status)
        return response

    async def _try_until_done(self, job: BatchJob) -> BatchResponse:
        request = job.request
        while self._may_try(job):
            job.tries += 1
            node = await self.selection.select(request.pipeline, request.model, job.requested_uri)
            if job.client_gone.is_set():
                await self._handle_disconnect(job, node, is_reached=False)
                return BatchResponse(None)
            if node is None:
                job.cause = job.cause or _NO_ORCHESTRATORS
                continue
            job.node = node
            try:
                result = await run_unless_set(job.client_gone, self._attempt(job, node))
            except AttemptFailedError as error:
                job.cause = error.cause
                await self._handle_failure(job, node, error)
                if job.client_gone.is_set():
                    self._record(job, None)
                    return BatchResponse(None)
                if error.bad_request:
                    return _runner_400_response(request, error.bad_request)
                continue
            if result is None:
                await self._handle_disconnect(job, node, is_reached=True)
                return BatchResponse(None)
            return await self._handle_success(job, node, result)
        return self._respond_after_last_try(job)

    def _may_try(self, job: BatchJob) -> bool:
        """Return True if another try may begin.

        go-livepeer looks at the retry window between tries only, so that a job always gets a first try, and a try that
        hangs outlives the window. 0.0.11 does not cap the tries: where each fails at once, it goes on as fast as it can
        until the window is over.
        """
        if job.tries == 0:
            return True
        return job.elapsed_s < self.spec.retry_window and (
            not self.spec.build.caps_tries or job.tries < self.spec.max_tries
        )

    async def _handle_failure(self, job: BatchJob, node: Orchestrator, error: AttemptFailedError) -> None:
        """Count the error and remove the session; keep the session if the orchestrator only had no free slot."""
        request = job.request
        if error.broken:  # go-livepeer counts other failures against no orchestrator by name
            self.metrics.count_error(request.pipeline, request.model, node, error.cause)
        if error.refused:
            job.refused_by.append(node)
        else:
            job.reached += 1
            await self.selection.close_session(request.pipeline, request.model, node, failed=True)

    def _respond_after_last_try(self, job: BatchJob) -> BatchResponse:
        """Return the response after the last try has failed.

        An error without an orchestrator is counted if the window is over, or if go-livepeer finds that it has no
        response at all. After a try at an image or audio pipeline it does not find that: it sends the empty response
        that it has.
        """
        request, build = job.request, self.spec.build
        if job.fault == "null":
            return BatchResponse(200, None)
        if job.fault == "eof":
            return BatchResponse(None)
        if job.elapsed_s >= self.spec.retry_window:
            cause = f"{_NO_ORCHESTRATORS} within {_format_go_duration(self.spec.retry_window)} timeout"
            self.metrics.count_error(request.pipeline, request.model, None, cause)
            return unavailable_response()
        is_tried = job.node is not None
        if is_tried and request.pipeline != "llm":
            return BatchResponse(200, None) if request.pipeline in _NULL_BODY_PIPELINES else BatchResponse(None)
        if is_tried or build.unselectable == "503":
            self.metrics.count_error(request.pipeline, request.model, None, _NO_ORCHESTRATORS)
        return unavailable_response() if build.unselectable == "503" else BatchResponse(None)

    async def _attempt(self, job: BatchJob, node: Orchestrator) -> RunnerResult:
        request = job.request
        began = time.monotonic()
        job.fault = node.draw_fault(request.pipeline)
        await node.run_batch_job(request.pipeline, request.model, job.fault)
        model = node.find_model(request.pipeline, request.model)
        thinking_tokens = model.thinking_tokens if model else 0
        try:
            result = await asyncio.to_thread(run_job, request, job.fault, self.known_inputs, thinking_tokens)
        except UndecodableUploadError as error:
            raise AttemptFailedError(str(error)) from error
        except RunnerRefusedError as error:
            cause = f"{request.pipeline} container returned 400: {error}"
            raise AttemptFailedError(cause, bad_request=str(error)) from error
        self.metrics.set_latency_score(request.pipeline, request.model, node, time.monotonic() - began)
        job.success = True
        job.reached += 1
        return result

    async def _handle_success(self, job: BatchJob, node: Orchestrator, result: RunnerResult) -> BatchResponse:
        request = job.request
        payload = _build_payload(request, result, self.result_store.save(result.files))
        await self.selection.close_session(request.pipeline, request.model, node, failed=False, took_s=job.elapsed_s)
        if job.client_gone.is_set():
            self._record(job, None)
            return BatchResponse(None)
        if job.fault == "gateway_500":
            return _error_response(500, "Internal Server Error")
        if job.fault == "gone_410":
            return retired_response(request.pipeline)
        return BatchResponse(200, payload, job.fault)

    async def _handle_disconnect(self, job: BatchJob, node: Orchestrator | None, *, is_reached: bool) -> None:
        """Record that the client has gone, and remove the session.

        The removal comes after `stray_delay`: as in go-livepeer the abandoned try ends by itself, and its query of the
        webhook may arrive when the tester's next job has begun.
        """
        request = job.request
        job.cause = "context canceled"
        if node is not None and is_reached:
            job.reached += 1
            self.metrics.count_error(request.pipeline, request.model, node, job.cause)
        self._record(job, None)
        if node is not None:
            await asyncio.sleep(self.spec.stray_delay)
            await self.selection.close_session(request.pipeline, request.model, node, failed=True)

    def _record(self, job: BatchJob, status: int | None) -> None:
        request, spec = job.request, job.node.spec if job.node else OrchestratorSpec(address="")
        job.log_entry = self.job_log.add(
            gateway=self.spec.name,
            mode=self.spec.mode,
            request_id=job.request_id,
            pipeline=request.pipeline,
            model=request.model,
            address=spec.address,
            service_uri=spec.service_uri,
            received_at=job.received_at,
            status=status,
            success=job.success,
            tries=job.tries,
            fault=job.fault,
            disconnected=job.client_gone.is_set(),
            reached=job.reached,
            refused=len(job.refused_by),
        )
        self.emit_event(
            "ai_llm_request" if request.pipeline == "llm" else "ai_batch_request",
            events.batch_completed(
                job.request_id,
                request.pipeline,
                request.model,
                tries=job.tries,
                took_s=job.elapsed_s,
                orch_url=spec.service_uri,
                error="" if job.success else job.cause or "unknown",
            ),
        )


def retired_response(pipeline: str) -> BatchResponse:
    """Return the 410 of a pipeline that is retired."""
    return _error_response(410, f'pipeline "{pipeline}" is deprecated and no longer supported')


def unavailable_response() -> BatchResponse:
    """Return the one text that all 503 have."""
    return _error_response(503, "Service Unavailable Error")


def bad_request_response(message: str) -> BatchResponse:
    """Return a 400 with a text."""
    return _error_response(400, message)


def _error_response(status: int, message: str) -> BatchResponse:
    return BatchResponse(status, {"error": {"message": message}})


def _runner_400_response(request: BatchRequest, message: str) -> BatchResponse:
    if message == DURATION_ERROR:
        return bad_request_response(message)
    if request.pipeline == "llm":
        return _error_response(500, "Internal Server Error")
    return bad_request_response(f": {message}")


def _format_go_duration(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


def _build_payload(request: BatchRequest, result: RunnerResult, urls: list[str]) -> Any:
    if request.is_llm_form:
        chat = result.payload
        return {"response": chat["choices"][0]["message"]["content"], "tokens_used": chat["usage"]["total_tokens"]}
    if request.pipeline == "text-to-speech":
        return {"audio": {"url": urls[0]}}
    if result.payload is None:
        return {"images": [{"nsfw": False, "seed": result.seed, "url": url} for url in urls]}
    return result.payload
