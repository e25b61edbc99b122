"""Sessions and payments of live runners against the simulated network: used, paid once, and always stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.tick_report import TickReport
from jobtester.live_runner.payment import JobPayment
from jobtester.simulator.live_runner.runner import LiveRunner
from jobtester.simulator.live_runner.signer import PAYER
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, OrchestratorSpec, RunnerSpec, Scenario
from jobtester.store.results import ResultRow
from jobtester.store.runner_sessions import RunnerSessions, SessionRow
from jobtester.tick.attempt_builder import make_attempts
from tests.harness.ports import free_port
from tests.harness.process import run_command_in_thread, write_config
from tests.harness.simulated import SimulatedTester, config_tables
from tests.harness.waiting import until

FAST = (0.01, 0.02)
SAY = {
    "runner": True, "apps": ["x/*"], "uri": "/say", "timeout": "20s", "parameters": {"text": "hello"},
    "checks": [{"check": "json", "path": "text"}],
}  # fmt: skip
PRICE = 1000


def runner(app: str = "echo", **changes: Any) -> RunnerSpec:
    """Return a persistent runner of the echo app."""
    values = {"mode": "persistent", "app_kind": "echo", "latency_s": FAST, "version": "1", **changes}
    return RunnerSpec(app=f"x/{app}", **values)


@dataclass(slots=True)
class SessionTester(SimulatedTester):
    """A tester of live runners alone."""

    @property
    def runners(self) -> list[LiveRunner]:
        """Every simulated runner, in the order of the scenario."""
        return [runner for port in self.network.service_ports for runner in port.runners]

    @property
    def kinds(self) -> list[str]:
        """What was asked of the runners, in order, with the status of each answer."""
        return [f"{request.kind} {request.status}" for request in self.network.runner_requests]

    async def journal(self) -> list[SessionRow]:
        """Return the sessions that the tester thinks may be open."""
        return await RunnerSessions(self.daemon.database).open_sessions()

    async def only_result(self) -> ResultRow:
        """Run a tick and return its only result."""
        await self.tick()
        (result,) = await self.results()
        return result

    def assert_all_stopped(self) -> None:
        """Assert that no runner keeps a session."""
        for tested in self.runners:
            counts = tested.session_counts
            assert not tested.sessions
            assert counts["opened"] == counts["stopped"] + counts["lost"] + counts["lapsed"]


@asynccontextmanager
async def session_tester(
    folder: Path,
    *runners: RunnerSpec,
    signs: bool = True,
    pipelines: dict[str, Any] | None = None,
    uri: str = "https://127.0.0.1:0",
    **live_runner: Any,
) -> AsyncIterator[SessionTester]:
    """Start an orchestrator with these runners, and a tester whose signer is the simulated one."""
    node = OrchestratorSpec(address=f"0x{1:040x}", service_uri=uri, models=(), runners=tuple(runners))
    scenario = Scenario(name="sessions", seed=1, gateways=(GatewaySpec(name="g", mode="query"),), orchestrators=(node,))
    async with (
        Network(scenario) as network,
        start_tester(network, folder, signs=signs, pipelines=pipelines, **live_runner) as tester,
    ):
        yield tester


@asynccontextmanager
async def start_tester(
    network: Network, folder: Path, *, signs: bool = True, pipelines: dict[str, Any] | None = None, **live_runner: Any
) -> AsyncIterator[SessionTester]:
    """Start a tester of a network that runs."""
    payment = {"signer_url": network.signer.url} if signs else {}
    payment |= live_runner.pop("payment", {})
    budget = live_runner.pop("budget", {})
    table = {"enabled": True, "networks": ["127.0.0.0/8"], "payment": payment, **live_runner}
    tables = config_tables(
        network, folder, live_runner=table, budget=budget, pipelines={"say": SAY} if pipelines is None else pipelines
    )
    loaded = Configuration.from_tables(tables, origin="test")
    async with open_daemon(loaded) as daemon:
        yield SessionTester(network, daemon)


@pytest.mark.parametrize("path_kind", ["id", "label", "proxied"])
async def test_a_persistent_app_is_called_in_a_session_that_is_stopped(tmp_path: Path, path_kind: Any) -> None:
    """The round trip is the app call's; the reservation is a measure; nothing is left in the journal."""
    async with session_tester(tmp_path, runner(path_kind=path_kind)) as tester:
        result = await tester.only_result()
        assert (result.outcome, result.reason, result.attribution) == ("passed", "ok", "proven")
        assert tester.kinds == ["reserve 200", "call 200", "stop 204"]
        assert result.measures["session_seconds"] > 0
        assert result.round_trip_s + result.measures["session_seconds"] <= result.measures["ready_seconds"] + 0.001
        assert await tester.journal() == []
        tester.assert_all_stopped()


