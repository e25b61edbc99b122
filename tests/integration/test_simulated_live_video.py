"""Live video through the simulated gateway with real video: what the contract says of it, and each of its faults."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from jobtester.simulator import faults
from jobtester.simulator.live_spec import LiveContainerSpec, LiveGatewaySpec
from jobtester.simulator.live_video.live_log import LoggedLiveJob
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from tests.harness.live_video import LiveClient, listening_client, luma_of
from tests.harness.ports import free_port
from tests.harness.waiting import until

PIPELINE = "live-video-to-video"
FASTER = 0.1
NOBODY = "no orchestrators available"


@dataclass
class Setup:
    """A network with one gateway, and a client of it."""

    network: Network
    client: LiveClient

    @property
    def url(self) -> str:
        """The gateway's job port."""
        return self.network.gateways["g"].url

    @property
    def job(self) -> LoggedLiveJob:
        """The newest job that the simulator has logged."""
        return self.network.live_log.jobs[-1]

    def uri(self, index: int = 0) -> str:
        """The service URI of an orchestrator."""
        return self.network.orchestrators[index].spec.service_uri

    async def start(self, stream: str = "st", index: int = 0, **query: str) -> LoggedLiveJob:
        """Start a job that is pinned to an orchestrator, and return its entry in the log."""
        assert await self.client.start(self.url, stream, **{"orchestrator": self.uri(index), **query}) == (200, "")
        return self.job

    async def status(self, stream: str = "st") -> dict[str, Any]:
        """Return the status of a job that is known."""
        status = await self.client.status(self.url, stream)
        assert status is not None
        return status

    async def event(self, stream: str = "st") -> dict[str, Any]:
        """Return the first status with an event of the container."""

        async def get() -> dict[str, Any] | None:
            status = await self.status(stream)
            return status if "state" in status else None

        event: dict[str, Any] = await until(get, "an event of the container")
        return event

    async def error(self, stream: str = "st") -> str:
        """Return the error of a status."""
        return str((await self.status(stream))["gateway_status"].get("error", {}).get("error_message", ""))

    async def frames(self, number: int) -> None:
        """Wait until this many frames have come back."""
        await until(lambda: len(self.client.frames) >= number, f"{number} frames")

    async def end(self) -> None:
        """End the input, and wait for the end of the job."""
        self.client.input_ended.set()
        await until(lambda: self.job.ended_at, "the end of the job")

    async def metrics(self) -> dict[str, float]:
        """Return the gateway's metrics by series."""
        async with self.client.session.get(f"{self.network.gateways['g'].cli_url}/metrics") as response:
            lines = [line for line in (await response.text()).splitlines() if not line.startswith("#")]
        return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def node(number: int = 0, *, model: str = "m", **values: Any) -> OrchestratorSpec:
    """Make an orchestrator with one live model and short times."""
    live = values.pop("live", LiveContainerSpec().scale_times(FASTER))
    spec = ModelSpec(PIPELINE, model, **values.pop("spec", {}))
    return OrchestratorSpec(
        f"0x{number + 1:040x}",
        service_uri="https://127.0.0.1:0",
        models=(spec,),
        live=live,
        **values,
    )


@asynccontextmanager
async def running(*nodes: OrchestratorSpec, factor: float = FASTER, **live: Any) -> AsyncIterator[Setup]:
    """Run a network with these orchestrators, whose gateway calls the client back."""
    port = free_port()
    spec = LiveGatewaySpec(**{"callback_port": port, **live}).scale_times(factor)
    gateway = GatewaySpec("g", mode="stock", retry_window=5.0, live=spec)
    async with Network(Scenario("live", 3, (gateway,), nodes)) as network, listening_client(port) as client:
        yield Setup(network, client)


# 3.1 Routes


