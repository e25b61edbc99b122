"""The tester's reader and writer of trickle channels, against the simulated server and servers that lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from jobtester.live_runner.client import LiveRunnerClient
from jobtester.simulator.trickle.channel import Channel
from jobtester.simulator.trickle.server import TrickleTimes
from jobtester.video.decoder import VideoDecoder
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.pattern import VideoFormat
from jobtester.video.trickle_reader import CURRENT, NEXT, ChannelReader, Gap, ReaderLimits
from jobtester.video.trickle_writer import ChannelWriter, WriterOptions
from jobtester.video.video_input import InputOptions, VideoInput
from tests.harness.trickle import ServedChannels, serve_channels
from tests.harness.waiting import until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def _client(*networks: str) -> AsyncIterator[LiveRunnerClient]:
    client = LiveRunnerClient(networks or ("127.0.0.0/8",))
    await client.open()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _channel(
    times: TrickleTimes | None = None,
) -> AsyncIterator[tuple[ServedChannels, Channel, LiveRunnerClient]]:
    async with serve_channels(times) as served, _client() as client:
        yield served, served.create(), client


@asynccontextmanager
async def _serve(handle: Handler) -> AsyncIterator[str]:
    """Run a server without TLS that answers everything with one handler."""

    async def respond(request: web.Request) -> web.StreamResponse:
        return await handle(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/ch"
    finally:
        await runner.cleanup()


async def _bytes(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _segments(*contents: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
    for content in contents:
        yield _bytes(content)


async def _read(reader: ChannelReader) -> dict[int, bytes]:
    contents: dict[int, bytes] = {}
    async with reader:
        async for piece in reader:
            contents[piece.number] = contents.get(piece.number, b"") + piece.data
    return contents


async def test_the_writer_opens_the_next_segment_early_and_closes_the_channel() -> None:
    """While segment 0 is written, the request of segment 1 is open; at the end everybody is told."""
    async with _channel() as (served, channel, client):
        writer = ChannelWriter(client.open_request, f"{served.url}/ch")
        may_end = asyncio.Event()

        async def content() -> AsyncIterator[bytes]:
            yield b"first"
            await may_end.wait()
            yield b" rest"

        async def segments() -> AsyncIterator[AsyncIterator[bytes]]:
            yield content()
            yield _bytes(b"second")

        reading = asyncio.create_task(_read(ChannelReader(client.open_request, f"{served.url}/ch", 0)))
        writing = asyncio.create_task(writer.write(segments()))
        await until(lambda: channel.segment(1), "the next segment is open")
        assert channel.next_number == 1
        may_end.set()
        assert (await writing).code == "finished"
        assert (writer.segments, writer.sent, writer.dropped) == (2, 16, [])
        assert not served.server.exists("ch")
        assert await reading == {0: b"first rest", 1: b"second"}


async def test_a_writer_that_leaves_the_channel_open_closes_its_unused_segment() -> None:
    """Readers do not wait for a segment that was opened early and never written."""
    async with _channel() as (served, channel, client):
        writer = ChannelWriter(client.open_request, f"{served.url}/ch", WriterOptions(closes=False))
        assert (await writer.write(_segments(b"a", b"b"))).code == "finished"
        assert served.server.find("ch") is channel
        unused = channel.segment(2)
        assert unused is not None
        assert unused.is_over


async def test_a_writer_that_joins_late_goes_on_where_the_channel_is() -> None:
    """It takes the next number, and its reset closes what others left open."""
    async with _channel() as (served, channel, client):
        channel.write(b"old", 6)
        left_open = channel.open_for_writing(5)
        channel.append(left_open, b"half")
        channel.next_number = 7
        writer = ChannelWriter(client.open_request, f"{served.url}/ch", WriterOptions(joins_late=True, closes=False))
        await writer.write(_segments(b"new"))
        segment = channel.segment(7)
        assert segment is not None
        assert segment.content == b"new"
        assert left_open.is_over


async def test_idle_requests_survive_the_servers_interim_responses() -> None:
    """100 Continue before the first byte is no answer."""
    async with _channel(TrickleTimes(continue_s=0.02)) as (served, _, client):
        go_on = asyncio.Event()

        async def segments() -> AsyncIterator[AsyncIterator[bytes]]:
            await go_on.wait()
            yield _bytes(b"late")

        writer = ChannelWriter(client.open_request, f"{served.url}/ch", WriterOptions(closes=False))
        writing = asyncio.create_task(writer.write(segments()))
        await asyncio.wait([writing], timeout=0.2)
        go_on.set()
        assert (await writing).code == "finished"
        assert writer.segments == 1
        assert (await served.send("GET", "ch/0"))[1] == b"late"


async def test_the_writer_ends_when_the_channel_is_closed_or_missing() -> None:
    """Closed while it writes and unknown from the start are two reasons, each in words."""
    async with _channel() as (served, channel, client):

        async def endless() -> AsyncIterator[AsyncIterator[bytes]]:
            while True:
                yield _bytes(b"x")
                await until(lambda: not served.server.exists("ch") or channel.next_number, "it has begun")
                served.server.close("ch")

        writer = ChannelWriter(client.open_request, f"{served.url}/ch")
        end = await writer.write(endless())
        assert (end.code, end.message) == ("closed", "the other side closed the channel")
        end = await ChannelWriter(client.open_request, f"{served.url}/none").write(_segments(b"x"))
        assert (end.code, end.message) == ("missing", "the orchestrator knows no such channel")


async def test_a_segment_that_the_server_ends_early_is_dropped_alone() -> None:
    """The rest of the segment is left out, and the next one is written."""
    async with _channel() as (served, channel, client):

        async def content() -> AsyncIterator[bytes]:
            yield b"begun"
            await until(lambda: channel.next_number == 1, "it has begun")
            await served.send("DELETE", "ch/0")
            for _ in range(100):
                yield b"."
                await asyncio.sleep(0.005)

        async def segments() -> AsyncIterator[AsyncIterator[bytes]]:
            yield content()
            yield _bytes(b"next")

        writer = ChannelWriter(client.open_request, f"{served.url}/ch", WriterOptions(closes=False))
        assert (await writer.write(segments())).code == "finished"
        assert (writer.segments, writer.dropped) == (1, [0])
        assert (await served.send("GET", "ch/1"))[1] == b"next"


@pytest.mark.parametrize(("start", "expected"), [(NEXT, {4: b"e"}), (CURRENT, {3: b"d", 4: b"e"}), (2, {2: b"c"})])
async def test_the_reader_starts_where_it_is_told(start: int, expected: dict[int, bytes]) -> None:
    """At the next segment, at the current one, or at a number."""
    async with _channel() as (served, channel, client):
        for content in (b"a", b"b", b"c", b"d"):
            channel.write(content)
        reader = ChannelReader(client.open_request, f"{served.url}/ch", start)
        reading = asyncio.create_task(_read(reader))
        await until(lambda: channel.segment(4), "the reader waits for segment 4")
        channel.write(b"e")
        await until(lambda: channel.segment(5), "the reader waits for segment 5")
        await served.send("DELETE", "ch")
        contents = await reading
        assert {number: contents[number] for number in expected} == expected
        assert max(contents) == 4
        assert reader.end is not None
        assert reader.end.code == "closed"


async def test_a_reader_that_is_too_late_jumps_to_the_newest_segment() -> None:
    """The segments between are recorded as a gap."""
    async with _channel() as (served, channel, client):
        for number in range(9):
            channel.write(b"%d" % number)
        reader = ChannelReader(client.open_request, f"{served.url}/ch", 1, ReaderLimits(max_segments=1))
        assert await _read(reader) == {8: b"8"}
        assert reader.gaps == [Gap(1, 7)]
        assert reader.end is not None
        assert (reader.end.code, reader.end.message) == ("limit", "the reader stopped after 1 segments")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ReaderLimits(max_s=0.2), "the reader stopped after 0.2 s"),
        (ReaderLimits(max_bytes=10), "the reader stopped after 10 bytes"),
    ],
)
async def test_reading_is_bounded(limits: ReaderLimits, message: str) -> None:
    """A channel in which nothing happens ends by time, one without end by size."""
    async with _channel() as (served, channel, client):
        if limits.max_s > 1:
            channel.append(channel.open_for_writing(0), b"x" * 100)
        reader = ChannelReader(client.open_request, f"{served.url}/ch", 0, limits)
        assert await asyncio.wait_for(_read(reader), 5) == {}
        assert reader.end is not None
        assert (reader.end.code, reader.end.message) == ("limit", message)


async def test_empty_segments_are_counted_and_passed() -> None:
    """A segment that is closed without a byte is no end of the channel."""
    async with _channel() as (served, channel, client):
        reader = ChannelReader(client.open_request, f"{served.url}/ch", 0, ReaderLimits(max_segments=3))
        reading = asyncio.create_task(_read(reader))
        await until(lambda: channel.segment(0), "the reader waits")
        await served.send("DELETE", "ch/0")
        channel.write(b"b", 1)
        channel.write(b"c", 2)
        assert await reading == {1: b"b", 2: b"c"}
        assert (reader.segments, reader.empty) == (3, 1)


async def test_bytes_carry_their_time_of_arrival() -> None:
    """The time is that of the loop's clock, before the segment has ended."""
    async with _channel() as (served, channel, client):
        segment = channel.open_for_writing(0)
        channel.append(segment, b"one")
        loop = asyncio.get_running_loop()
        async with ChannelReader(client.open_request, f"{served.url}/ch", 0) as reader:
            before = loop.time()
            piece = await anext(reader)
            assert before <= piece.arrived <= loop.time()
            assert not segment.is_over


