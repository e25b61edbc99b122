"""A price by time is paid as long as a job lasts, and no longer; what stands against it is told apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator, Price, RunnerOffer
from jobtester.live_runner.client import LiveRunnerClient
from jobtester.live_runner.payment import JobPayment
from jobtester.live_runner.session_stopper import SessionStopper
from jobtester.live_runner.sessions import SessionKeeper
from jobtester.live_runner.signer import RemoteSigner
from jobtester.metrics import Metrics
from jobtester.store.database import Database
from jobtester.store.runner_sessions import RunnerSessions
from tests.harness.ports import free_port
from tests.harness.waiting import until

PAYER = "0x9a9e000000000000000000000000000000000001"
INTERVAL_S = 0.02


@dataclass(slots=True)
class Payee:
    """An orchestrator and its payer's signer in one server; both answer with the next of their codes, else 200."""

    uri: str = ""
    signer_codes: list[int] = field(default_factory=list)
    payment_codes: list[int] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    paid: list[str] = field(default_factory=list)
    asked: list[Mapping[str, str]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer for both."""
        if request.path == "/sign-orchestrator-info":
            return web.json_response({"address": PAYER})
        if request.path == "/generate-live-payment":
            self.states.append((await request.json()).get("state"))
            code = self.signer_codes.pop(0) if self.signer_codes else 200
            number = len(self.states)
            answer = {"payment": f"pay{number}", "segCreds": "c", "state": number}
            return web.json_response(answer, status=code)
        if request.path.endswith("/stop"):
            self.stopped.append(request.path)
            return web.Response(status=204)
        if request.path == "/apps/x/session":
            self.asked.append(dict(request.headers))
            if "Livepeer-Payment" not in request.headers:
                return web.json_response(self.challenge, status=402)
            assert request.transport is not None
            request.transport.abort()  # the session is open, and nobody learns of it
            return web.Response()
        self.paid.append(request.headers["Livepeer-Payment"])
        return web.Response(status=self.payment_codes.pop(0) if self.payment_codes else 200, body=b"opaque")

    async def ask(self, headers: Mapping[str, str]) -> Exchange:
        """Ask for payment unless there is one."""
        self.asked.append(headers)
        now = time.monotonic()
        if "Livepeer-Payment" in headers:
            return Exchange(Ending.ANSWERED, time.time(), now, now, 200, b"{}")
        return Exchange(Ending.ANSWERED, time.time(), now, now, 402, orjson.dumps(self.challenge))

    @property
    def challenge(self) -> dict[str, str]:
        """What its 402 says."""
        return {
            "payment_params": "eA==",
            "manifest_id": "m",
            "payment_url": f"{self.uri}/apps/x/session/m/payment",
            "orchestrator": self.uri,
        }

    @property
    def job(self) -> Job:
        """A job that costs 7 wei a second."""
        runner = RunnerOffer(f"{self.uri}/apps/x/session", "persistent", "seconds")
        capability = Capability("x/app", "1", price=Price(7), runner=runner)
        return Job("j", "t", Orchestrator("0x1", self.uri, (capability,)), capability, "x/app", 10, 10)


@asynccontextmanager
async def payee(
    signer_codes: Sequence[int] = (), payment_codes: Sequence[int] = (), price_wei: int | None = None
) -> AsyncIterator[tuple[Payee, JobPayment]]:
    """Run both, and yield them with the payment of a job."""
    server, port = Payee(signer_codes=list(signer_codes), payment_codes=list(payment_codes)), free_port()
    server.uri = f"http://127.0.0.1:{port}"
    app = web.Application()
    app.router.add_post("/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    client, signer = LiveRunnerClient(("127.0.0.0/8",)), RemoteSigner(server.uri)
    await client.open()
    await signer.open()
    try:
        job = replace(server.job, price_wei=price_wei)
        async with JobPayment(job, client, signer, interval_s=INTERVAL_S) as payment:
            yield server, payment
    finally:
        await client.close()
        await signer.close()
        await runner.cleanup()


async def test_the_state_goes_from_payment_to_payment() -> None:
    """Each payment has the state of the one before, goes to the orchestrator once, and stops with the job."""
    async with payee() as (server, payment):
        exchange = await payment.send(server.ask)
        assert exchange.status == 200
        assert [sorted(headers) for headers in server.asked] == [
            ["Livepeer-Payer-Address"],
            ["Livepeer-Payer-Address", "Livepeer-Payment", "Livepeer-Segment"],
        ]
        await until(lambda: len(server.paid) >= 3, "three further payments")
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "payment"], "nobody pays on"
    assert server.states == [None, *range(1, len(server.states))]
    assert server.paid == list(dict.fromkeys(server.paid)), "no payment is sent twice"
    assert payment.problem_code == ""
    assert payment.paid_wei >= 70


async def test_no_more_is_paid_than_the_plan_counted() -> None:
    """A job that lasts longer than it may ends unpaid, so that the limit on prices holds."""
    async with payee(price_wei=71) as (server, payment):
        await payment.send(server.ask)
        await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "payment"], "the last one")
        assert server.paid, "it was paid as long as it might be"
        assert payment.paid_wei == 71
        assert payment.problem_code == "price_refused", "what the orchestrator then ends is not its fault"


async def test_nothing_due_is_asked_again() -> None:
    """482 means that the last payment still lasts; the state stays as it was."""
    async with payee(signer_codes=[200, 482, 482]) as (server, payment):
        await payment.send(server.ask)
        await until(lambda: server.paid, "a further payment")
        assert server.states[:4] == [None, 1, 1, 1]
        assert payment.problem_code == ""


@pytest.mark.parametrize(
    ("codes", "problem"),
    [
        ({"signer_codes": [200, 500]}, "signer_fault"),
        ({"signer_codes": [200, 481]}, "price_refused"),
        ({"payment_codes": [403]}, "signer_fault"),
        ({"payment_codes": [409]}, "signer_fault"),
    ],
)
async def test_what_stands_against_a_further_payment_is_kept(codes: dict[str, Any], problem: str) -> None:
    """The job then ends without a payment; its verdict does not blame the orchestrator."""
    async with payee(**codes) as (server, payment):
        await payment.send(server.ask)
        await until(lambda: payment.problem_code, "a problem")
        assert payment.problem_code == problem
        assert payment.problem


async def test_new_parameters_are_asked_for_once() -> None:
    """480 twice ends it: an orchestrator whose parameters are always too old is not asked for ever."""
    async with payee(signer_codes=[480, 480]) as (server, payment):
        exchange = await payment.send(server.ask)
        assert (exchange.status, payment.problem_code, payment.paid_wei) == (402, "signer_fault", 0)
        assert len(server.asked) == 2
        assert not server.paid


async def test_a_paid_session_whose_answer_is_lost_is_stopped(tmp_path: Path) -> None:
    """Where it is paid for tells where it is stopped, and the journal knows that before the payment is sent."""
    database = Database(tmp_path / "jobtester.db")
    await database.open()
    journal = RunnerSessions(database)
    try:
        async with payee() as (server, payment):
            keeper = SessionKeeper(payment.client, journal, SessionStopper(payment.client, journal, Metrics()))
            async with keeper.reserve(server.job, payment) as session:
                assert not session.is_open
                (row,) = await journal.open_sessions()
                assert row.control_url == f"{server.uri}/apps/x/session/m"
            assert server.stopped == ["/apps/x/session/m/stop"]
            assert await journal.open_sessions() == []
            assert ["Livepeer-Payment" in headers for headers in server.asked] == [False, True]
    finally:
        await database.close()
