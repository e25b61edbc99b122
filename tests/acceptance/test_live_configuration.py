"""A running daemon follows its file: content or SIGHUP, what is usable and what is not, what waits for a restart."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import tomli_w
from aiohttp import web

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec
from tests.harness.live_runners import LOOPBACK, FakeOrchestrator, fake_orchestrators, make_tables
from tests.harness.metrics import without_region
from tests.harness.process import DaemonProcess, start_command
from tests.harness.simulated import config_tables
from tests.harness.waiting import until


class DaemonWithFile(DaemonProcess):
    """A running daemon with the file that it follows."""

    def __init__(self, process: asyncio.subprocess.Process, path: Path, content: dict[str, Any]) -> None:
        super().__init__(process)
        self.path, self.content = path, content

    def write(self, **sections: dict[str, Any]) -> None:
        """Replace the file as editors do: a new one is renamed over it."""
        for section, values in sections.items():
            self.content[section] = {**self.content[section], **values}
        aside = self.path.with_suffix(".new")
        aside.write_text(tomli_w.dumps(self.content))
        aside.replace(self.path)


@asynccontextmanager
async def daemon_with_file(
    folder: Path, *, environment: Mapping[str, str] | None = None, **sections: Any
) -> AsyncIterator[tuple[Network, DaemonWithFile, str]]:
    """Start a small network and the daemon for it."""
    scenario = generate(
        seed=3, orchestrators=2, pipelines=("llm", "text-to-image"), gateways=(GatewaySpec("a"), GatewaySpec("b"))
    )
    async with Network(scenario) as network:
        content = config_tables(network, folder, **sections)
        content["gateways"] = [{**content["gateways"][0], "url": network.gateways["a"].url}]
        path = folder / "config.toml"
        path.write_text(tomli_w.dumps(content))
        process = await start_command("serve", folder=folder, stderr=asyncio.subprocess.PIPE, environment=environment)
        running = DaemonWithFile(process, path, content)
        try:
            port = (await running.next_event("serving"))["port"]
            for gateway in network.gateways.values():
                gateway.webhook_url = f"http://127.0.0.1:{port}/orchestrators"
            yield network, running, f"http://127.0.0.1:{port}"
        finally:
            await running.stop()


async def read_metric(base: str, name: str) -> float:
    """Read one figure without labels from /metrics."""
    async with aiohttp.ClientSession() as session, session.get(f"{base}/metrics") as response:
        text = without_region(await response.text())
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def test_a_changed_file_comes_into_force(tmp_path: Path) -> None:
    """Interval at once, the rest before the next tick, each difference logged; secrets only as a mask."""
    async with daemon_with_file(tmp_path) as (network, running, base):
        assert await read_metric(base, "jobtester_tick_interval_seconds") == 3600
        written = time.time()
        running.write(
            schedule={"interval": "2s"}, server={"admin_token": "very-secret-token"}, limits={"per_orchestrator": 2}
        )
        changed = await running.next_event("config_changed")
        assert changed["changes"]["schedule.interval"] == "3600.0 → 2.0"
        assert changed["changes"]["limits.per_orchestrator"] == "1 → 2"
        assert changed["changes"]["server.admin_token"] == "- → **********"
        assert (await running.next_event("tick_done"))["state"] == "finished"
        assert await read_metric(base, "jobtester_tick_interval_seconds") == 2
        assert written < await read_metric(base, "jobtester_next_tick_timestamp_seconds") <= time.time() + 2
        del running.content["schedule"]["interval"]
        running.write(schedule={"cron": "0 */2 * * *"})
        await running.next_event("config_changed")
        assert await read_metric(base, "jobtester_tick_interval_seconds") == 7200
        running.content["notify"] = {"url": "http://user:very-secret@127.0.0.1:9/very-secret"}
        running.write()
        changed = await running.next_event("config_changed")
        assert changed["changes"]["notify.url"] == "- → http://127.0.0.1:9/**********"
        assert "very-secret" not in json.dumps(running.lines)
        await until(lambda: network.leaderboard.rows, "a row is stored")


@pytest.mark.slow
async def test_gateways_are_exchanged_between_ticks(tmp_path: Path) -> None:
    """The next tick goes through the new gateway only."""
    async with daemon_with_file(tmp_path, schedule={"interval": "2s"}) as (network, running, base):
        await running.next_event("tick_done")
        assert {job.gateway for job in network.logged_jobs} == {"a"}
        running.content["gateways"][0] |= {"name": "b", "url": network.gateways["b"].url,
                                           "cli_url": network.gateways["b"].cli_url}  # fmt: skip
        running.write()
        await running.next_event("config_changed")
        before = len(network.logged_jobs)
        await running.next_event("tick_done")
        await running.next_event("tick_done")
        assert "b" in {job.gateway for job in network.logged_jobs[before:]}
        async with aiohttp.ClientSession() as session, session.get(f"{base}/orchestrators/b") as response:
            assert response.status == 200


@pytest.mark.slow
async def test_a_bad_file_is_rejected(tmp_path: Path) -> None:
    """One line that names the key, a metric, and the old configuration goes on; a good file ends it."""
    async with daemon_with_file(tmp_path) as (_, running, base):
        good = running.path.read_text()
        running.path.write_text(good.replace('region = "FRA"', 'region = "FRA"\nregoin = "PRG"'))
        rejected = await running.next_event("config_rejected")
        assert "regoin: no such key" in rejected["problem"]
        assert await read_metric(base, "jobtester_config_reload_successful") == 0
        running.path.write_text("not toml")
        assert "is not valid TOML" in (await running.next_event("config_rejected"))["problem"]
        running.path.unlink()
        assert "no such file" in (await running.next_event("config_rejected"))["problem"]
        assert await read_metric(base, "jobtester_tick_interval_seconds") == 3600
        running.path.write_text(good.replace('interval = "1h"', 'interval = "30m"'))
        await running.next_event("config_changed")
        assert await read_metric(base, "jobtester_config_reload_successful") == 1
        assert await read_metric(base, "jobtester_tick_interval_seconds") == 1800


async def test_what_needs_a_restart_is_named(tmp_path: Path) -> None:
    """The port and the store stay as they are, and SIGHUP reads the file even if nothing is new."""
    async with daemon_with_file(tmp_path) as (_, running, base):
        running.write(server={"port": 7999}, store={"path": str(tmp_path / "other.db")})
        assert (await running.next_event("config_restart_required"))["keys"] == ["server.port", "store.path"]
        running.process.send_signal(signal.SIGHUP)
        await running.next_event("config_unchanged")
        assert await read_metric(base, "jobtester_config_reload_successful") == 1
        assert not (tmp_path / "other.db").exists()


async def test_a_secret_file_that_does_not_fit_is_rejected_by_file_and_key(tmp_path: Path) -> None:
    """The configuration before stays in force, in one line that names both; a fixed file comes into force."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    async with daemon_with_file(tmp_path, environment={"JOBTESTER_SECRETS_DIR": str(secrets)}) as (
        _network,
        running,
        base,
    ):
        bad = secrets / "discovery__orchestrators"
        bad.write_text("0xabc")
        running.process.send_signal(signal.SIGHUP)
        rejected = await running.next_event("config_rejected")
        (line,) = rejected["problem"].splitlines()[1:]
        assert line.strip().startswith("discovery.orchestrators: has to be a list")
        assert line.endswith(f"(in {bad})")
        assert await read_metric(base, "jobtester_config_reload_successful") == 0
        bad.unlink()
        (secrets / "discovery__exclude").write_text(f"0x{1:040x},0x{2:040x}")
        running.process.send_signal(signal.SIGHUP)
        changed = await running.next_event("config_changed")
        assert any(key.startswith("discovery.exclude") for key in changed["changes"])
        assert await read_metric(base, "jobtester_config_reload_successful") == 1


