"""No session stays open and none is forgotten, whatever the orchestrator does with reservations and stops."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jobtester.daemon.bootstrap import open_daemon
from jobtester.daemon.daemon import Daemon
from jobtester.live_runner.sessions import SessionKeeper
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import ResultRow
from jobtester.store.runner_sessions import RunnerSessions, SessionRow
from tests.harness.live_runners import FakeOrchestrator, answers, config, fake_orchestrators, own_error
from tests.harness.ports import free_port
from tests.harness.session_orchestrators import SAY, SessionOrchestrator
from tests.harness.waiting import until

LEFT_OFF = {"enabled": False, "networks": ["127.0.0.0/8"]}


@asynccontextmanager
async def running_tester(folder: Path, node: FakeOrchestrator, **tables: Any) -> AsyncIterator[Daemon]:
    """Run an orchestrator, and a tester that knows it."""
    async with fake_orchestrators(node) as known:
        tables.setdefault("pipelines", {"say": SAY})
        async with open_daemon(config(folder, known, **tables)) as daemon:
            await keeper_of(daemon).stopper.stop_left_over()  # what begins at the start is over
            yield daemon


def keeper_of(daemon: Daemon) -> SessionKeeper:
    """Return what keeps a tester's sessions."""
    live_runner = daemon.coordinator.planner.inputs.live_runner
    assert live_runner is not None
    return live_runner.sessions


async def newest_result(daemon: Daemon) -> ResultRow:
    """Run a tick and return its only result."""
    report = await daemon.run_once("test")
    (result,) = [row for row in await Queries(daemon.database).page(ResultFilters()) if row.tick == report.tick]
    return result


async def journal(daemon: Daemon) -> list[SessionRow]:
    """Return the sessions that a tester thinks may be open."""
    return await RunnerSessions(daemon.database).open_sessions()


async def test_a_job_that_runs_again_does_not_forget_its_first_session(tmp_path: Path) -> None:
    """The app is busy and the stop fails three times: the second run stops the first session before it reserves."""
    node = SessionOrchestrator(call_statuses=[429], stop_statuses=[500, 500, 500])
    async with running_tester(tmp_path, node) as daemon:
        result = await newest_result(daemon)
        assert (result.reason, result.deferred) == ("ok", 1)
        assert node.kinds == ["reserve", "call", "stop", "stop", "stop", "stop", "reserve", "call", "stop"]
        assert (node.open_sessions, await journal(daemon)) == (set(), [])


async def test_nothing_is_reserved_where_a_session_is_left_open(tmp_path: Path) -> None:
    """An orchestrator that never stops a session keeps one of the tester's at most, and has no score for it."""
    node = SessionOrchestrator(capacity=9, stop_statuses=[500] * 100)
    async with running_tester(tmp_path, node) as daemon:
        reasons = [(await newest_result(daemon)).reason for _ in range(3)]
        assert reasons == ["ok", "session_left_open", "session_left_open"]
        assert len(node.open_sessions) == 1
        assert [row.control_url.rpartition("/")[2] for row in await journal(daemon)] == list(node.open_sessions)
        node.stop_statuses.clear()
        assert (await newest_result(daemon)).reason == "ok"
        assert (node.open_sessions, await journal(daemon)) == (set(), [])


async def test_an_orchestrator_with_many_sessions_left_open_gets_no_more(tmp_path: Path) -> None:
    """Runners may have new URLs in every tick: the journal does not grow with them."""
    node = SessionOrchestrator()
    async with running_tester(tmp_path, node) as daemon:
        rows = RunnerSessions(daemon.database)
        url = f"{node.uri}/apps/old/session"
        for number in range(20):
            await rows.begin(SessionRow(f"job{number}", node.uri, f"{url}{number}", f"{url}{number}/s", time.time()))
        node.stop_statuses = [500] * 1000
        assert (await newest_result(daemon)).reason == "session_left_open"
        assert "reserve" not in node.kinds


async def test_a_reservation_that_is_answered_too_late_is_stopped_all_the_same(tmp_path: Path) -> None:
    """The job fails in time; the session whose answer comes after that does not stay open."""
    node = SessionOrchestrator(reserve_s=1.0)
    async with running_tester(tmp_path, node) as daemon:
        keeper_of(daemon).reserve_s = 0.2
        result = await newest_result(daemon)
        assert result.reason in ("timeout", "unclear")  # there is no other orchestrator to compare the line with
        assert 0.2 <= result.round_trip_s < 0.9
        assert len(await journal(daemon)) == 1

        async def is_stopped() -> bool:
            return not node.open_sessions and not await journal(daemon)

        await until(is_stopped, "the late session is stopped")
        assert node.kinds[-1] == "stop"


