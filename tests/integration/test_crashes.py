"""An unexpected error ends one unit of work, and the daemon goes on: it ticks, posts and answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal, NoReturn

import aiohttp
import pytest

from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.running import Stage, staged


class Broken:
    """A collaborator whose every method raises, but for those that are passed on to a working one."""

    def __init__(self, working: object, *broken: str) -> None:
        """Break the named methods."""
        self._working, self._broken = working, broken

    def __getattr__(self, name: str) -> Any:
        """Return a method that raises, or the working one's."""
        return self._fail if name in self._broken else getattr(self._working, name)

    def _fail(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("broken on purpose")


def break_seam(stage: Stage, seam: str) -> tuple[object, str]:
    """Put a broken collaborator in its place; return where it stands and under which name."""
    daemon, lane = stage.daemon, stage.daemon.conductor.lanes[0]
    assert daemon.delivery is not None
    owner: object
    owner, name, *methods = {
        "acquire": (lane, "targeting", "aim"),
        "send": (lane, "client", "send"),
        "collect": (lane, "evidence", "gather"),
        "check": (daemon.conductor, "examiner", "examine"),
        "record": (daemon.conductor, "results", "record"),
        "plan": (daemon.conductor, "results", "durations"),
        "post": (daemon.delivery, "client", "post"),
        "probe": (lane, "client", "alive"),
    }[seam]
    setattr(owner, name, Broken(getattr(owner, name), *methods))
    return owner, name


@pytest.mark.parametrize("seam", ["acquire", "send", "collect", "check", "record", "plan", "post"])
@pytest.mark.parametrize("mode", ["query", "tester"])
async def test_a_seam_that_raises(tmp_path: Path, seam: str, mode: Literal["query", "tester"]) -> None:
    """The tick ends, the error is counted, and once the seam works again the next tick passes and posts."""
    node = OrchestratorSpec(
        address=f"0x{1:040x}",
        service_uri="https://node-1.example:8935",
        models=tuple(ModelSpec("llm", f"m{number}", latency_s=(0.0, 0.0)) for number in range(3)),
    )
    scenario = Scenario("crashes", 1, (GatewaySpec("g", mode=mode, retry_window=0.1),), (node,))
    async with staged(scenario, tmp_path) as stage:
        owner, name = break_seam(stage, seam)
        working = getattr(owner, name)._working
        async with asyncio.timeout(60):
            report = await stage.daemon.conductor.tick("test")
        assert report.finished_at is not None
        if seam == "plan":
            assert report.state == "failed"
        elif seam in ("acquire", "send", "collect", "check"):
            assert {row.reason for row in await stage.results()} == {"tester_fault"}
        if seam == "post":
            await stage.daemon.delivery.work()  # type: ignore[union-attr]
            assert (await stage.daemon.outbox.counts())["uncertain"] == 3
        component = {"post": "post", "plan": "tick"}.get(seam, "job")
        metric = f'jobtester_internal_errors_total{{component="{component}"}}'
        url = f"http://127.0.0.1:{stage.daemon.port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            lines = dict(line.rsplit(" ", 1) for line in (await response.text()).splitlines() if line[:1] != "#")
        assert float(lines[metric]) >= 1
        setattr(owner, name, working)
        after = await stage.tick()
        assert [row.outcome for row in await stage.results(after.tick)] == ["passed"] * 3