async def _answer(status: int, headers: dict[str, str], body: bytes = b"") -> web.StreamResponse:
    return web.Response(status=status, headers=headers, body=body)


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (470, {}, "invalid"),
        (470, {"Lp-Trickle-Latest": "-5"}, "invalid"),
        (200, {"Lp-Trickle-Seq": "0"}, "invalid"),
        (307, {"Location": "http://127.0.0.1:1/"}, "refused"),
        (500, {}, "refused"),
        (404, {}, "missing"),
    ],
)
async def test_servers_that_contradict_themselves_end_the_reader(
    status: int, headers: dict[str, str], code: str
) -> None:
    """No answer leads to an endless loop or to another host."""
    async with _client() as client, _serve(lambda _: _answer(status, headers, b"\x1b[31mtext")) as url:
        reader = ChannelReader(client.open_request, url, 3)
        assert await asyncio.wait_for(_read(reader), 20) == {}
        assert reader.end is not None
        assert reader.end.code == code
        assert "\x1b" not in reader.end.message


async def test_a_segment_that_never_comes_ends_the_reader() -> None:
    """A server that answers 470 for ever is asked some times, ever more slowly."""
    requests = 0

    async def handle(_: web.Request) -> web.StreamResponse:
        nonlocal requests
        requests += 1
        return web.Response(status=470, headers={"Lp-Trickle-Latest": "2"})

    async with _client() as client, _serve(handle) as url:
        reader = ChannelReader(client.open_request, url, 3, ReaderLimits(max_s=30))
        await _read(reader)
        assert reader.end is not None
        assert reader.end.code == "stalled"
        assert requests == 20