@pytest.mark.parametrize(
    ("stream", "changes", "text"),
    [
        ("", {}, "Missing stream name"),
        ("st", {"source_id": ""}, "Missing source_id"),
        ("st", {"source_type": ""}, "Missing source_type"),
        ("st", {"source_type": "file"}, "unknown media source"),
        ("st", {"query": "params={"}, "Invalid model params"),
        ("st", {"query": "params=[1]"}, "Invalid model params"),
    ],
)
async def test_start_refuses_incomplete_forms(stream: str, changes: dict[str, str], text: str) -> None:
    """Each part that is missing or wrong is answered 400 with the gateway's text, and no job begins."""
    form = {"source_id": "s", "source_type": "rtmpconn", "rtmp_url": "http://127.0.0.1:1/x", "query": "", **changes}
    async with running(node()) as setup:
        assert await setup.client.post_start(setup.url, stream, form) == (400, f"{text}\n")
        assert not setup.network.live_log.jobs


async def test_routes_that_do_nothing_or_are_missing() -> None:
    """An output's name is taken without effect; nothing stops a stream, WHIP is off, unknown streams are 404."""
    async with running(node()) as setup, aiohttp.ClientSession() as session:
        base = f"{setup.url}/live/video-to-video"
        assert await setup.client.start(setup.url, "st-out") == (200, "")
        assert not setup.network.live_log.jobs
        for method, path, status in (
            ("PUT", "/smoketest", 200),
            ("DELETE", "/st", 404),
            ("POST", "/st/stop", 404),
            ("POST", "/st/whip", 404),
            ("GET", "/st/status", 404),
            ("POST", "/st/update", 404),
        ):
            async with session.request(method, base + path) as response:
                assert response.status == status, path
        async with session.post(f"{base}/prefix/st/start", data={}) as response:
            assert (response.status, await response.text()) == (400, "Missing source_id\n")


# 3.4 Input, output and the questions to the media server


async def test_every_frame_comes_back_and_the_log_knows_when() -> None:
    """All frames return in order by the right one of three posts; the log's times are those of the client."""
    async with running(node()) as setup:
        setup.client.seconds = 3.0
        job = await setup.start()
        await until(lambda: job.ended_at, "the end of the job")
        client = setup.client
        assert [frame.luma for frame in client.frames] == pytest.approx([luma_of(n) for n in range(72)], abs=3)
        assert [frame.pts_s for frame in client.frames] == sorted(frame.pts_s for frame in client.frames)
        (post,) = client.posts
        assert post.path == "/out/st"
        assert {"/in/st.mkv-out", f"/in/st.mkv-{job.request_id}-out"} == set(client.rejected)
        assert len(client.rejected) > 2, "a rejected output is sent again"
        (session,) = job.sessions
        assert (job.frames, session.frames_in, session.frames_out) == (72, 72, 72)
        (output,) = [output for output in job.outputs if output.status == 200]
        assert output.frames == 72
        assert output.first_frame_at is not None
        assert -0.001 <= client.frames[0].at - output.first_frame_at < 1.0
        assert job.error == "mediamtx ingest disconnected"


async def test_media_server_is_asked_before_each_read_and_after_the_end() -> None:
    """The questions carry the name and password; after the end come up to four, and a read that breaks is repeated."""
    async with running(node()) as setup:
        setup.client.seconds = 1.0
        await setup.start()
        await until(lambda: setup.job.ended_at, "the end of the job")
        gets = setup.client.gets()
        expected = "Basic " + base64.b64encode(b"admin:password").decode()
        assert {(question.source_id, question.authorization) for question in gets} == {("source-1", expected)}
        assert gets[0].at < setup.client.posts[0].begun_at
        assert len(gets) == 5


async def test_input_is_read_again_while_the_media_server_has_it() -> None:
    """An input whose connection has ended is read four more times, each after a question."""
    async with running(node()) as setup:
        setup.client.seconds, setup.client.claims_input = 1.0, True
        await setup.start()
        await until(lambda: setup.job.ended_at, "the end of the job")
        assert setup.client.inputs_read == len(setup.client.gets()) == 5


async def test_stream_ends_when_the_media_server_cannot_be_reached() -> None:
    """Without an answer from the port of the media server, the input is never read."""
    async with running(node(), callback_port=free_port()) as setup:
        await setup.start()
        await until(lambda: setup.job.ended_at, "the end of the job")
        assert not setup.client.inputs_read
        assert await setup.error() == "mediamtx ingest disconnected"