async def test_a_tester_that_stops_waits_for_a_late_reservation(tmp_path: Path) -> None:
    """It ends a few seconds later at most, and by then the session is stopped."""
    node = SessionOrchestrator(reserve_s=1.0)
    async with running_tester(tmp_path, node) as daemon:
        keeper_of(daemon).reserve_s = 0.2
        await newest_result(daemon)
        assert len(node.open_sessions) == 1
        await keeper_of(daemon).stopper.close()
        assert (node.open_sessions, await journal(daemon)) == (set(), [])


async def test_half_an_answer_is_enough_to_stop_a_session(tmp_path: Path) -> None:
    """The connection breaks once the session's id has come."""
    node = SessionOrchestrator(reserve_bytes=45)
    async with running_tester(tmp_path, node) as daemon:
        assert (await newest_result(daemon)).reason in ("app_cut_short", "unclear")
        assert node.kinds[:2] == ["reserve", "stop"]
        assert (node.open_sessions, await journal(daemon)) == (set(), [])


async def test_an_unknown_session_is_over_only_when_it_is_old_enough(tmp_path: Path) -> None:
    """A reservation whose answer was lost may be under way: what is not known yet may be open a moment later."""
    node = SessionOrchestrator()
    async with running_tester(tmp_path, node) as daemon:
        rows, keeper = RunnerSessions(daemon.database), keeper_of(daemon)
        url = f"{node.uri}/apps/app/session"
        await rows.begin(SessionRow("young", node.uri, url, f"{url}/session_young", time.time()))
        await rows.begin(SessionRow("old", node.uri, url, f"{url}/session_old", time.time() - 60))
        await keeper.stopper.stop_left_over()
        assert [row.job for row in await journal(daemon)] == ["young"]
        node.open_sessions.add("session_young")
        keeper.stopper.clock = lambda: time.time() + 60
        await keeper.stopper.close()  # ends the wait until it is old enough
        await keeper.stopper.stop_left_over()
        assert (node.open_sessions, await journal(daemon)) == (set(), [])


async def test_sessions_of_a_runner_that_is_gone_are_over(tmp_path: Path) -> None:
    """An orchestrator that does not know the runner any more has no session of it either."""
    node = FakeOrchestrator({"gone": answers(lambda: own_error(404, "runner not found"))})
    async with running_tester(tmp_path, node) as daemon:
        url = f"{node.uri}/apps/gone/session"
        await RunnerSessions(daemon.database).begin(SessionRow("a", node.uri, url, f"{url}/s", time.time() - 60))
        await keeper_of(daemon).stopper.stop_left_over()
        assert await journal(daemon) == []


async def test_an_orchestrator_that_is_away_is_given_up_after_a_day_and_not_before(tmp_path: Path) -> None:
    """Many rounds in short ticks do not make it earlier, and neither does a clock that is set."""
    async with running_tester(tmp_path, FakeOrchestrator()) as daemon:
        uri, rows = f"https://127.0.0.1:{free_port()}", RunnerSessions(daemon.database)
        ages_and_rounds = {"short": (3600, 500), "first": (90_000, 0), "over": (90_000, 3), "set": (-90_000, 3)}
        for job, (age_s, rounds) in ages_and_rounds.items():
            url = f"{uri}/apps/{job}/session"
            await rows.begin(SessionRow(job, uri, url, f"{url}/s", time.time() - age_s, rounds))
        await keeper_of(daemon).stopper.stop_left_over()
        assert sorted(row.job for row in await journal(daemon)) == ["first", "short"]


async def test_a_tick_without_jobs_for_live_runners_stops_what_is_left(tmp_path: Path) -> None:
    """The orchestrator lists the app no more, but its session is there."""
    node = SessionOrchestrator(stop_statuses=[500] * 3)
    async with running_tester(tmp_path, node) as daemon:
        assert (await newest_result(daemon)).reason == "ok"
        assert len(node.open_sessions) == 1
        node.changes = {"app": {"app": "nobody/knows"}}
        assert (await daemon.run_once("test")).planned == 0

        async def is_stopped() -> bool:
            return not node.open_sessions and not await journal(daemon)

        await until(is_stopped, "the session is stopped")


async def test_each_tick_stops_what_is_left_although_live_runners_are_switched_off(tmp_path: Path) -> None:
    """An orchestrator that was away at the start is asked again."""
    node = SessionOrchestrator(stop_statuses=[500] * 6)
    async with fake_orchestrators(node) as known:
        async with open_daemon(config(tmp_path, known, pipelines={"say": SAY})) as daemon:
            assert (await newest_result(daemon)).reason == "ok"
        async with open_daemon(config(tmp_path, known, live_runner=LEFT_OFF)) as daemon:
            assert len(node.open_sessions) == 1
            await daemon.run_once("test")
            assert (node.open_sessions, await journal(daemon)) == (set(), [])
