"""`jobtester results`, `outbox` and `tick` as people use them: beside a running daemon and without one."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import hashlib
import hmac
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from jobtester.cli import main
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, Scenario
from jobtester.store.outbox import StateChange
from tests.harness.delivery import delivery_harness
from tests.harness.process import clean_environment, run_command_in_thread, running_daemon, write_config
from tests.harness.receiver import AI_STAT
from tests.harness.waiting import until

SECRET = "others"
LONG = "-with-a-name-as-long-as-those-of-real-models"
SECTIONS: dict[str, Any] = {
    "schedule": {"interval": "1h", "run_at_start": True},
    "server": {"host": "127.0.0.1", "port": 0, "results_secret": SECRET},
}


def network(*, orchestrators: int = 3, fault: str = "") -> Scenario:
    """Return a network whose orchestrators all have the same fault, or none."""
    generated = generate(
        seed=6, orchestrators=orchestrators, pipelines=("llm", "image-to-text"), latency_s=(0.0, 0.01),
        gateways=(GatewaySpec("g", mode="query", retry_window=0.1),),
    )  # fmt: skip
    models = tuple(dataclasses.replace(spec, model=spec.model + LONG) for spec in generated.orchestrators[0].models)
    nodes = tuple(
        dataclasses.replace(spec, fault=fault, fault_probability=1.0, models=models) for spec in generated.orchestrators
    )
    return dataclasses.replace(generated, orchestrators=nodes)


async def run_json(folder: Path, *arguments: str) -> Any:
    """Return a command's JSON; its stdout is nothing else, and its stderr is empty."""
    process = await run_command_in_thread(folder, *arguments, "--json")
    assert (process.returncode, process.stderr) == (0, b""), process.stderr
    return orjson.loads(process.stdout)


async def run_items(folder: Path, *arguments: str) -> Any:
    """Return the items of a command that lists."""
    return (await run_json(folder, *arguments))["items"]


async def run_text(folder: Path, *arguments: str, code: int = 0) -> str:
    """Return what a command prints on stdout; no control characters are in it where there is no terminal."""
    process = await run_command_in_thread(folder, *arguments)
    assert (process.returncode, process.stderr) == (code, b""), (process.stdout, process.stderr)
    text = process.stdout.decode()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    return text


@pytest.mark.slow
async def test_the_outbox_is_listed_and_changed_beside_a_running_daemon(tmp_path: Path) -> None:
    """Refused stats are listed with the reason; a dropped one stays away, the others are posted soon after `retry`."""
    async with Network(network()) as remote:
        remote.leaderboard.faults.refuse_signature = True
        write_config(remote, tmp_path, **SECTIONS)
        async with running_daemon(tmp_path) as daemon:
            await daemon.any_event("tick_done")
            await daemon.any_event("stat_refused")

            async def all_refused() -> Any:
                listed = await run_json(tmp_path, "outbox", "list")
                return listed if listed["counts"]["refused"] == 6 else None

            document = await until(all_refused, "all stats are refused")
            assert document["counts"] == dict.fromkeys(document["counts"], 0) | {"refused": 6}
            dropped = document["items"][0]
            assert "403" in dropped["problem"]
            assert dropped["stat"]["orchestrator"] == dropped["orchestrator"]
            table = await run_text(tmp_path, "outbox", "list", "--limit", "2", "--state", "refused")
            assert table.count("403") == 2
            assert table.endswith("6 refused\n")
            assert await run_text(tmp_path, "outbox", "list", "--state", "held") == "no entries\n6 refused\n"
            assert await run_text(tmp_path, "outbox", "drop", str(dropped["number"])) == "1 stat will not be posted\n"
            assert (
                await run_text(tmp_path, "outbox", "drop", str(dropped["number"]), code=1)
                == "0 stats will not be posted\n"
            )
            remote.leaderboard.faults.refuse_signature = False
            others = [str(entry["number"]) for entry in document["items"][1:]]
            assert await run_text(tmp_path, "outbox", "retry", others[0]) == "1 stat will be posted again\n"
            await until(lambda: len(remote.leaderboard.rows) == 1, "the first is posted")
            assert await run_text(tmp_path, "outbox", "retry", *others) == "4 stats will be posted again\n"
            await until(lambda: len(remote.leaderboard.rows) == 5, "the others are posted")
        sent = [orjson.loads(row.body) for row in remote.leaderboard.rows]
        assert sorted(sent, key=str) == sorted((entry["stat"] for entry in document["items"][1:]), key=str)
    (left,) = (await run_json(tmp_path, "outbox", "list"))["items"]
    assert (left["number"], left["state"]) == (dropped["number"], "dropped")