@pytest.mark.parametrize("file_format", ["flv", "mpegts"])
async def test_other_formats_are_probed_longer(file_format: str) -> None:
    """FLV and MPEG-TS take their longer time until the first frame; no frame is lost meanwhile."""
    times = {"matroska_probe_s": 0.0, "other_probe_s": 1.2, "output_probe_s": 0.1, "output_start_s": 0.0}
    async with running(node(), factor=1.0, **times) as setup:
        setup.client.file_format, setup.client.seconds = file_format, 2.0
        job = await setup.start()
        await setup.frames(48)
        assert job.first_frame_at is not None
        assert 1.2 <= job.first_frame_at - job.received_at < 4.0


async def test_rejected_output_is_sent_again() -> None:
    """A client that rejects the output gets it again some seconds later, from then on."""
    async with running(node()) as setup:
        job = await setup.start(rtmpOutput=f"http://127.0.0.1:{setup.client.port}/in/rejected")
        await until(lambda: setup.client.rejected.count("/in/rejected") >= 2, "the second try")
        await setup.end()
        assert len([output for output in job.outputs if output.url.endswith("/rejected")]) >= 2


# 3.5 Status


async def test_status_of_a_good_job() -> None:
    """Unknown, then the gateway's part alone, then events from the second one on; removed a while after the end."""
    async with running(node(), status_life_s=20.0) as setup:
        assert await setup.client.status(setup.url) is None
        job = await setup.start(params='{"b": 1, "a": "x"}')
        assert set(await setup.status()) == {"gateway_status"}
        first = await setup.event()
        (session,) = job.sessions
        assert time.monotonic() - session.started_at > 0.9, "the event at the start is lost"
        assert first["orchestrator_info"] == {"address": "0x" + "1".zfill(40), "url": setup.uri()}
        assert (first["stream_id"], first["request_id"], first["pipeline_id"]) == ("id-st", job.request_id, "")
        digest = hashlib.md5(json.dumps({"a": "x", "b": 1}).encode(), usedforsecurity=False).hexdigest()
        assert first["inference_status"]["last_params_hash"] == digest

        async def is_online() -> bool:
            status = await setup.status()
            return bool(status["state"] == "ONLINE" and status["inference_status"]["fps"] > 20)

        await until(is_online, "the state ONLINE")
        assert (await setup.status())["start_time"] == first["start_time"]
        await setup.end()
        assert await setup.error() == "mediamtx ingest disconnected"
        ended_at = time.monotonic()

        async def is_forgotten() -> bool:
            return await setup.client.status(setup.url) is None

        await until(is_forgotten, "the end of the status")
        assert time.monotonic() - ended_at > 1.5


async def test_repeated_stream_id_shows_the_earlier_orchestrator() -> None:
    """A job that repeats a streamId shows what the earlier one left, until its own first event."""
    async with running(node(0), node(1)) as setup:
        await setup.start(index=0)
        await setup.event()
        await setup.end()
        setup.client.input_ended.clear()
        await setup.start(index=1)
        assert (await setup.status())["orchestrator_info"]["url"] == setup.uri(0)

        async def is_own() -> bool:
            return bool((await setup.status())["orchestrator_info"]["url"] == setup.uri(1))

        await until(is_own, "the event of the second job")
        await setup.end()


async def test_model_that_has_to_load_first() -> None:
    """A cold model reports LOADING and sends nothing, then it is ONLINE; afterwards it is warm."""
    async with running(node(spec={"warm": False, "cold_s": 2.0})) as setup:
        job = await setup.start()
        assert (await setup.event())["state"] == "LOADING"
        assert not setup.client.frames

        async def is_online() -> bool:
            return bool((await setup.status())["state"] == "ONLINE")

        await until(is_online, "the state ONLINE")
        (session,) = job.sessions
        assert session.first_frame_out_at is not None
        assert session.first_frame_out_at - session.started_at >= 2.0
        await setup.end()
        assert setup.network.orchestrators[0].is_warm(PIPELINE, "m")


