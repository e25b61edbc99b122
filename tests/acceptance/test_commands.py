"""Commands report what they find: exit codes, dead peers, missing secrets, a gateway that does not follow."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, Scenario
from tests.harness.process import VALID_CONFIG, run_command, run_command_in_thread, running_daemon, write_config
from tests.harness.waiting import until

LOCAL: dict[str, Any] = {"server": {"host": "127.0.0.1", "port": 0}}


def network(mode: str = "query", **node: Any) -> Scenario:
    """Return a small network whose orchestrators are all alike."""
    generated = generate(
        seed=3, orchestrators=2, pipelines=("llm", "image-to-text"), latency_s=(0.0, 0.01),
        gateways=(GatewaySpec("g", mode=mode, retry_window=0.1),),  # type: ignore[arg-type]
    )  # fmt: skip
    return dataclasses.replace(
        generated, orchestrators=tuple(dataclasses.replace(spec, **node) for spec in generated.orchestrators)
    )


async def test_a_run_that_tested_nothing_says_so(tmp_path: Path) -> None:
    """A slip in a filter is exit code 3 with the filter named; a failed job is 1 under --fail-on-failed."""
    async with Network(network()) as remote:
        write_config(remote, tmp_path, **LOCAL)
        slip = await run_command_in_thread(tmp_path, "run", "--orchestrator", "0x" + "9" * 40, "--fail-on-failed")
        assert slip.returncode == 3
        assert slip.stderr.startswith(b"nothing was tested: no orchestrator 0x9999")
        good = await run_command_in_thread(tmp_path, "run", "--fail-on-failed")
        assert (good.returncode, good.stderr) == (0, b"")


async def test_a_pipeline_that_nobody_advertises_is_named(tmp_path: Path) -> None:
    """A slip in --pipeline, and a plain table that no network lists: plan and check say so, each in one line."""
    async with Network(network()) as remote:
        table = {"uri": "/my-own", "checks": [{"check": "json", "path": "city"}]}
        write_config(remote, tmp_path, **LOCAL, pipelines={"my-own": table})
        slip = await run_command_in_thread(tmp_path, "plan", "--pipeline", "image-to-txt")
        assert slip.stderr == b"no pipeline image-to-txt is defined; did you mean image-to-text?\n"
        plan = await run_command_in_thread(tmp_path, "plan", "--pipeline", "my-own")
        assert plan.stderr.startswith(b"nobody advertises my-own: network discovery knows only")
        check = await run_command_in_thread(tmp_path, "check")
        assert b"note    pipelines.my-own: nobody advertises my-own" in check.stdout


async def test_jobs_that_could_not_be_tested_are_no_success(tmp_path: Path) -> None:
    """A gateway that does not follow: 3, and not 0."""
    async with Network(network("stock")) as remote:
        remote.gateways["g"].webhook_url = "http://127.0.0.1:9/orchestrators"
        write_config(remote, tmp_path, **LOCAL)
        process = await run_command_in_thread(tmp_path, "run", "--fail-on-failed")
        assert process.returncode == 3, process.stdout


async def test_a_run_says_which_stats_did_not_arrive(tmp_path: Path) -> None:
    """Refused stats are exit code 1, with their number and the command that shows them."""
    async with Network(network()) as remote:
        remote.leaderboard.faults.refuse_signature = True
        write_config(remote, tmp_path, **LOCAL)
        process = await run_command_in_thread(tmp_path, "run")
        assert (
            process.returncode,
            b"not at the Leaderboard yet: 4 refused; see jobtester outbox list" in process.stderr,
        ) == (
            1,
            True,
        )


def test_check_of_dead_peers_is_quick(tmp_path: Path) -> None:
    """Discovery's patience is for ticks: a check asks once."""
    (tmp_path / "config.toml").write_text(VALID_CONFIG.replace('patience = "0s"', 'patience = "10m"'))
    began = time.monotonic()
    process = run_command("check", folder=tmp_path)
    assert time.monotonic() - began < 60
    assert process.returncode == 1
    assert process.stdout.count("FAILED") == 3


