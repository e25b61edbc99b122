"""Carry one live video job through a gateway, and judge it by the frames that came back."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobtester.checks.checker import CheckedAnswer
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job, PipelineModel
from jobtester.domain.reasons import Outcome
from jobtester.domain.stream_status import StreamTrace
from jobtester.domain.video_judgement import StreamRun, judge_stream
from jobtester.domain.video_report import make_measures
from jobtester.gateway.peer import JobPeer
from jobtester.live_video.stream import StreamPlan, StreamRecording
from jobtester.live_video.stream_api import StreamApi, StreamStart
from jobtester.live_video.streams import LiveVideo
from jobtester.pipelines.request import Request
from jobtester.pipelines.video_rules import VideoRules
from jobtester.tick.attempt import AttemptTools, JudgedJob, SentJob
from jobtester.tick.received_video import ReceivedVideo, as_answer, make_bar
from jobtester.video.meter import Measurement
from jobtester.video.pattern import VideoFormat

_WAY = "matroska in, ffmpeg's flv out"


@dataclass(frozen=True, slots=True)
class SentVideoJob(SentJob):
    """A stream that is over. `failure_age_s` is how long before it another one to the orchestrator failed."""

    request: Request
    rules: VideoRules
    recording: StreamRecording
    failure_age_s: float | None


@dataclass(frozen=True, slots=True)
class VideoAttempt:
    """Runs live video jobs and judges them.

    `apis` are the gateways' routes for live video by the gateway's name, `candidates` how many orchestrators offer a
    model.
    """

    tools: AttemptTools
    live_video: LiveVideo
    apis: Mapping[str, StreamApi]
    candidates: Mapping[PipelineModel, int]

    async def send(self, job: Job, peer: JobPeer, on_leaving: Callable[[], None]) -> SentVideoJob:
        """Run a stream to the job's orchestrator when its turn comes; `on_leaving` is called then.

        Never raises for what the network does: the recording says how the stream went.
        """
        request = self.tools.build_request(job)
        rules = self.tools.catalogue[job.definition].video_for(job.model)
        form = VideoFormat(rules.width, rules.height, rules.fps)

        def make_plan(base_url: str) -> StreamPlan:
            return _make_plan(job, request, rules, form, base_url)

        async with self.live_video.take_turn(job.target), peer.targeting.acquire(job) as lease:
            on_leaving()
            failure_age_s = self.live_video.seconds_since_failure(peer.name, job.target)
            recording = await self.live_video.run(make_plan, form, self.apis[peer.name])
            exchange = _as_exchange(recording)
            lease.finish(exchange)
        return SentVideoJob(job, exchange, None, request, rules, recording, failure_age_s)

    async def judge(self, sent: SentVideoJob, peer: JobPeer, *, busy_retries: int = 0) -> JudgedJob:
        """Measure the frames, and judge the stream by them and by what the gateway said of it."""
        recording, job, trace = sent.recording, sent.job, sent.recording.trace
        is_alive = recording.is_gateway_alive and await peer.client.is_alive()
        received = ReceivedVideo(recording.outputs, recording.sent)
        measurement = Measurement(recording.started, recording.watched_until, _updates(recording))
        video = await received.measure(measurement)
        run = StreamRun(
            ending=recording.ending,
            trace=trace,
            start_status=recording.start_status,
            detail=recording.detail,
            was_asked=recording.was_asked,
            intake_problem=recording.intake_problem,
            ended_early_s=_since(recording.started, recording.ended_early_at),
            output_problem=received.find_problem(),
            is_advertised_busy=job.capability.is_busy,
            candidates=self.candidates.get(job.pipeline_model, 0),
            seconds_since_failure=sent.failure_age_s,
            is_gateway_alive=is_alive,
            tester_problem=recording.tester_problem or received.find_decoder_problem(),
        )
        bar = make_bar(sent.rules, job.timeout_s, _since(recording.updated_at, recording.watched_until))
        verdict = judge_stream(run, job.target.service_uri, video, bar)
        was_never_sent = recording.ending is Ending.REFUSED
        # One that was left out has not failed again: it must not be left out for ever.
        if verdict.outcome is not Outcome.PASSED and verdict.code != "out_of_pool" and not was_never_sent:
            self.live_video.on_failed(peer.name, job.target)
        sent = replace(sent, exchange=as_answer(sent.exchange, video, trace, way=_WAY))
        checked = CheckedAnswer(
            received=received.make_strip(self.tools.limits.max_kept), stream=received.describe(recording.started, trace)
        )
        result = self.tools.make_result(
            sent, sent.request, peer, checked, verdict, _attribute(trace, job), busy_retries=busy_retries,
            measures=make_measures(video, trace),
        )  # fmt: skip
        return JudgedJob(result, is_unattributed=False, is_gateway_alive=is_alive, was_never_sent=was_never_sent)

    def abort(self) -> None:
        """End every stream now."""
        self.live_video.abort()


def _make_plan(job: Job, request: Request, rules: VideoRules, form: VideoFormat, base_url: str) -> StreamPlan:
    # Never the same id twice, also where a job runs once more: the status of an earlier stream lives on for a minute.
    stream_id = f"{job.id}{secrets.token_hex(4)}"
    parameters = dict(request.parameters)
    update = {**parameters, **request.update} if request.update else None
    return StreamPlan(
        start=StreamStart(
            stream_id=stream_id,
            model=job.model,
            service_uri=job.target.service_uri,
            parameters=parameters,
            input_url=f"{base_url}/in/{stream_id}.mkv",
            output_url=f"{base_url}/out/{stream_id}",
        ),
        form=form,
        start_limit_s=job.timeout_s,
        duration_s=rules.duration,
        update=update,
        awaited_hashes=_hash_parameters(update) if update else frozenset(),
    )


def _hash_parameters(parameters: Mapping[str, Any]) -> frozenset[str]:
    """Return what a runner may report as the hash of its parameters: MD5 of JSON with sorted keys, spaced or not."""
    texts = (
        json.dumps(parameters, sort_keys=True),
        json.dumps(parameters, sort_keys=True, separators=(",", ":")),
    )
    return frozenset(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() for text in texts)


def _as_exchange(recording: StreamRecording) -> Exchange:
    """Return the stream as an exchange: its round trip is the time to the first frame, or all the time without one."""
    first_frame_at = recording.first_frame_at
    return Exchange(
        ending=recording.ending,
        started_at=recording.started_at,
        sent_monotonic=recording.started,
        ended_monotonic=recording.watched_until if first_frame_at is None else first_frame_at,
        status=recording.start_status,
        detail=recording.detail,
    )


def _attribute(trace: StreamTrace, job: Job) -> Attribution:
    if not trace.orchestrator_urls:
        return Attribution(AttributionKind.MISSING, ("status: the gateway named no orchestrator for the stream",))
    kind = AttributionKind.PROVEN if trace.was_served_by(job.target.service_uri) else AttributionKind.REFUTED
    return Attribution(kind, (f"status: the gateway gave the stream to {', '.join(trace.orchestrator_urls[:5])}",))


def _updates(recording: StreamRecording) -> tuple[float, ...]:
    return () if recording.updated_at is None else (recording.updated_at,)


def _since(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