@pytest.mark.slow
async def test_a_retry_reports_what_happens_to_each_stat(tmp_path: Path) -> None:
    """Posted, looked for first, or left alone; and which may be counted twice."""
    async with Network(network()) as remote:
        write_config(remote, tmp_path, **SECTIONS)
        async with delivery_harness(tmp_path) as harness:
            await harness.record(3)
            entries = await harness.outbox.claim(3)
            await harness.outbox.apply([StateChange(entry.seq, "uncertain") for entry in entries])
            assert await run_text(tmp_path, "outbox", "retry", code=1) == (
                "0 stats will be posted again\n"
                "3 stats may be stored and will be looked up anyway; name a number to post it at once\n"
            )
            assert await run_text(tmp_path, "outbox", "drop", "1") == "1 stat will not be posted\n"
            assert await run_text(tmp_path, "outbox", "retry", "1") == (
                "1 stat will be looked up at the Leaderboard, and posted again if not stored\n"
            )
            assert await run_text(tmp_path, "outbox", "retry", "2") == (
                "1 stat will be posted again\n1 stat of these may already be stored and may count twice\n"
            )
            assert await harness.states() == {"uncertain": 2, "pending": 1}


async def test_a_suspect_tick_is_released_by_hand(tmp_path: Path) -> None:
    """All jobs failed alike, so nothing is posted until a person says so; then the running daemon posts all of it."""
    async with Network(network(orchestrators=6, fault="garbage_json")) as remote:
        write_config(remote, tmp_path, **SECTIONS)
        async with running_daemon(tmp_path) as daemon:
            done = await daemon.next_event("tick_done")
            assert done["state"] == "suspect"
            assert (await run_json(tmp_path, "outbox", "list"))["counts"]["suspect"] == 12
            assert remote.leaderboard.rows == []
            assert (
                b"there is no tick 'another'"
                in (await run_command_in_thread(tmp_path, "tick", "release", "another")).stderr
            )
            assert await run_text(tmp_path, "tick", "release") == "12 stats released\n"
            await until(lambda: len(remote.leaderboard.rows) == 12, "all are posted")
            assert await run_text(tmp_path, "tick", "release", done["tick"], code=1) == "0 stats released\n"


@pytest.mark.slow
async def test_results_are_filtered_and_listed(tmp_path: Path) -> None:
    """Each filter, alone and combined, selects from the unfiltered list; other testers' results are listed apart."""
    scenario = network()
    nodes = (dataclasses.replace(scenario.orchestrators[0], fault="garbage_json"), *scenario.orchestrators[1:])
    async with Network(dataclasses.replace(scenario, orchestrators=nodes)) as remote:
        write_config(remote, tmp_path, **SECTIONS)
        none = await run_command_in_thread(tmp_path, "results")
        assert none.returncode == 1
        assert b"does not exist yet; run a tick first" in none.stderr
        async with running_daemon(tmp_path) as daemon:
            await daemon.next_event("tick_done")
            hostile = orjson.dumps(AI_STAT | {"model": "\x1b]0;owned\x07\x1b[31m[bold]x[/bold]"})
            headers = {"Authorization": hmac.new(SECRET.encode(), hostile, hashlib.sha256).hexdigest()}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"http://127.0.0.1:{daemon.port}/api/post_stats", data=hostile, headers=headers) as answer,
            ):
                assert answer.status == 200
            beside = await run_items(tmp_path, "results")
        everything = await run_items(tmp_path, "results")
        assert everything == beside
        assert len(everything) == 6
        instants_recorded = [row["recorded_at"] for row in everything]
        assert instants_recorded == sorted(instants_recorded, reverse=True)
        address = everything[0]["orchestrator"]
        tick = everything[0]["tick"]
        for filters in (
            {"tick": tick, "orchestrator": address.upper().replace("X", "x")},
            {"outcome": "passed", "pipeline": "llm"},
            {"model": f"sim/llm-0{LONG}", "reason": "bad_json"},
        ):
            options = [f"--{name}={value}" for name, value in filters.items()]
            keys = filters | ({"orchestrator": address} if "orchestrator" in filters else {})
            expected = [row for row in everything if all(row[name] == value for name, value in keys.items())]
            assert await run_items(tmp_path, "results", *options) == expected, filters
        assert await run_items(tmp_path, "results", "--tick", "last", "--limit", "2") == everything[:2]
        nobody = await run_command_in_thread(tmp_path, "results", "--tick", "nope")
        assert (nobody.returncode, b"there is no tick 'nope'" in nobody.stderr) == (2, True)
        uris = {row["service_uri"] for row in everything}
        for uri in uris:
            expected = [row for row in everything if row["service_uri"] == uri]
            assert (
                await run_items(tmp_path, "results", "--orchestrator", uri.upper().replace("HTTPS", "https"))
                == expected
            )
        chosen = [option for uri in sorted(uris)[:2] for option in ("--orchestrator", uri)]
        expected = [row for row in everything if row["service_uri"] in sorted(uris)[:2]]
        assert await run_items(tmp_path, "results", *chosen) == expected
        assert await run_text(tmp_path, "results", "--model", "none") == "no results\n"
        table = await run_text(tmp_path, "results")
        assert (table.count("passed"), table.count("failed"), table.count("bad_json")) == (4, 2, 2)
        (other,) = await run_items(tmp_path, "results", "--received")
        assert (other["source"], other["stat"]["region"]) == ("127.0.0.1", "FRA")
        assert "[bold]x[/bold]" in await run_text(tmp_path, "results", "--received")
        for width in (80, 140):
            for arguments in (("results",), ("results", "--received"), ("outbox", "list", "--state", "delivered")):
                shown = await asyncio.to_thread(run_on_terminal, tmp_path, width, *arguments)
                lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
                assert not re.search(r"[\x00-\x1f\x7f-\x9f]", "".join(lines)), "only colors steer the terminal"
                assert max(len(line) for line in lines) <= width
                whole = "\n".join(lines)
                instants = len(re.findall(r"\d\d-\d\d \d\d:\d\d:\d\dZ", whole))
                if arguments == ("results",):
                    assert instants == len(everything), "no instant is folded"
                    assert all(f"{row['orchestrator'][:8]}…{row['orchestrator'][-4:]}" in whole for row in everything)
                    assert (whole.count("passed"), whole.count("failed"), whole.count("unscored")) == (4, 2, 0)
                elif arguments[0] == "results":
                    assert instants == 1
                assert len(lines) <= 6 + 4 * 6, "a row takes few lines"