def test_check_and_plan_go_on_without_a_secret(tmp_path: Path) -> None:
    """What only posting needs is one FAILED line of check, and nothing to plan, which posts nothing."""
    (tmp_path / "config.toml").write_text(VALID_CONFIG.replace("post = false", 'url = "http://127.0.0.1:1"'))
    process = run_command("check", folder=tmp_path)
    assert process.returncode == 1
    assert "FAILED  configuration: leaderboard.secret: needed to post" in process.stdout
    assert "FAILED  gateway g" in process.stdout
    planned = run_command("plan", folder=tmp_path)
    assert "leaderboard" not in planned.stderr
    assert "no gateway reports which orchestrators there are" in planned.stderr


@pytest.mark.parametrize(
    ("mode", "code", "text"),
    [("query", 0, "served"), ("stock", 1, "ignores which orchestrator the tester names")],
)
async def test_a_probe_finds_out_whether_a_gateway_follows(mode: str, code: int, text: str, tmp_path: Path) -> None:
    """A real job or two per gateway say who served."""
    async with Network(network(mode)) as remote:
        gateway = remote.gateways["g"]
        if mode == "stock":
            gateway.webhook_url = "http://127.0.0.1:9/orchestrators"
        write_config(remote, tmp_path, gateways=[{"first_ask": "2s"}], **LOCAL)
        process = await run_command_in_thread(tmp_path, "check", "--probe")
        assert (process.returncode, text in process.stdout.decode()) == (code, True), process.stdout.decode()
        assert remote.leaderboard.rows == []


async def test_a_probe_finds_an_llm_that_takes_no_json(tmp_path: Path) -> None:
    """A gateway of 2024 refuses the request that every newer one wants."""
    generated = network("query")
    old = dataclasses.replace(generated, gateways=(dataclasses.replace(generated.gateways[0], version="0.0.11"),))
    async with Network(old) as remote:
        write_config(remote, tmp_path, **LOCAL)
        process = await run_command_in_thread(tmp_path, "check", "--probe")
        assert process.returncode == 1
        assert "this gateway's llm takes no JSON" in process.stdout.decode(), process.stdout.decode()


async def test_healthcheck_finds_the_daemon_as_it_is_configured(tmp_path: Path) -> None:
    """A byte order mark, another address, and a port from a secret file."""
    async with Network(network()) as remote:
        write_config(remote, tmp_path, server={"host": "127.0.0.9", "port": 0})
        async with running_daemon(tmp_path) as daemon:
            config = tmp_path / "config.toml"
            config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
            (tmp_path / "server__port").write_text(f"{daemon.port}\n")
            process = run_command("healthcheck", folder=tmp_path, JOBTESTER_SECRETS_DIR=str(tmp_path))
            assert (process.returncode, process.stderr) == (0, "")


async def test_a_rejected_file_is_reported_until_it_is_fixed(tmp_path: Path) -> None:
    """/readyz and every page show the problem; peers that were not asked yet are not called healthy."""
    async with Network(network()) as remote:
        write_config(remote, tmp_path, **LOCAL)
        config = tmp_path / "config.toml"
        good = config.read_text()
        async with (
            running_daemon(tmp_path) as daemon,
            aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}") as session,
        ):
            async with session.get("/api/status") as answer:
                peers = (await answer.json())["peers"]
            assert (peers["discovery"]["ok"], peers["discovery"]["checked"]) == (True, False)
            config.write_text(good.replace("[schedule]", "[shedule]"))
            await daemon.next_event("config_rejected")
            async with session.get("/readyz") as answer:
                check = (await answer.json())["checks"]["configuration"]
            assert not check["ok"]
            assert "shedule: no such key" in check["problem"]
            for page in ("/", "/outbox"):
                async with session.get(page) as answer:
                    assert "shedule: no such key" in await answer.text()
            config.write_text(good)

            async def is_fixed() -> bool:
                async with session.get("/readyz") as response:
                    return "configuration" not in (await response.json())["checks"]

            await until(is_fixed, "/readyz no longer names the configuration")
            async with session.get("/") as answer:
                assert "shedule" not in await answer.text()