VERDICTS = {
    "session_lost": ("failed", "app_gone"),
    "session_conflict": ("failed", "session_conflict"),
    "runner_busy": ("unscored", "busy"),
    "runner_down": ("failed", "app_down"),
    "runner_fails": ("failed", "app_error"),
    "runner_wrong": ("failed", "bad_json"),
    "runner_resets": ("failed", "app_cut_short"),
}


@pytest.mark.parametrize("fault", VERDICTS)
async def test_each_fault_in_a_session_has_its_verdict_and_leaves_no_session(tmp_path: Path, fault: str) -> None:
    """Whatever the app does, the session is stopped and the journal is empty."""
    async with session_tester(tmp_path, runner(fault=fault)) as tester:
        result = await tester.only_result()
        assert (result.outcome, result.reason) == VERDICTS[fault], result.message
        assert await tester.journal() == []
        tester.assert_all_stopped()


async def test_an_app_without_a_definition_is_probed_by_reserving_alone(tmp_path: Path) -> None:
    """With probe = "reserve" the reservation is the test, once a tick; without it the app is skipped."""
    async with session_tester(tmp_path, runner("unknown"), pipelines={}, probe="reserve") as tester:
        result = await tester.only_result()
        assert (result.outcome, result.reason, result.pipeline) == ("passed", "ok", "x/unknown")
        assert tester.kinds == ["reserve 200", "stop 204"]
        assert result.round_trip_s == pytest.approx(result.measures["session_seconds"])
    async with session_tester(tmp_path, runner("unknown"), pipelines={}) as tester:
        assert (await tester.tick()).skipped == {"no_definition": 1}


async def test_a_fixed_price_is_paid_once(tmp_path: Path) -> None:
    """One challenge, one payment, and the same request again; the result has what was paid."""
    async with session_tester(tmp_path, runner(mode="single-shot", price=PRICE, unit="fixed")) as tester:
        result = await tester.only_result()
        assert (result.outcome, result.reason) == ("passed", "ok"), result.message
        assert tester.kinds == ["app 402", "app 200"]
        assert result.estimated_price_wei == PRICE
        assert [request.paid_wei for request in tester.network.runner_requests] == [0, PRICE]
        assert tester.network.signer.requests == 1


async def test_a_session_by_the_second_is_paid_as_long_as_it_lives(tmp_path: Path) -> None:
    """A job that outlasts what the first payment covers goes on, and nothing is paid after its end."""
    spec = runner(price=PRICE, unit="seconds", payment_interval_s=1.5, latency_s=(7.5, 7.5))
    async with session_tester(tmp_path, spec) as tester:
        result = await tester.only_result()
        assert (result.outcome, result.reason) == ("passed", "ok"), result.message
        assert tester.kinds[:2] == ["reserve 402", "reserve 200"]
        assert tester.kinds.count("payment 200") == 2
        assert tester.kinds[-2:] == ["call 200", "stop 204"]
        assert (result.estimated_price_wei or 0) > PRICE * 7
        tester.assert_all_stopped()


async def _report_and_results(tester: SessionTester) -> tuple[TickReport, Sequence[ResultRow]]:
    return await tester.tick(), await tester.results()


@pytest.mark.parametrize(
    ("unit", "price", "limit", "is_sent"),
    [("fixed", 100, "100 wei", True), ("fixed", 101, "100 wei", False),
     ("seconds", 10, "400 wei", True), ("seconds", 11, "400 wei", False),
     ("720p-pixel-seconds", 11, "400 wei", False)],
)  # fmt: skip
async def test_a_price_above_the_limit_is_not_paid(
    tmp_path: Path, unit: Any, price: int, limit: str, is_sent: bool
) -> None:
    """A price by time counts for the longest time that the job may take, and the payment ahead; skipped is unsent."""
    limits = {"max_price_per_job": limit.removesuffix(" wei")}
    async with session_tester(tmp_path, runner(price=price, unit=unit), payment=limits) as tester:
        report, results = await _report_and_results(tester)
        assert [row.reason for row in results] == (["ok"] if is_sent else [])
        assert report.skipped == ({} if is_sent else {"price": 1})
        assert bool(tester.kinds) == is_sent


async def test_without_a_signer_nothing_with_a_price_is_sent(tmp_path: Path) -> None:
    """Unpaid requests would only tell the orchestrator that somebody does not pay."""
    async with session_tester(tmp_path, runner(price=1), signs=False) as tester:
        report, results = await _report_and_results(tester)
        assert (report.skipped, results, tester.kinds) == ({"unpaid": 1}, [], [])