def run_on_terminal(folder: Path, width: int, *arguments: str) -> str:
    """Run a command on a terminal of a width and return its output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "jobtester", *arguments], cwd=folder, env=clean_environment(TERM="xterm"),
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65_536):
            seen += chunk
    except OSError:
        pass  # that is how a terminal ends
    finally:
        os.close(ours)
    assert process.wait(60) == 0, seen
    return seen.decode()


MISUSED = [
    ("results --limit 0", "--limit"), ("results --limit -5", "--limit"), ("results --limit 1e3", "--limit"),
    ("results --limit 99999999999999999999", "--limit"), ("results --outcome good", "passed, failed, unscored"),
    ("results --reason because", "because"), ("results --orchestrator 0x12", "40 hexadecimal digits"),
    ("results --model \udcff", "--model"), ("results --received --outcome failed", "--outcome"),
    ("results --tick", "--tick"), ("results extra", "extra"), ("outbox", "ACTION"), ("outbox empty", "empty"),
    ("outbox list --state lost", "lost"), ("outbox retry x", "'x'"), ("outbox retry 0", "'0'"),
    ("outbox drop 99999999999999999999", "number"), ("outbox drop 1.5", "1.5"), ("tick", "ACTION"),
    ("tick release \udcff", "--tick"), ("tick release a b", "b"),
]  # fmt: skip


CONFIGURATION = """
region = "FRA"
[leaderboard]
post = false
[[gateways]]
url = "http://g"
"""


@pytest.mark.parametrize(("arguments", "word"), MISUSED, ids=[ascii(arguments) for arguments, _ in MISUSED])
def test_bad_usage_is_one_message(
    arguments: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, nothing on stdout, one message that names what was wrong."""
    (tmp_path / "config.toml").write_text(CONFIGURATION)
    monkeypatch.chdir(tmp_path)
    try:
        code = main.run(arguments.split(" "))
    except SystemExit as ended:
        code = int(str(ended.code))
    output = capsys.readouterr()
    assert (code, output.out) == (2, "")
    messages = [line for line in output.err.splitlines() if line.startswith("jobtester")]
    assert len(messages) == 1
    assert word in messages[0]


async def test_bad_usage_ends_the_shipped_command_with_2(tmp_path: Path) -> None:
    """Found by the parser or by the command itself: no traceback either way."""
    (tmp_path / "config.toml").write_text(CONFIGURATION)
    for arguments in ("results --limit 0", "outbox list --state lost"):
        process = await run_command_in_thread(tmp_path, *arguments.split())
        assert (process.returncode, process.stdout) == (2, b"")
        assert b"Traceback" not in process.stderr