async def test_first_frame_is_as_late_as_measured() -> None:
    """At the contract's own times the first frame comes 5.2 s after the start, though the container had it sooner."""
    async with running(node(), factor=1.0) as setup:
        job = await setup.start()
        await setup.frames(1)
        assert 5.0 < setup.client.frames[0].at - setup.client.started_at < 7.3
        (session,) = job.sessions
        assert session.first_frame_out_at is not None
        assert 0.46 <= session.first_frame_out_at - job.received_at < 2.0
        await setup.end()


# 3.6 Selection and pin


async def test_pin_is_a_substring() -> None:
    """A part of the service URI is enough: a port that begins like another one matches that one too."""
    async with running(node()) as setup:
        job = await setup.start(orchestrator=setup.uri()[:-1])
        assert job.tries == 1
        await setup.frames(1)
        await setup.end()


async def test_pin_that_matches_nobody() -> None:
    """The start is answered 200, the source is kicked at once, and the status holds nothing but the error."""
    async with running(node()) as setup:
        job = await setup.start(orchestrator="https://nobody.example:8935")
        assert [kick.source_id for kick in setup.client.kicks()] == ["source-1"]
        status = await setup.status()
        assert set(status) == {"gateway_status"}
        assert status["gateway_status"]["error"]["error_message"] == NOBODY
        assert (job.kicked, job.sessions, setup.client.inputs_read) == (True, [], 0)
        (unserved,) = [value for name, value in (await setup.metrics()).items() if NOBODY in name]
        assert unserved == 1


@pytest.mark.parametrize("fault", ["live_start_500", "live_start_503", "busy", "down", "runner_500"])
async def test_refused_start_looks_like_nobody(fault: str) -> None:
    """A container's error, a lack of capacity and a dead node look the same, and only the gateway's log tells them."""
    async with running(node(0, fault=fault), node(1)) as setup:
        job = await setup.start()
        assert await setup.error() == NOBODY
        assert job.kicked
        setup.network.orchestrators[0].restart()
        setup.client.input_ended.clear()
        await setup.start("again")
        assert await setup.error("again") == NOBODY, "it has left the pool"
        setup.client.input_ended.clear()
        await setup.start("other", index=1)
        assert await setup.error("other") == ""
        await setup.end()


async def test_pool_is_filled_again_by_the_clock_of_the_gateway() -> None:
    """An orchestrator that failed is found again after the next refresh of the pool."""
    async with running(node(0, fault="live_start_500"), node(1), pool_refresh_s=40.0) as setup:
        await setup.start()
        setup.network.orchestrators[0].restart()
        begun_at = time.monotonic()

        async def is_served() -> bool:
            setup.client.input_ended.clear()
            stream = f"st{len(setup.network.live_log.jobs)}"
            return bool((await setup.start(stream)).answered_at and not await setup.error(stream))

        await until(is_served, "the refresh", pause_s=0.2)
        assert time.monotonic() - begun_at < 12.0
        await setup.end()


async def test_empty_pool_is_filled_at_once() -> None:
    """When the last orchestrator of the pool has failed, the next job finds all of them again."""
    async with running(node(0, fault="live_start_500"), node(1, fault="live_start_500")) as setup:
        await setup.start(index=0)
        await setup.start("b", index=1)
        for orchestrator in setup.network.orchestrators:
            orchestrator.restart()
        setup.client.input_ended.clear()
        await setup.start("c", index=0)
        assert await setup.error("c") == ""
        await setup.end()


async def test_pin_among_more_than_twenty_may_not_be_reached() -> None:
    """Each session that is looked at is a try, so that behind twenty others a pinned one is not found each time."""
    async with running(*(node(number, fault="live_start_500") for number in range(40))) as setup:
        tries = []
        for number in range(12):
            tries.append((await setup.start(f"st{number}", index=number)).tries)
            setup.client.input_ended.clear()
        missed = [job for job in setup.network.live_log.jobs if not job.log_errors]
        assert missed
        assert {job.tries for job in missed} == {20}
        assert len(missed) < 12