@pytest.mark.parametrize(
    ("status", "reason"), [(480, "ok"), (481, "price_refused"), (500, "signer_fault"), (400, "signer_fault")]
)
async def test_a_signer_that_does_not_pay_is_no_orchestrators_fault(tmp_path: Path, status: int, reason: str) -> None:
    """480 is answered with new payment parameters once; everything else leaves the job unscored and unpaid."""
    async with session_tester(tmp_path, runner(price=PRICE, unit="fixed")) as tester:
        tester.network.signer.fail_next(status)
        result = await tester.only_result()
        assert result.reason == reason, result.message
        assert result.estimated_price_wei == (PRICE if reason == "ok" else 0)
        assert await tester.journal() == []
        tester.assert_all_stopped()


async def test_a_signer_that_is_gone_is_no_orchestrators_fault(tmp_path: Path) -> None:
    """Nothing is sent to the orchestrator at all."""
    async with session_tester(tmp_path, runner(price=PRICE), payment={"signer_url": f"http://127.0.0.1:{free_port()}"}
    ) as tester:  # fmt: skip
        result = await tester.only_result()
        assert (result.outcome, result.reason, tester.kinds) == ("unscored", "signer_fault", [])
        assert (result.attribution, result.evidence) == ("missing", ())


async def test_a_second_402_is_not_paid_again(tmp_path: Path) -> None:
    """An orchestrator that takes a payment and asks for another gets no other."""
    async with session_tester(tmp_path, runner(price=PRICE, unit="fixed", fault="runner_repeats_402")) as tester:
        result = await tester.only_result()
        assert (result.reason, tester.kinds) == ("payment_required", ["reserve 402", "reserve 402"])
        assert tester.network.signer.requests == 1


async def test_a_daemon_that_stops_ends_the_session_first(tmp_path: Path) -> None:
    """A session whose app hangs is stopped when the grace of a stop is over, and the job counts for nobody."""
    async with session_tester(tmp_path, runner(fault="runner_hangs")) as tester:
        async with tester.serving(tick=True):

            async def is_called() -> bool:
                return any(row.control_url for row in await tester.journal())

            await until(is_called, "a session is open, and the journal has its control URL")
        assert [row.reason for row in await tester.results()] == ["shutdown"]
        assert await tester.journal() == []
        tester.assert_all_stopped()


async def test_what_an_earlier_process_left_open_is_stopped_at_the_start(tmp_path: Path) -> None:
    """A row of the journal with its control URL is enough; one without is logged and forgotten."""
    async with session_tester(tmp_path, runner(capacity=3)) as tester:
        node = tester.network.orchestrators[0].spec
        open_session = tester.runners[0].open_session("session_left")
        url = f"{node.service_uri}/apps/{tester.runners[0].url_name}/session"
        journal = RunnerSessions(tester.daemon.database)
        await journal.begin(SessionRow("a", node.service_uri, url, f"{url}/{open_session.session_id}", 1e12))
        await journal.begin(SessionRow("b", node.service_uri, url, "", 1e12))
        await journal.begin(SessionRow("c", node.service_uri, url, f"{url}/session_never_was", 1e12))
        await tester.daemon.coordinator.planner.inputs.live_runner.sessions.stopper.stop_left_over()  # type: ignore[union-attr]
        assert await journal.open_sessions() == []
        tester.assert_all_stopped()


async def test_a_session_that_cannot_be_stopped_stays_in_the_journal_for_a_limited_time(tmp_path: Path) -> None:
    """An orchestrator that is gone is asked again later, not for ever."""
    async with session_tester(tmp_path, runner()) as tester:
        uri = f"https://127.0.0.1:{free_port()}"
        journal = RunnerSessions(tester.daemon.database)
        keeper = tester.daemon.coordinator.planner.inputs.live_runner.sessions  # type: ignore[union-attr]
        await journal.begin(SessionRow("a", uri, f"{uri}/apps/x/session", f"{uri}/apps/x/session/s", 1e12))
        await keeper.stopper.stop_left_over()
        assert [row.stop_rounds for row in await journal.open_sessions()] == [1]
        await journal.begin(SessionRow("b", uri, f"{uri}/apps/y/session", f"{uri}/apps/y/session/s", 1e12, 3))
        await keeper.stopper.stop_left_over()
        assert [(row.job, row.stop_rounds) for row in await journal.open_sessions()] == [("a", 2)]


