"""Gateways that misbehave during live video, and strangers at the tester's port, are bounded and cost no score."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from aiohttp import web

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.domain.plan import SKIP_REASONS
from jobtester.store.queries import Queries, ResultFilters
from jobtester.video.pattern import VideoFormat
from tests.harness.busy_machine import repeat_when_frames_are_late, require_frames_on_time
from tests.harness.live_tester import (
    FPS,
    GRACE_S,
    HostileGateway,
    StartedStream,
    assert_nothing_is_left,
    good_status,
    hostile_tables,
    hostile_tester,
    run_one,
)
from tests.harness.ports import free_port
from tests.harness.process import start_command
from tests.harness.video import encode, repack, split_flv
from tests.harness.waiting import until

FORM = VideoFormat(128, 128, FPS)


def flv(seconds: float) -> list[bytes]:
    """Return the pieces of an output."""
    content = b"".join(encode(FORM, round(seconds * FPS), "matroska"))
    return split_flv(repack(content, "flv"))


OUTPUT = flv(12)


async def in_real_time(stream: StartedStream, *, stay_s: float = 0.0) -> AsyncIterator[bytes]:
    """Yield an output frame by frame, as long as the input lives, and then leave the connection open."""
    began = time.monotonic()
    for number, piece in enumerate(OUTPUT):
        await asyncio.sleep(max(0.0, began + number / FPS - time.monotonic()))
        if number % FPS == 0 and await stream.ask("get") != 200:
            break
        yield piece
    await asyncio.sleep(stay_s)


async def serve_well(stream: StartedStream) -> None:
    """Take the input and send an output, as a good gateway does."""
    await stream.ask("get")
    reading = asyncio.create_task(stream.read_input())
    await stream.post_output(in_real_time(stream))
    await reading


async def never(_request: web.Request | None = None) -> web.StreamResponse:
    """Answer never."""
    await asyncio.sleep(600)
    raise AssertionError


STATUSES: dict[str, tuple[Callable[[], Awaitable[web.StreamResponse] | web.StreamResponse], str]] = {
    "garbage": (lambda: web.Response(body=b"\xff\x00{" * 50), "unproven"),
    "not an object": (lambda: web.json_response([{"state": "ONLINE"}]), "unproven"),
    "wrong types": (
        lambda: web.json_response(
            {"state": 7, "orchestrator_info": [1], "gateway_status": "x", "inference_status": {"fps": "nan"}}
        ),
        "unproven",
    ),
    "huge": (lambda: web.Response(body=b"[" * 3_000_000), "gateway_lost"),
    "never": (never, "unproven"),
    "an error": (lambda: web.Response(status=500), "gateway_lost"),
}


@pytest.mark.parametrize("name", STATUSES)
@repeat_when_frames_are_late
async def test_a_status_that_is_none_scores_nobody(name: str, tmp_path: Path) -> None:
    """However good the video is: nobody knows whose it is."""
    status, reason = STATUSES[name]
    gateway = HostileGateway(serve_well, status)
    async with hostile_tester(gateway, tmp_path) as daemon:
        row = await run_one(daemon)
    require_frames_on_time(row)
    assert row.outcome == "unscored", row
    assert row.reason == reason


async def _endless(stream: StartedStream) -> None:
    async def zeros() -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**20)

    await asyncio.gather(stream.read_input(), stream.post_output(zeros()))


async def _garbage(stream: StartedStream) -> None:
    async def noise() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield os.urandom(10_000)
            await asyncio.sleep(0.01)

    await asyncio.gather(stream.read_input(), stream.post_output(noise()))


async def _flood(stream: StartedStream) -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield b"".join(FLOOD)
        await asyncio.sleep(600)

    await asyncio.gather(stream.read_input(), stream.post_output(frames()))


async def _stays_open(stream: StartedStream) -> None:
    await asyncio.gather(stream.read_input(), stream.post_output(in_real_time(stream, stay_s=600)))


async def _many_outputs(stream: StartedStream) -> None:
    await asyncio.gather(stream.read_input(), *(stream.post_output(in_real_time(stream)) for _ in range(80)))


async def _many_inputs(stream: StartedStream) -> None:
    await asyncio.gather(*(stream.read_input() for _ in range(200)))


async def _reads_nothing(stream: StartedStream) -> None:
    async with stream.client.get(stream.input_url):
        await stream.post_output(in_real_time(stream))


async def _kicks(stream: StartedStream) -> None:
    await stream.ask("kick")


FLOOD = flv(0.1) + [piece for _ in range(3) for piece in flv(60)[1:]]
BEHAVIORS: dict[str, tuple[Callable[[StartedStream], Awaitable[None]], tuple[str, ...]]] = {
    "an endless output": (_endless, ("check:video",)),
    "a garbage output": (_garbage, ("check:video",)),
    "thousands of frames at once": (_flood, ("check:video",)),
    "an output that stays open": (_stays_open, ("ok",)),
    # So many at once may keep a small machine from sending its own frames in time.
    "eighty outputs": (
        _many_outputs,
        ("ok", "stream_ended", "check:gap", "check:video", "no_frames", "tester_fault"),
    ),
    "two hundred inputs": (_many_inputs, ("no_frames", "tester_fault", "gateway_fault")),
    "an input that is never read": (_reads_nothing, ("ok", "gateway_fault")),
    "a kick at once": (_kicks, ("gateway_fault",)),
    "nothing at all": (lambda _stream: asyncio.sleep(0), ("gateway_fault",)),
}


@pytest.mark.parametrize("name", BEHAVIORS)
@repeat_when_frames_are_late
async def test_a_gateway_that_misbehaves_costs_one_job(name: str, tmp_path: Path) -> None:
    """The job ends in time with one of its reasons, nothing is left behind, and the next stream passes."""
    behave, reasons = BEHAVIORS[name]
    gateway = HostileGateway(behave)
    async with hostile_tester(gateway, tmp_path) as daemon:
        began = time.monotonic()
        row = await run_one(daemon)
        assert time.monotonic() - began < 40
        if "tester_fault" not in reasons:
            require_frames_on_time(row)
        assert row.reason in reasons, row
        assert_nothing_is_left()
        gateway.behave = serve_well
        row = await run_one(daemon)
        require_frames_on_time(row)
        assert row.reason == "ok", row
        assert_nothing_is_left()


@repeat_when_frames_are_late
async def test_the_port_is_taken(tmp_path: Path) -> None:
    """Nobody is charged, the message names the port, and `check` fails with it; after that the next stream passes."""
    gateway = HostileGateway(serve_well)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with hostile_tester(gateway, tmp_path, port=port) as daemon:
            row = await run_one(daemon)
            assert (row.reason, row.outcome) == ("tester_fault", "unscored")
            assert f"cannot listen on 127.0.0.1:{port}" in row.message
            assert row.round_trip_s > 0
            code, text = await run_check(hostile_tables(gateway, tmp_path, port))
            assert code == 1
            assert f"FAILED  live video: live_video: cannot listen on 127.0.0.1:{port}" in text
            taken.close()
            row = await run_one(daemon)
            require_frames_on_time(row)
            assert row.reason == "ok", row


async def test_without_an_address_to_call_back_nothing_is_tested_and_it_is_said(tmp_path: Path) -> None:
    """The tick skips every stream with a reason, and `plan` and `check` say which key is missing."""
    gateway = HostileGateway(serve_well)
    async with hostile_tester(gateway, tmp_path, callback_host="") as daemon:
        report = await daemon.run_once("test")
        assert (dict(report.skipped), report.planned) == ({"no_callback": 1}, 0)
        tables = hostile_tables(gateway, tmp_path, callback_host="")
        _, text = await run_check(tables)
        assert "live video: not tested" in text
        assert "set live_video.callback_host" in text
        code, text = await run_check(tables, "plan")
        assert code == 0
        assert "live_video.callback_host" in " ".join(text.split())


async def test_where_no_gateway_may_have_a_stream_it_is_said(tmp_path: Path) -> None:
    """The tick ends at once, and the reason names the key."""
    gateway = HostileGateway(serve_well)
    async with gateway.listening():
        tables = hostile_tables(gateway, tmp_path)
        tables["gateways"][0]["streams"] = 0
        async with open_daemon(Configuration.from_tables(tables, origin="test")) as daemon:
            report = await daemon.run_once("test")
    assert (dict(report.skipped), report.planned) == ({"no_streams": 1}, 0)
    assert "gateways.streams" in SKIP_REASONS["no_streams"]


async def test_only_the_gateway_with_the_password_is_answered(tmp_path: Path) -> None:
    """Without it nobody learns of a stream or ends it; the gateway's own questions are answered."""
    statuses: list[int] = []

    async def behave(stream: StartedStream) -> None:
        statuses.extend([await stream.ask(question) for question in ("get", "kick")])
        statuses.extend([await stream.ask(question, "wrong") for question in ("get", "kick")])
        statuses.append(await stream.ask("get", "secret"))
        statuses.append(await stream.ask("kick", "secret"))

    async with hostile_tester(HostileGateway(behave), tmp_path, password="secret") as daemon:
        await run_one(daemon)
    assert statuses == [401, 401, 401, 401, 200, 200]