async def test_slot_is_taken_while_a_stream_runs() -> None:
    """A second stream finds no capacity; the capabilities of the network show the first one."""
    async with running(node()) as setup:
        await setup.start()
        await setup.frames(1)
        async with setup.client.session.get(f"{setup.network.gateways['g'].cli_url}/getNetworkCapabilities") as reply:
            (entry,) = (await reply.json())["orchestrators"]
        model = entry["capabilities"]["constraints"]["PerCapability"]["35"]["models"]["m"]
        assert (model["warm"], model["capacityInUse"], "capacity" in model) == (True, 1, False)
        assert entry["capabilities"]["capacities"] == {"35": 1}
        first = setup.job
        second = await setup.start("second")
        assert second.log_errors == ["503 insufficient capacity"]
        await until(lambda: first.ended_at, "the end of the first job")
        assert not setup.network.orchestrators[0].in_use[PIPELINE, "m"]


async def test_without_a_pin_anybody_serves() -> None:
    """A job without a pin is served by one of the orchestrators."""
    async with running(node(0), node(1)) as setup:
        job = await setup.start(orchestrator="")
        await setup.frames(1)
        assert job.sessions[0].service_uri in (setup.uri(0), setup.uri(1))
        await setup.end()


# 3.6 What a gateway shows in a fault


async def test_container_dies() -> None:
    """Frames and events stop and the state stays ONLINE; then the swap finds nobody, and the source is kicked."""
    live = LiveContainerSpec(event_interval_s=1.0, fault_after_s=2.5)
    async with running(node(fault="live_container_dies", live=live)) as setup:
        job = await setup.start()
        await until(lambda: job.kicked, "the kick")
        status = await setup.status()
        assert (status["state"], status["gateway_status"]["error"]["error_message"]) == ("ONLINE", NOBODY)
        assert job.log_errors[0] in ("timeout waiting for events", "timeout waiting for segments")
        assert job.log_errors[1].startswith("500 ")
        assert setup.client.posts[0].ended_at - setup.client.frames[-6].at > 1.0


async def test_orchestrator_dies() -> None:
    """The status has the error at once, the output ends, and the kick follows; the state stays ONLINE."""
    live = LiveContainerSpec(event_interval_s=1.0, fault_after_s=2.5)
    async with running(node(fault="live_orchestrator_dies", live=live), factor=0.5) as setup:
        job = await setup.start()
        await setup.event()

        async def has_error() -> bool:
            return bool(await setup.error())

        await until(has_error, "the error")
        assert (await setup.error()).startswith("trickle subscribe error reading: ")
        assert not job.kicked
        failed_at = time.monotonic()
        await until(lambda: setup.client.kicks(), "the kick")
        assert 0.5 < time.monotonic() - failed_at < 4.0
        assert setup.client.posts[0].ended_at
        assert (await setup.status())["state"] == "ONLINE"


async def test_empty_segments_with_good_events() -> None:
    """The status shows ONLINE and 23.5 frames per second without an error, long after the gateway's timeouts."""
    async with running(node(fault="live_empty_segments"), segments_timeout_s=15.0, events_timeout_s=15.0) as setup:
        job = await setup.start()
        await until(lambda: job.frames > 24 * 5, "five seconds of input")
        status = await setup.status()
        assert (status["state"], status["inference_status"]["fps"]) == ("ONLINE", 23.5)
        assert "error" not in status["gateway_status"]
        assert (setup.client.frames, job.swaps) == ([], 0)
        await setup.end()
        assert not any("first_segment_delay" in series for series in await setup.metrics())


async def test_no_events_start_the_stream_again_on_the_same_orchestrator() -> None:
    """The output ends and comes again from the same orchestrator, twice; the third time is too much."""
    async with running(node(fault="live_no_events")) as setup:
        job = await setup.start()
        await until(lambda: job.ended_at, "the end of the job")
        assert {session.service_uri for session in job.sessions} == {setup.uri()}
        assert len(job.sessions) == len([post for post in setup.client.posts if post.frames]) == 3
        assert (await setup.error(), job.kicked, job.swaps) == ("Too many swaps", True, 2)
        assert set(await setup.status()) == {"gateway_status"}


