"""An unexpected error ends one unit of work, and the daemon goes on: it ticks, posts and answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal, NoReturn

import aiohttp
import pytest

from jobtester.crash_boundary import CrashBoundary
from jobtester.daemon.notification import Notification
from jobtester.domain.tick_report import TickReport
from jobtester.errors import StoreError
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.metrics import without_region
from tests.harness.simulated import SimulatedTester, simulated_tester
from tests.harness.store import open_database
from tests.harness.waiting import until


class BrokenCollaborator:
    """A collaborator whose every method raises, but for those that are passed on to a working one."""

    def __init__(self, working: object, *broken: str) -> None:
        """Break the named methods."""
        self._working, self._broken = working, broken

    def __getattr__(self, name: str) -> Any:
        """Return a method that raises, or the working one's."""
        return self._fail if name in self._broken else getattr(self._working, name)

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("broken on purpose")


def break_seam(tester: SimulatedTester, seam: str) -> tuple[object, str]:
    """Put a broken collaborator in its place; return where it stands and under which name."""
    daemon, gateway = tester.daemon, tester.daemon.coordinator.gateways[0]
    assert daemon.delivery is not None
    owner: object
    owner, name, *methods = {
        "build": (daemon.coordinator.planner.inputs, "assets", "get"),
        "judge": (daemon.coordinator.planner, "token_limits", "learn"),
        "look": (daemon.coordinator, "ticks", "start"),
        "keep": (daemon.coordinator, "ticks", "finish"),
        "finish": (daemon.coordinator, "results", "release_held"),
        "rest": (gateway, "targeting", "release"),
        "begin": (gateway, "evidence", "begin_tick"),
        "acquire": (gateway, "targeting", "acquire"),
        "send": (gateway, "client", "send"),
        "collect": (gateway, "evidence", "collect"),
        "check": (daemon.coordinator, "checker", "check"),
        "record": (daemon.coordinator, "results", "record"),
        "plan": (daemon.coordinator.planner, "results", "durations"),
        "post": (daemon.delivery.poster.sender, "client", "post"),
    }[seam]
    setattr(owner, name, BrokenCollaborator(getattr(owner, name), *methods))
    return owner, name


JOB = ("acquire", "build", "check", "collect", "judge", "record", "send")
TICK = ("begin", "finish", "keep", "look", "plan", "rest")