async def test_a_writer_whose_bytes_are_not_taken_ends() -> None:
    """A server that accepts a request and reads nothing is noticed after the time that was set."""

    async def handle(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65_536)

    async def segments() -> AsyncIterator[AsyncIterator[bytes]]:
        yield endless()

    async with _client() as client, _serve(handle) as url:
        writer = ChannelWriter(client.open_request, url, WriterOptions(stall_s=0.3, closes=False))
        end = await asyncio.wait_for(writer.write(segments()), 10)
        assert (end.code, end.message) == ("stalled", "the orchestrator took no bytes of segment 0 for 0.3 s")


async def test_writing_is_bounded_in_time() -> None:
    """Segments that never come do not hold the writer."""
    async with _channel() as (served, _, client):

        async def segments() -> AsyncIterator[AsyncIterator[bytes]]:
            await asyncio.Event().wait()
            yield _bytes()

        writer = ChannelWriter(client.open_request, f"{served.url}/ch", WriterOptions(max_s=0.2))
        assert (await writer.write(segments())).code == "limit"
        assert not served.server.exists("ch")


async def test_channels_at_addresses_of_the_tester_are_refused() -> None:
    """The address guard holds for channels as for every other URL that an orchestrator names."""
    async with _client("192.0.2.0/24") as client:
        reader = ChannelReader(client.open_request, "https://127.0.0.1:9/ai/trickle/ch")
        await _read(reader)
        writer = ChannelWriter(client.open_request, "https://127.0.0.1:9/ai/trickle/ch")
        for end in (reader.end, await writer.write(_segments(b"x"))):
            assert end is not None
            assert end.code == "broken"
            assert "address of the tester itself" in end.message


async def test_a_broken_connection_is_a_reason() -> None:
    """Nothing listens there: reader and writer say so."""
    async with _client() as client, _serve(lambda _: _answer(200, {})) as url:
        pass
    async with _client() as client:
        reader = ChannelReader(client.open_request, url)
        await _read(reader)
        for end in (reader.end, await ChannelWriter(client.open_request, url).write(_segments(b"x"))):
            assert end is not None
            assert end.code == "broken"


async def test_every_frame_of_a_video_comes_back_through_a_channel() -> None:
    """Written in real time and read at once, no frame is lost and none is late by more than a moment."""
    form = VideoFormat(256, 256, 24)
    options = DecoderOptions(form, container="mpegts", limits=DecoderLimits.for_video(form, 10))
    async with _channel() as (served, _, client), VideoDecoder(options) as decoder:
        reader = ChannelReader(client.open_request, f"{served.url}/ch", 0)

        async def read() -> None:
            async with reader:
                async for piece in reader:
                    await decoder.feed(piece.data, piece.arrived)

        reading = asyncio.create_task(read())
        async with VideoInput.as_segments(form, InputOptions(max_s=3)) as video:
            writer = ChannelWriter(client.open_request, f"{served.url}/ch")
            end = await writer.write(segment.content async for segment in video.output)
            sent = video.sent
        await reading
        decoded = await decoder.finish()
    assert (end.code, reader.gaps, writer.dropped) == ("finished", [], [])
    assert [frame.mark for frame in decoded.frames] == sorted(sent.times)
    delays = sorted(frame.arrived - sent.times[frame.mark] for frame in decoded.frames if frame.mark is not None)
    assert delays[len(delays) // 2] < 0.1