async def test_a_runner_never_has_two_sessions(tmp_path: Path) -> None:
    """Two reservations of one runner wait for each other, whatever the limits of the tick are."""
    async with session_tester(tmp_path, runner(capacity=9, latency_s=(0.2, 0.2))) as tester:
        most_open = 0
        planner = tester.daemon.coordinator.planner
        plan = await planner.plan("t", await planner.discover())
        coordinator = tester.daemon.coordinator
        attempts = await make_attempts(coordinator.planner, coordinator.checker, coordinator.metrics, seed=1)
        peer = planner.inputs.live_runner
        assert peer is not None
        (job,) = plan.jobs

        async def watch() -> None:
            nonlocal most_open
            while True:
                most_open = max(most_open, len(tester.runners[0].sessions))
                await asyncio.sleep(0.01)

        watching = asyncio.ensure_future(watch())
        jobs = [replace(job, id=f"job-{number}") for number in range(3)]
        sent = await asyncio.gather(*(attempts[peer.walk(job)].send(job, peer, lambda: None) for job in jobs))
        watching.cancel()
        assert [sent_job.exchange.status for sent_job in sent] == [200, 200, 200]
        assert most_open == 1
        tester.assert_all_stopped()


async def test_any_work_in_a_session_may_fail(tmp_path: Path) -> None:
    """Whatever the block of a reserved session raises, the session is stopped and the error goes on."""
    async with session_tester(tmp_path, runner()) as tester:
        planner = tester.daemon.coordinator.planner
        (job,) = (await planner.plan("t", await planner.discover())).jobs
        peer = planner.inputs.live_runner
        assert peer is not None

        async def crash() -> None:
            async with JobPayment(job, peer.client, None) as payment, peer.sessions.reserve(job, payment) as session:
                assert session.is_open
                assert [row.control_url for row in await tester.journal()] == [session.control_url]
                raise RuntimeError("crashed")

        with pytest.raises(RuntimeError, match="crashed"):
            await crash()
        assert await tester.journal() == []
        tester.assert_all_stopped()


async def test_no_session_lasts_longer_than_its_bound(tmp_path: Path) -> None:
    """An app that would have had more time ends with live_runner.max_session, and is not blamed for that."""
    async with session_tester(tmp_path, runner(fault="runner_hangs"), max_session="1s") as tester:
        result = await tester.only_result()
        assert (result.outcome, result.reason) == ("unscored", "tester_fault")
        assert "live_runner.max_session" in result.message
        assert result.round_trip_s < 10
        assert await tester.journal() == []
        tester.assert_all_stopped()


async def test_sessions_are_stopped_although_live_runners_are_switched_off(tmp_path: Path) -> None:
    """What an earlier process has left is stopped even if [live_runner] is no longer enabled."""
    async with session_tester(tmp_path, runner()) as tester:
        node = tester.network.orchestrators[0].spec
        open_session = tester.runners[0].open_session("session_left")
        url = f"{node.service_uri}/apps/{tester.runners[0].url_name}/session"
        network = tester.network
        await RunnerSessions(tester.daemon.database).begin(
            SessionRow("a", node.service_uri, url, f"{url}/{open_session.session_id}", 1e12)
        )
        await tester.daemon.database.close()
        async with start_tester(network, tmp_path, enabled=False) as later:
            assert await later.journal() == []
            later.assert_all_stopped()


async def test_the_budget_counts_paid_jobs(tmp_path: Path) -> None:
    """A tick has room for one of two jobs, and a day for what is left after what was really paid."""
    runners = [runner("a", price=60, unit="fixed", mode="single-shot"), runner("b", price=60, unit="fixed")]
    budget = {"per_tick": "100", "per_day": "150"}
    async with session_tester(tmp_path, *runners, budget=budget) as tester:
        reports = [await tester.tick() for _ in range(3)]
        rows = await tester.results()
        assert [report.skipped.get("budget", 0) for report in reports] == [1, 1, 2]
        assert {row.pipeline for row in rows} == {"x/a", "x/b"}
        assert [row.estimated_price_wei for row in rows] == [60, 60]
        assert sum(request.paid_wei for request in tester.network.runner_requests) == 120


@pytest.mark.parametrize("is_there", [True, False])
async def test_check_asks_the_signer(tmp_path: Path, is_there: bool) -> None:
    """`jobtester check` names the address that pays, or says why there is none."""
    node = OrchestratorSpec(address=f"0x{1:040x}", service_uri="https://127.0.0.1:0", models=(), runners=(runner(),))
    scenario = Scenario(name="check", seed=1, gateways=(GatewaySpec(name="g", mode="query"),), orchestrators=(node,))
    async with Network(scenario) as network:
        url = network.signer.url if is_there else f"http://127.0.0.1:{free_port()}"
        write_config(
            network,
            tmp_path,
            live_runner={"enabled": True, "networks": ["127.0.0.0/8"], "payment": {"signer_url": url}},
        )
        done = await run_command_in_thread(tmp_path, "check")
    lines = [line for line in done.stdout.decode().splitlines() if "signer for live runners" in line]
    expected = f"{url} answers; it pays from {PAYER}" if is_there else "cannot be reached"
    assert len(lines) == 1
    assert expected in lines[0]
    assert done.returncode == (0 if is_there else 1)