@repeat_when_frames_are_late
async def test_a_reload_moves_the_listener(tmp_path: Path) -> None:
    """What the configuration says of live video holds from the next tick on, without a restart."""
    gateway = HostileGateway(serve_well)
    async with hostile_tester(gateway, tmp_path) as daemon:
        row = await run_one(daemon)
        port = free_port()
        daemon.configuration.pending = Configuration.from_tables(hostile_tables(gateway, tmp_path, port), origin="test")
        row = await run_one(daemon)
        require_frames_on_time(row)
        assert row.reason == "ok", row
        assert f":{port}/in/" in gateway.streams[-1].input_url
        assert f":{port}/in/" not in gateway.streams[0].input_url


@pytest.mark.parametrize("moment", ["start", "output", "status"])
async def test_a_stop_ends_a_stream_wherever_it_is(moment: str, tmp_path: Path) -> None:
    """Also while the gateway owes an answer: within the grace and 2 s, as shutdown, and nothing is left behind."""
    gateway = HostileGateway(serve_well, never if moment == "status" else good_status)
    gateway.hangs_at_start = moment == "start"
    async with hostile_tester(gateway, tmp_path) as daemon:
        running = asyncio.ensure_future(daemon.run_once("test"))
        await until(lambda: gateway.streams, "the start")
        if moment != "start":
            await until(lambda: gateway.streams[0].is_posting, "the output")
        began = time.monotonic()
        daemon.stop()
        report = await running
        assert time.monotonic() - began < GRACE_S + 2
        (row,) = await Queries(daemon.database).page(ResultFilters(tick=report.tick), limit=10)
        assert (row.reason, row.outcome) == ("shutdown", "unscored")
        assert_nothing_is_left()


async def run_check(tables: dict[str, Any], command: str = "check") -> tuple[int | None, str]:
    """Run a command with a configuration; return its exit code and what it prints."""
    folder = Path(tables["store"]["path"]).parent / "command"
    folder.mkdir(exist_ok=True)
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps({**tables, "store": {"path": str(folder / "jobtester.db")}}))
    process = await start_command(
        command, "-c", str(path), folder=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    text, _ = await process.communicate()
    return process.returncode, text.decode()