async def test_live_runners_are_switched_on_and_off(tmp_path: Path) -> None:
    """Between two ticks: a job that is under way keeps its connection, and a tick after it asks nobody."""
    is_released = asyncio.Event()

    async def greet(_: web.Request) -> web.Response:
        await is_released.wait()
        return web.Response(text="hello")

    node = FakeOrchestrator({"hello-world": greet})
    async with fake_orchestrators(node) as orchestrators:
        content = make_tables(
            tmp_path, orchestrators, live_runner={"enabled": False, "networks": list(LOOPBACK)},
            schedule={"interval": "1s"},
        )  # fmt: skip
        path = tmp_path / "config.toml"
        path.write_text(tomli_w.dumps(content))
        process = await start_command("serve", folder=tmp_path, stderr=asyncio.subprocess.PIPE)
        running = DaemonWithFile(process, path, content)
        try:
            assert (await running.next_event("tick_done"))["planned"] == 0
            assert not node.asked
            for _ in range(2):
                running.write(live_runner={"enabled": True})
                await running.next_event("config_changed")
                await until(lambda: node.requests, "a job is under way")
                running.write(live_runner={"enabled": False})
                await running.next_event("config_changed")
                is_released.set()
                done = await running.next_event("tick_done")
                while not done["planned"]:  # of a tick that began before the first change
                    done = await running.next_event("tick_done")
                assert done["outcomes"]["passed"] == 1
                while done["planned"]:  # of one that began before the second
                    done = await running.next_event("tick_done")
                discoveries, sent = node.asked, len(node.requests)
                assert (await running.next_event("tick_done"))["planned"] == 0
                assert (node.asked, len(node.requests)) == (discoveries, sent)
                is_released.clear()
                node.requests.clear()
        finally:
            is_released.set()
            await running.stop()
