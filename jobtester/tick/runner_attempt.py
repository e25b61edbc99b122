"""Carry one job to an orchestrator's own live runner, without a gateway, and judge what came back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobtester.domain.attribution import Attribution
from jobtester.domain.exchanges import Ending
from jobtester.domain.jobs import Job
from jobtester.domain.runner_judgement import judge_runner, needs_connection
from jobtester.gateway.peer import JobPeer
from jobtester.pipelines.request import Request
from jobtester.tick.attempt import AttemptTools, JudgedJob, SentJob, with_line


@dataclass(frozen=True, slots=True)
class SentRunnerJob(SentJob):
    """A job that a live runner's orchestrator has answered."""

    request: Request
    attribution: Attribution


@dataclass(frozen=True, slots=True)
class RunnerAttempt:
    """Sends jobs to the orchestrators themselves and judges them."""

    tools: AttemptTools

    async def send(self, job: Job, peer: JobPeer, on_leaving: Callable[[], None]) -> SentRunnerJob:
        """Send a job to the URL of its runner, and wait for its answer; `on_leaving` is called before.

        Never raises for what the network does: the exchange says how it ended.
        """
        request = self.tools.build_request(job)
        async with peer.targeting.acquire(job) as lease:
            on_leaving()
            exchange = await peer.client.send(
                peer.job_path(job, request.path),
                request.body if request.method == "POST" else None,
                job_id=job.id,
                timeout_s=peer.job_timeout_s(job),
                headers={"Content-Type": request.content_type},
                max_bytes=self.tools.limits.max_response,
                first_token=request.first_token,
            )
            attribution = lease.finish(exchange).attribution
        return SentRunnerJob(job, exchange, None, request, attribution)

    async def judge(self, sent: SentRunnerJob, peer: JobPeer, *, busy_retries: int = 0) -> JudgedJob:
        """Check an answer and judge it; where none came, see whose line is at fault."""
        exchange, attribution = sent.exchange, sent.attribution
        checked = await self.tools.check_answer(sent.job, sent.request, exchange, peer)
        connection = None
        if needs_connection(exchange):
            connection = await self.tools.connection_probe.probe(sent.job.target.service_uri, needs_tls=True)
            attribution = with_line(attribution, connection.summary)
        runner = sent.job.capability.runner
        verdict = judge_runner(
            exchange,
            checked.findings,
            attribution,
            connection,
            is_listed_elsewhere=runner is not None and runner.is_listed_elsewhere,
        )
        result = self.tools.make_result(
            sent, sent.request, peer, checked, verdict, attribution, busy_retries=busy_retries
        )
        return JudgedJob(
            result,
            is_unattributed=False,
            is_gateway_alive=True,  # no single process stands between the tester and all orchestrators
            was_never_sent=exchange.ending is Ending.REFUSED,
            is_unclear=verdict.code == "unclear",
        )

    def abort(self) -> None:
        """Do nothing: a job holds nothing but its request."""
