"""The shipped daemon is killed outright in the middle of a video stream, or stopped: nothing of the stream is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, Scenario
from tests.harness.process import DaemonProcess, write_config
from tests.harness.runner_video import VIDEO, video_node
from tests.harness.waiting import until


def decoders_of(parent: int) -> set[int]:
    """Return the ids of the decoder processes that a process has started."""
    found = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            status, command = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if int(status.rpartition(")")[2].split()[1]) == parent and b"jobtester.video" in command:
            found.add(int(folder.name))
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["kill", "stop"])
async def test_a_tester_that_ends_in_the_middle_of_a_stream_leaves_nothing(way: str, tmp_path: Path) -> None:
    """Its decoder ends with it, and its session at once or, after a kill, at the next start; nobody is charged."""
    scenario = Scenario("streams", 3, (GatewaySpec("g", mode="stock"),), (video_node(1),))
    sections: dict[str, Any] = {
        "live_runner": {"enabled": True, "networks": ["127.0.0.0/8"]},
        "pipelines": {"runner-video-echo": {"video": {**VIDEO, "duration": "60s"}}},
        "logs": {"format": "json"},
    }
    async with Network(scenario) as network:
        port = network.service_ports[0]
        write_config(network, tmp_path, schedule={"run_at_start": True, "interval": "1h"}, **sections)
        daemon = await DaemonProcess.start(tmp_path)
        try:
            await until(lambda: port.video_streams and port.video_streams[0].first_output_at, "a frame comes back")
            decoders = await until(lambda: decoders_of(daemon.process.pid), "a decoder runs")
            assert port.runners[0].sessions
        finally:
            await (daemon.kill() if way == "kill" else daemon.stop())
        await until(lambda: not [number for number in decoders if Path(f"/proc/{number}").exists()], "no decoder runs")
        if way == "stop":
            assert not port.runners[0].sessions
        write_config(network, tmp_path, schedule={"run_at_start": False}, **sections)
        daemon = await DaemonProcess.start(tmp_path)
        try:
            await daemon.any_event("serving")
            await until(lambda: not port.runners[0].sessions, "its session is stopped")
        finally:
            await daemon.stop()
        assert port.runners[0].session_counts["stopped"] == 1
        assert [row.stat for row in network.leaderboard.rows] == []
