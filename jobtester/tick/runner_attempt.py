"""Carry one job to an orchestrator's own live runner, without a gateway, and judge what came back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from jobtester.checks.checker import CheckedAnswer
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import SINGLE_SHOT
from jobtester.domain.plan import RESERVE_PROBE
from jobtester.domain.reasons import Outcome, Verdict
from jobtester.domain.runner_judgement import excuse_unlisted, judge_runner, needs_connection
from jobtester.gateway.peer import JobPeer
from jobtester.live_runner.payment import JobPayment, is_paid
from jobtester.live_runner.peer import LiveRunnerPeer, join_url
from jobtester.live_runner.video_stream import ForeignChannelsError, UnusableChannelsError
from jobtester.metrics import Metrics
from jobtester.pipelines.request import Request
from jobtester.tick.attempt import AttemptTools, JudgedJob, SentJob, with_line
from jobtester.tick.runner_video import RunnerVideo, has_answer

_SESSION_TOO_SHORT = "The session lasted live_runner.max_session, which is too short for the job's own time limit."


@dataclass(frozen=True, slots=True)
class SentRunnerJob(SentJob):
    """A job that a live runner's orchestrator has answered.

    An answer from a session is `checked` in it already: the files that it names may go with the session.
    `problem` is a verdict that stands before any answer: the tester itself did not reserve or pay. `payment_problem` is
    one that stands in place of every failure: an orchestrator ends what is not paid for. `paid_wei` is what was paid.
    `measures` are the times of a session. `video` is the stream that ran in it, None where there was none.
    """

    request: Request
    attribution: Attribution
    problem: Verdict | None = None
    payment_problem: Verdict | None = None
    paid_wei: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)
    checked: CheckedAnswer | None = None
    video: RunnerVideo | None = None

    @property
    def is_in_session(self) -> bool:
        """Whether the answer is that of an app in a session."""
        return "ready_seconds" in self.measures


@dataclass(slots=True)
class _Work:
    """What is known of a job while it runs, so that an abort in the middle leaves it judgeable."""

    exchange: Exchange | None = None
    refuted: str = ""
    problem: Verdict | None = None
    measures: dict[str, float] = field(default_factory=dict)
    checked: CheckedAnswer | None = None
    video: RunnerVideo | None = None


@dataclass(slots=True)
class RunnerAttempt:
    """Sends jobs to the orchestrators themselves and judges them."""

    tools: AttemptTools
    live_runner: LiveRunnerPeer
    metrics: Metrics
    _running: set[asyncio.Timeout] = field(default_factory=set)
    _is_aborted: bool = False

    async def send(self, job: Job, peer: JobPeer, on_leaving: Callable[[], None]) -> SentRunnerJob:
        """Send a job to its runner, in a session and with payment where it needs them; `on_leaving` is called before.

        Never raises for what the network does: the exchange says how it ended.
        """
        runner = job.capability.runner
        assert runner is not None
        request = self.tools.build_request(job)
        async with peer.targeting.acquire(job) as lease:
            on_leaving()
            work, started_at, started = _Work(), time.time(), time.monotonic()
            payment = JobPayment(job, self.live_runner.client, self.live_runner.signer)
            try:
                async with self._until_aborted(), payment:
                    if runner.mode == SINGLE_SHOT:
                        work.exchange = await payment.send(partial(self._call_app, job, request, payment))
                    else:
                        await self._work_in_session(job, request, peer, payment, work)
                ended = work.exchange
            except TimeoutError:  # the tester stops, or the session has lasted too long; it is stopped by now
                ended = None if self._is_aborted else work.exchange
                if ended is None and not self._is_aborted:  # before the job's own time limit
                    work.problem = work.problem or Verdict.from_code("tester_fault", _SESSION_TOO_SHORT)
            if ended is None:
                ending = Ending.ABORTED if self._is_aborted else Ending.TIMEOUT
                detail = "the tester was stopped" if self._is_aborted else _SESSION_TOO_SHORT
                ended = Exchange(ending, started_at, started, time.monotonic(), detail=detail)
            attribution, payment_problem = lease.finish(ended).attribution, None
        if work.refuted:
            attribution = Attribution(AttributionKind.REFUTED, (work.refuted,))
        elif payment.problem_code == "refuted":
            attribution = Attribution(AttributionKind.REFUTED, (payment.problem,))
        elif payment.problem_code:
            payment_problem = Verdict.from_code(payment.problem_code, payment.problem)
            if work.video is None and not ended.gateway_reports_success:
                work.problem = payment_problem
        if work.problem is not None and ended.status is None:  # nothing was sent
            attribution = Attribution(AttributionKind.MISSING)
        self.metrics.runner_paid.inc(payment.paid_wei)
        return SentRunnerJob(
            job, ended, None, request, attribution, work.problem, payment_problem, payment.paid_wei, work.measures,
            work.checked, work.video,
        )  # fmt: skip

    async def judge(self, sent: SentRunnerJob, peer: JobPeer, *, busy_retries: int = 0) -> JudgedJob:
        """Check an answer and judge it; where none came, see whose line is at fault."""
        exchange, attribution = sent.exchange, sent.attribution
        checked = CheckedAnswer()
        runner = sent.job.capability.runner
        is_listed_elsewhere = runner is not None and runner.is_listed_elsewhere
        if sent.video is not None and exchange.ending is not Ending.ABORTED:
            judged = await sent.video.judge(sent.job, self.tools.connection_probe, sent.payment_problem)
            verdict = excuse_unlisted(judged.verdict) if is_listed_elsewhere else judged.verdict
            attribution = with_line(attribution, judged.line)
            checked = CheckedAnswer(
                received=judged.received.make_strip(self.tools.limits.max_kept),
                stream=judged.received.describe(sent.video.call.sent_monotonic),
            )
            sent = replace(sent, exchange=judged.exchange, measures={**sent.measures, **judged.measures})
        elif sent.problem is not None and exchange.ending is not Ending.ABORTED:
            verdict = excuse_unlisted(sent.problem) if is_listed_elsewhere else sent.problem
        else:
            checked = await self._check(sent, peer)
            connection = None
            if needs_connection(exchange):
                connection = await self.tools.connection_probe.probe(sent.job.target.service_uri, needs_tls=True)
                attribution = with_line(attribution, connection.summary)
            verdict = judge_runner(
                exchange,
                checked.findings,
                attribution,
                connection,
                is_listed_elsewhere=is_listed_elsewhere,
                is_in_session=sent.is_in_session,
            )
        if verdict.outcome is Outcome.FAILED and sent.payment_problem is not None:
            verdict = sent.payment_problem
        result = self.tools.make_result(
            sent, sent.request, peer, checked, verdict, attribution, busy_retries=busy_retries, measures=sent.measures
        )
        if sent.job.price_wei != 0:  # what was paid replaces the estimate
            result = replace(result, job=replace(sent.job, price_wei=sent.paid_wei))
        return JudgedJob(
            result,
            is_unattributed=False,
            is_gateway_alive=True,  # no single process stands between the tester and all orchestrators
            was_never_sent=exchange.ending is Ending.REFUSED,
            is_unclear=verdict.code == "unclear" and not sent.paid_wei,
            is_paid=sent.paid_wei > 0,
        )

    def abort(self) -> None:
        """End now what a job holds besides its request: a session is stopped, and nothing more is paid."""
        self._is_aborted = True
        while self._running:
            self._running.pop().reschedule(asyncio.get_running_loop().time())

    async def _work_in_session(
        self, job: Job, request: Request, peer: JobPeer, payment: JobPayment, work: _Work
    ) -> None:
        """Reserve a session, send the app its job in it, and stop it; to probe is to reserve alone."""
        async with self.live_runner.sessions.reserve(job, payment) as session:
            work.exchange, work.refuted = session.reserve, session.refuted
            if session.problem is not None:
                work.problem = session.problem
            elif session.reserve is not None and session.is_open:
                work.measures["session_seconds"] = session.session_s
                if job.definition != RESERVE_PROBE:
                    work.exchange = None  # until there is an answer, the job has none
                    work.exchange = await self._call(job, request, session.app_url, job.timeout_s, is_follow_up=True)
                    ready_s = work.exchange.ended_monotonic - session.reserve.sent_monotonic
                    work.measures["ready_seconds"] = ready_s
                    if job.is_video:
                        await self._stream(job, work.exchange, work)
                        return
                    locate = partial(join_url, f"{session.app_url}/")
                    work.checked = await self.tools.check_answer(job, request, work.exchange, peer, locate)
            elif session.reserve is not None and session.reserve.gateway_reports_success and not session.refuted:
                work.problem = Verdict.from_code("bad_json", "The reservation's answer does not name a session.")

    async def _stream(self, job: Job, call: Exchange, work: _Work) -> None:
        """Run the stream of a session whose app has answered."""
        if not has_answer(call):
            return
        # Stands where the session comes to its longest time before the stream to its own.
        work.problem = Verdict.from_code("tester_fault", "The stream lasted longer than live_runner.max_session.")
        rules = self.tools.catalogue[job.definition].video_for(job.model)
        try:
            work.video = await RunnerVideo.run(job, rules, call, self.live_runner.client.open_request)
        except ForeignChannelsError as error:
            work.problem, work.refuted = None, str(error)
        except UnusableChannelsError as error:
            work.problem = Verdict.from_code("check:channels", str(error))
        else:
            work.problem, work.exchange = None, work.video.exchange

    async def _call_app(self, job: Job, request: Request, payment: JobPayment, headers: Mapping[str, str]) -> Exchange:
        """Send a single request; what the orchestrator took to ask for payment is part of the job's time."""
        assert job.capability.runner is not None
        timeout_s = max(0.0, job.timeout_s - payment.challenge_s)
        # A job that has paid has begun: only one of which nothing has left is taken back.
        return await self._call(job, request, job.capability.runner.url, timeout_s, headers, is_paid(headers))

    async def _call(
        self,
        job: Job,
        request: Request,
        base: str,
        timeout_s: float,
        headers: Mapping[str, str] = MappingProxyType({}),
        is_follow_up: bool = False,
    ) -> Exchange:
        url = base + request.path
        outgoing = self.tools.make_outgoing(job, request, url, timeout_s, headers, is_follow_up=is_follow_up)
        return await self.live_runner.client.send(outgoing)

    async def _check(self, sent: SentRunnerJob, peer: JobPeer) -> CheckedAnswer:
        if sent.checked is not None:
            return sent.checked
        if sent.job.definition == RESERVE_PROBE or sent.attribution.kind is AttributionKind.REFUTED:
            return CheckedAnswer()
        assert sent.job.capability.runner is not None
        locate = partial(join_url, f"{sent.job.capability.runner.url}/")
        return await self.tools.check_answer(sent.job, sent.request, sent.exchange, peer, locate)

    @asynccontextmanager
    async def _until_aborted(self) -> AsyncIterator[None]:
        """Run a block that abort() ends with a TimeoutError."""
        async with asyncio.timeout(0 if self._is_aborted else None) as scope:
            self._running.add(scope)
            try:
                yield
            finally:
                self._running.discard(scope)