async def test_mute_container() -> None:
    """Neither frames nor events, and in the end too many swaps."""
    async with running(node(fault="live_mute")) as setup:
        job = await setup.start()
        await until(lambda: job.ended_at, "the end of the job")
        assert (await setup.error(), setup.client.frames, setup.client.posts) == ("Too many swaps", [], [])


async def test_swap_to_the_same_orchestrator() -> None:
    """The URL stays; the start time of the container changes, and the output has a hole."""
    live = LiveContainerSpec(event_interval_s=0.5, fault_after_s=2.0)
    async with running(node(fault="live_swap", live=live)) as setup:
        job = await setup.start()
        first = await setup.event()

        async def is_new() -> bool:
            return bool((await setup.status())["start_time"] != first["start_time"])

        await until(is_new, "the new start time")
        assert (await setup.status())["orchestrator_info"]["url"] == setup.uri()
        assert await setup.error() == ""
        await until(lambda: len(setup.client.posts) == 2 and setup.client.posts[1].frames, "the second output")
        assert setup.client.posts[1].frames[0].at > setup.client.posts[0].frames[-1].at + 0.25
        await setup.end()
        assert (job.swaps, len(job.sessions)) == (1, 2)


@pytest.mark.parametrize("fault", ["live_black", "live_frozen"])
async def test_pictures_without_content(fault: str) -> None:
    """Frames come at full rate, but they are black or all the same."""
    async with running(node(fault=fault)) as setup:
        setup.client.seconds = 2.0
        job = await setup.start()
        await until(lambda: job.ended_at, "the end of the job")
        lumas = {frame.luma for frame in setup.client.frames}
        assert len(setup.client.frames) == 48
        assert len(lumas) == 1
        assert (lumas == {16}) == (fault == "live_black")


async def test_slow_container() -> None:
    """A few frames per second come back, and events say so."""
    async with running(node(fault="live_slow")) as setup:
        setup.client.seconds = 5.0
        job = await setup.start()

        async def is_degraded() -> bool:
            return (await setup.status()).get("state") == "DEGRADED_INFERENCE"

        await until(is_degraded, "the state DEGRADED_INFERENCE")
        await until(lambda: job.ended_at, "the end of the job")
        assert 15 <= len(setup.client.frames) <= 25


async def test_slow_input_is_reported() -> None:
    """An input below 15 frames per second is reported as degraded."""
    async with running(node()) as setup:
        setup.client.fps = 10
        await setup.start()

        async def is_degraded() -> bool:
            return (await setup.status()).get("state") == "DEGRADED_INPUT"

        await until(is_degraded, "the state DEGRADED_INPUT")
        await setup.end()


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("live_error", "ERROR"),
        ("live_degraded_input", "DEGRADED_INPUT"),
        ("live_degraded_inference", "DEGRADED_INFERENCE"),
        ("live_never_loads", "LOADING"),
    ],
)
async def test_reported_states(fault: str, state: str) -> None:
    """Events report the state of the fault; an error comes with restarts and the end of the frames."""
    live = LiveContainerSpec(event_interval_s=0.5, fault_after_s=1.0)
    async with running(node(fault=fault, live=live)) as setup:
        await setup.start()

        async def is_reported() -> bool:
            return (await setup.status()).get("state") == state

        await until(is_reported, f"the state {state}")
        inference = (await setup.status())["inference_status"]
        assert bool(inference["restart_count"] and inference["last_error"]) == (state == "ERROR")
        await setup.end()


# Parameters


@pytest.mark.parametrize(
    ("fault", "is_reported", "is_applied"),
    [("", True, True), ("live_ignores_params", False, False), ("live_claims_params", True, False)],
)
async def test_changed_parameters(fault: str, is_reported: bool, is_applied: bool) -> None:
    """A change shows in the hash and in the picture, or in one of them, or in none."""
    live = LiveContainerSpec(event_interval_s=0.5)
    async with running(node(fault=fault, live=live)) as setup:
        await setup.start(params='{"prompt": "a"}')
        before = await setup.event()
        await setup.frames(5)
        assert await setup.client.update(setup.url, {"prompt": "b", "a": 1}) == (200, "")
        updated = len(setup.client.frames)
        await setup.frames(updated + 72)
        status = (await setup.status())["inference_status"]
        digest = hashlib.md5(json.dumps({"a": 1, "prompt": "b"}).encode(), usedforsecurity=False).hexdigest()
        assert (status["last_params_hash"] == digest) == is_reported
        assert (status["last_params_update_time"] is not None) == is_reported
        assert (status["last_params_hash"] != before["inference_status"]["last_params_hash"]) == is_reported
        assert (setup.client.frames[-1].luma > 128) == is_applied
        await setup.end()
        assert await setup.client.update(setup.url, {}) == (404, "Stream not found\n")