@pytest.mark.parametrize("seam", [*JOB, *TICK, pytest.param("post", marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["query", "tester"])
async def test_a_seam_that_raises(tmp_path: Path, seam: str, mode: Literal["query", "tester"]) -> None:
    """The tick ends, the error is counted, and once the seam works again the next tick passes and posts."""
    node = OrchestratorSpec(
        address=f"0x{1:040x}",
        service_uri="https://node-1.example:8935",
        models=tuple(
            ModelSpec("image-to-text" if seam == "build" else "llm", f"m{number}", latency_s=(0.0, 0.0))
            for number in range(3)
        ),
    )
    scenario = Scenario("crashes", 1, (GatewaySpec("g", mode=mode, retry_window=0.1),), (node,))
    async with simulated_tester(scenario, tmp_path) as tester:
        owner, name = break_seam(tester, seam)
        working = getattr(owner, name)._working
        async with asyncio.timeout(60):
            report = await tester.daemon.coordinator.run_tick("test")
        assert report.finished_at is not None
        if seam in ("begin", "finish", "look", "plan", "rest"):
            assert report.state == "failed"
        elif seam in JOB and seam != "record":
            assert {row.reason for row in await tester.results()} == {"tester_fault"}
        if seam == "post":
            await tester.daemon.delivery.run_once()  # type: ignore[union-attr]
            assert (await tester.daemon.outbox.counts())["uncertain"] == 3
        component = "tick" if seam in TICK else "post" if seam == "post" else "job"
        metric = f'jobtester_internal_errors_total{{component="{component}"}}'
        url = f"http://127.0.0.1:{tester.daemon.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            lines = dict(
                line.rsplit(" ", 1) for line in without_region(await response.text()).splitlines() if line[:1] != "#"
            )
        assert float(lines[metric]) >= 1
        setattr(owner, name, working)
        after = await tester.tick()
        assert [row.outcome for row in await tester.results(after.tick)] == ["passed"] * 3


def scenario() -> Scenario:
    """Return a network of one orchestrator with one model."""
    model = ModelSpec("llm", "m", latency_s=(0.0, 0.0))
    node = OrchestratorSpec(address=f"0x{1:040x}", service_uri="https://node-1.example:8935", models=(model,))
    return Scenario("crashes", 1, (GatewaySpec("g", mode="query", retry_window=0.1),), (node,))


def errors(tester: SimulatedTester, component: str) -> float:
    """Return how many internal errors a component has had."""
    return float(tester.daemon.coordinator.metrics.internal_errors.labels(component)._value.get())


async def wait_for_error(tester: SimulatedTester, component: str) -> None:
    """Wait until a component has had an internal error."""
    await until(lambda: errors(tester, component) > 0, f"an internal error of {component}")


@pytest.mark.parametrize(
    "seam",
    [
        "cleanup",
        "delivery",
        "notification",
        "probe",
        "event",
        pytest.param("lookup", marks=pytest.mark.slow),
        "loop",
        "reload",
    ],
)
async def test_a_component_survives_an_error_of_one_round(tmp_path: Path, seam: str) -> None:
    """Every component goes on after an unexpected error, and a tick passes and is posted."""
    async with simulated_tester(scenario(), tmp_path) as tester:
        daemon = tester.daemon
        assert daemon.delivery is not None
        assert daemon.notifier is not None
        owner: object
        owner, name, method = {
            "cleanup": (daemon, "database", "write"),
            "delivery": (daemon.delivery, "outbox", "next_due"),
            "probe": (daemon.health, "database", "check_writable"),
            "event": (daemon.events, "coordinator", "weigh_late_event"),
            "lookup": (daemon.delivery.reconciler, "reader", "look_up"),
            "notification": (daemon.notifier, "settings", ""),
            "reload": (daemon.coordinator, "before_tick", ""),
            "loop": (daemon, "port", ""),
        }[seam]
        working = getattr(owner, name)
        if seam == "lookup":
            sender = daemon.delivery.poster.sender
            sender.client = BrokenCollaborator(sender.client, "post")  # type: ignore[assignment]
            await tester.daemon.coordinator.run_tick("test")
        if seam != "loop":
            broken = BrokenCollaborator(working, method)
            setattr(owner, name, broken if method else broken._fail)
        async with tester.serving() as serving:
            if seam == "event":
                daemon.events.enqueue(None, None)  # type: ignore[arg-type]
            if seam == "notification":
                daemon.notifier._reports.put_nowait(Notification(TickReport("t", "test", 0.0)))
            if seam == "loop":
                asyncio.get_running_loop().call_soon(BrokenCollaborator(None)._fail)
            if seam == "reload":
                daemon.scheduler.request_tick("test")
            await wait_for_error(tester, seam)
            setattr(owner, name, working)
            if seam == "lookup":
                sender.client = sender.client._working  # type: ignore[attr-defined]
            before = len(tester.network.leaderboard.rows)
            await until(lambda: daemon.scheduler.request_tick("test"))
            await until(lambda: len(tester.network.leaderboard.rows) > before)
            assert not serving.done()
            url = f"http://127.0.0.1:{daemon.port}/healthz"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert response.status == 200, await response.text()


class RaisingObject:
    """An object of which every attribute raises."""

    def __getattr__(self, name: str) -> NoReturn:
        """Raise."""
        raise RuntimeError(f"broken on purpose: {name}")

    def __iter__(self) -> NoReturn:
        """Raise."""
        raise RuntimeError("broken on purpose")


async def test_every_page_and_route_answers_an_error_of_ours(tmp_path: Path) -> None:
    """It is a 500 of one line, counted; nothing ends, and the same page is there again when its cause is gone."""
    sections = {"server": {"results_secret": "s", "admin_token": "t"}}
    async with simulated_tester(scenario(), tmp_path, gateways=[{"targeting": "webhook"}], **sections) as tester:
        daemon = tester.daemon
        coordinator, database = daemon.coordinator, daemon.database
        await tester.network.leaderboard.stop()
        paths = [
            "/", f"/o/0x{1:040x}", "/r/x", "/t/last", "/outbox", "/orchestrators", "/healthz", "/readyz", "/metrics",
            "/api/status", "/api/orchestrators", f"/api/orchestrators/0x{1:040x}", "/api/results", "/api/results/x",
            "/api/ticks", "/api/ticks/last", "/api/outbox", "/api/received",
        ]  # fmt: skip
        inputs, read = coordinator.planner.inputs, database.read
        whole = (daemon.configuration.current, inputs.gateways, daemon.health.scheduler)
        async with tester.serving() as serving:
            base = f"http://127.0.0.1:{daemon.port}"
            async with aiohttp.ClientSession() as session:

                async def ask(method: str, path: str) -> tuple[int, str]:
                    async with session.request(method, base + path, data=b"{}") as response:
                        return response.status, await response.text()

                assert (await ask("GET", "/healthz"))[0] == 200, "it serves before anything is broken"
                inputs.gateways = RaisingObject()  # type: ignore[assignment]
                daemon.configuration.current = RaisingObject()  # type: ignore[assignment]
                daemon.health.scheduler = RaisingObject()  # type: ignore[assignment]
                database.read = BrokenCollaborator(database, "read")._fail  # type: ignore[method-assign]
                before = errors(tester, "request")
                asked = [("GET", path) for path in paths]
                asked += [("POST", path) for path in ("/api/ticks", "/api/post_stats", "/webhooks/gateway-events")]
                for method, path in asked:
                    status, text = await ask(method, path)
                    assert status == 500, (path, status, text)
                    assert text.count("\n") <= 1, text
                    assert "purpose" not in text
                assert errors(tester, "request") - before == len(asked)
                daemon.configuration.current, inputs.gateways, daemon.health.scheduler = whole
                database.read = read  # type: ignore[method-assign]
                for path in paths:
                    assert (await ask("GET", path))[0] in (200, 404) or path == "/readyz", path
            assert not serving.done()


async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    """A library that raises CancelledError ends its own unit; a real cancellation passes through."""
    components: list[str] = []
    boundary = CrashBoundary(components.append)
    with boundary.unit("job") as crash:
        raise asyncio.CancelledError
    assert isinstance(crash.error, asyncio.CancelledError)
    assert components == ["job"]

    async def wait() -> None:
        with boundary.unit("job"):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert components == ["job"]


class CancelingClient:
    """A client whose requests are canceled by a library."""

    def __init__(self, working: object) -> None:
        self._working = working

    def __getattr__(self, name: str) -> Any:
        """Return the working client's."""
        return getattr(self._working, name)

    async def send(self, *_: object, **__: object) -> NoReturn:
        """Raise what only a canceled task should see."""
        raise asyncio.CancelledError


async def test_a_job_that_a_library_cancels_is_recorded(tmp_path: Path) -> None:
    """Else it would be in flight for ever, and its tick with it."""
    async with simulated_tester(scenario(), tmp_path) as tester:
        gateway = tester.daemon.coordinator.gateways[0]
        gateway.client = CancelingClient(gateway.client)  # type: ignore[assignment]
        async with asyncio.timeout(60):
            await tester.daemon.coordinator.run_tick("test")
        assert [row.reason for row in await tester.results()] == ["tester_fault"]
        gateway.client = gateway.client._working  # type: ignore[attr-defined]


async def test_a_probe_that_raises_counts_as_no_answer(tmp_path: Path) -> None:
    """The tick waits for the gateway as for one that is away, and goes on when the probe works again."""
    async with simulated_tester(scenario(), tmp_path) as tester:
        gateway = tester.daemon.coordinator.gateways[0]
        working = gateway.client
        gateway.client = BrokenCollaborator(working, "is_alive")  # type: ignore[assignment]
        ticking = asyncio.create_task(tester.daemon.coordinator.run_tick("test"))
        await wait_for_error(tester, "probe")
        gateway.client = working
        await asyncio.wait_for(ticking, 60)
        assert [row.outcome for row in await tester.results()] == ["passed"]


@pytest.mark.parametrize("error", [SystemExit, MemoryError, RuntimeError])
async def test_the_writer_goes_on_whatever_a_write_raises(tmp_path: Path, error: type[BaseException]) -> None:
    """Who waits for that write gets an error, and the next write is done."""

    def work(_: object) -> NoReturn:
        raise error("broken on purpose")

    async with open_database(tmp_path / "store.db") as database:
        async with asyncio.timeout(60):
            with pytest.raises((StoreError, error)):
                await database.write(work)
            assert await database.write(lambda _: 7) == 7
        assert database.is_writable


async def test_a_stream_that_has_begun_ends_at_an_error_of_ours(tmp_path: Path) -> None:
    """It is counted, nothing that is no event follows, and the next stream works when its cause is gone."""
    async with simulated_tester(scenario(), tmp_path) as tester, aiohttp.ClientSession() as session:
        coordinator, before = tester.daemon.coordinator, errors(tester, "request")
        base = f"http://127.0.0.1:{tester.daemon.port}"
        async with session.get(f"{base}/live") as response:
            assert (await response.content.readline()).startswith(b"data: ")
            coordinator.progress = RaisingObject()  # type: ignore[assignment]
            rest = await response.content.read()
        assert rest.strip() == b""
        assert errors(tester, "request") == before + 1
        coordinator.progress = None
        async with session.get(f"{base}/live") as response:
            assert (await response.content.readline()).startswith(b"data: ")