# 3.7 Metrics, the control port, and what is left behind


async def test_metrics_prove_who_served() -> None:
    """The first segment's delay is counted for the orchestrator that served, as the log has it."""
    async with running(node(0), node(1)) as setup:
        setup.client.seconds = 3.0
        job = await setup.start(index=1)
        await until(lambda: job.ended_at, "the end of the job")
        metrics = await setup.metrics()
        delays = {series: value for series, value in metrics.items() if "first_segment_delay" in series}
        assert len(delays) == 2
        assert all(f'orchestrator_uri="{setup.uri(1)}"' in series for series in delays)
        total = next(value for series, value in delays.items() if "_sum{" in series)
        assert job.sessions[0].first_segment_delay_s == pytest.approx(total / 1000, abs=0.001)
        assert next(value for series, value in delays.items() if "_count{" in series) == 1
        assert next(value for series, value in metrics.items() if "live_attempt" in series) == 1


async def test_control_port_shows_the_log() -> None:
    """Tests in other processes read who served a job, how many frames passed and when."""
    async with running(node()) as setup:
        setup.client.seconds = 1.0
        await setup.start()
        await until(lambda: setup.job.ended_at, "the end of the job")
        async with setup.client.session.get(f"{setup.network.control_url}/live/log?since=0") as response:
            (entry,) = await response.json()
        assert entry["sessions"][0]["service_uri"] == setup.uri()
        assert entry["sessions"][0]["frames_out"] == 24
        assert entry["outputs"][0]["first_frame_at"] > entry["received_at"]


async def test_nothing_is_left_behind() -> None:
    """Threads of streams end when the network stops in the middle of a stream."""
    async with running(node()) as setup:
        await setup.start()
        await setup.frames(10)
        assert _stream_threads()
    await until(lambda: not _stream_threads(), "the end of the threads")


def _stream_threads() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if "of a gateway" in thread.name or "container" in thread.name
    ]


async def test_gateways_and_orchestrators_that_are_killed_leave_nothing_behind() -> None:
    """After kills in the middle of streams every job has ended, every slot is free, and no thread is left."""
    nodes = [node(number, spec={"capacity": 2}) for number in range(2)]
    async with running(*nodes) as setup:
        gateway, orchestrators = setup.network.gateways["g"], setup.network.orchestrators
        for number in range(6):
            setup.client.input_ended.clear()
            setup.client.posts.clear()
            await setup.start(f"st{number}", orchestrator="")
            await setup.frames(1)
            if number % 2:
                await gateway.stop()
                await gateway.start()
            else:
                serving = next(one for one in orchestrators if one.in_use[PIPELINE, "m"])
                serving.restart(down=True)
                await until(lambda: setup.job.ended_at or setup.job.swaps, "what the gateway does about it")
                serving.restart()
            setup.client.input_ended.set()
            await until(lambda: setup.job.ended_at, "the end of the job")
        await until(lambda: not any(one.in_use[PIPELINE, "m"] for one in orchestrators), "the end of the streams")
    await until(lambda: not _stream_threads(), "the end of the threads")


def test_scenario_has_every_fault_and_no_model_with_too_many_orchestrators() -> None:
    """One orchestrator per fault, and few enough of each model that a pin reaches each of them."""
    scenario = Scenario.load("live-video")
    assert {spec.fault for spec in scenario.orchestrators} >= faults.LIVE
    models = Counter(model.model for spec in scenario.orchestrators for model in spec.models)
    assert max(models.values()) <= scenario.gateways[0].max_tries
