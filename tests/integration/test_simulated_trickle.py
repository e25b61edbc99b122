"""The simulated trickle server over real sockets: what the contract says of channels, row by row."""

from __future__ import annotations

import asyncio

import pytest

from jobtester.simulator.trickle.channel import Piece
from jobtester.simulator.trickle.server import TrickleTimes
from tests.harness.trickle import ServedChannels, open_post, serve_channels
from tests.harness.waiting import until


async def _is_open(served: ServedChannels, number: int) -> None:
    def find() -> bool:
        channel = served.server.find("ch")
        return channel is None or channel.segment(number) is not None

    await until(find, f"segment {number} is open")


async def test_a_written_segment_can_be_read() -> None:
    """POST answers 200, empty, with its number; GET has the bytes, the channel's type and the number."""
    async with serve_channels() as served:
        served.create()
        status, body, headers = await served.send("POST", "ch/0", data=b"first")
        assert (status, body, headers["Lp-Trickle-Seq"]) == (200, b"", "0")
        status, body, headers = await served.send("GET", "ch/0")
        assert (status, body, headers["Lp-Trickle-Seq"]) == (200, b"first", "0")
        assert headers["Content-Type"] == "video/MP2T"
        assert headers["Transfer-Encoding"] == "chunked"
        assert "Lp-Trickle-Latest" not in headers
        await served.send("POST", "ch/-1", data=b"second")
        _, body, headers = await served.send("GET", "ch/0")
        assert (body, headers["Lp-Trickle-Latest"]) == (b"first", "1")
        _, body, headers = await served.send("GET", "ch/next")
        assert (body, headers["Lp-Trickle-Latest"]) == (b"2", "1")


@pytest.mark.parametrize("asked", ["-1", "0"])
async def test_a_get_of_the_next_segment_waits_and_reads_while_it_is_written(asked: str) -> None:
    """Headers come with the first byte, and each byte before the segment has ended."""
    async with serve_channels() as served:
        served.create()
        async with open_post(served, "ch/0") as post:
            await _is_open(served, 0)
            request = asyncio.create_task(served.session.get(f"{served.url}/ch/{asked}", ssl=False).__aenter__())
            assert not (await asyncio.wait([request], timeout=0.1))[0]
            await post.write(b"one")
            response = await request
            assert await response.content.readany() == b"one"
            await post.write(b"two")
            assert await response.content.readany() == b"two"
            await post.write(b"")
            assert await response.content.readany() == b""
            assert (await post.read_head())[0] == "HTTP/1.1 200 OK"


async def test_the_current_segment_is_read_from_its_first_byte() -> None:
    """-2 is the segment that is being written, with what is there already; -1 is the one after it."""
    async with serve_channels() as served:
        channel = served.create()
        channel.append(channel.open_for_writing(7), b"begun")
        async with served.session.get(f"{served.url}/ch/-2", ssl=False) as response:
            assert response.headers["Lp-Trickle-Seq"] == "7"
            assert await response.content.readany() == b"begun"
        request = asyncio.create_task(served.send("GET", "ch/-1"))
        await _is_open(served, 8)
        channel.write(b"next")
        assert (await request)[1] == b"next"


async def test_five_segments_are_kept() -> None:
    """A number that is gone or further ahead than next: 470, with what was asked and the newest."""
    async with serve_channels() as served:
        channel = served.create()
        for number in range(7):
            channel.write(b"%d" % number)
        for gone in (0, 1, 8, 99):
            status, body, headers = await served.send("GET", f"ch/{gone}")
            assert (status, body) == (470, b"Entry not found")
            assert (headers["Lp-Trickle-Seq"], headers["Lp-Trickle-Latest"]) == (str(gone), "6")
        for kept in range(2, 7):
            assert (await served.send("GET", f"ch/{kept}"))[1] == b"%d" % kept


async def test_numbers_may_have_gaps() -> None:
    """After POST 20 the next is 21, which a GET waits for."""
    async with serve_channels() as served:
        channel = served.create()
        await served.send("POST", "ch/0", data=b"a")
        await served.send("POST", "ch/20", data=b"b")
        assert (await served.send("GET", "ch/next"))[1] == b"21"
        request = asyncio.create_task(served.send("GET", "ch/21"))
        await _is_open(served, 21)
        channel.write(b"c")
        assert (await request)[1] == b"c"


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "none/0", 404, "Stream not found\n"),
        ("GET", "none/next", 404, "Stream not found\n"),
        ("POST", "none/0", 404, "Stream not found\n"),
        ("POST", "none", 404, "Stream not found\n"),
        ("DELETE", "none", 400, "Invalid stream\n"),
        ("DELETE", "none/0", 400, "Invalid stream\n"),
        ("GET", "ch/x", 400, "Invalid idx\n"),
        ("POST", "ch/1_0", 400, "Invalid idx\n"),
        ("DELETE", "ch/x", 400, "Invalid idx\n"),
        ("DELETE", "ch/3", 400, "Nonexistent segment\n"),
    ],
)
async def test_errors_have_the_contracts_status_and_text(method: str, path: str, status: int, text: str) -> None:
    """Unknown channels, words for numbers and segments that are not there; clients create no channel."""
    async with serve_channels() as served:
        served.create()
        got, body, headers = await served.send(method, path, headers={"Expect-Content": "video/MP2T"})
        assert (got, body.decode()) == (status, text)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert (headers.get("Connection") == "close") == ((method, path) == ("POST", "none/0"))


async def test_a_second_post_to_a_finished_number_is_dropped() -> None:
    """It answers 200 and closes the connection; the segment stays as it was."""
    async with serve_channels() as served:
        served.create()
        await served.send("POST", "ch/0", data=b"first")
        status, _, headers = await served.send("POST", "ch/0", data=b"second")
        assert (status, headers["Connection"]) == (200, "close")
        assert (await served.send("GET", "ch/0"))[1] == b"first"


async def test_reset_closes_older_open_segments() -> None:
    """Readers of a segment whose writer is gone are freed; a segment without a byte ends without the closing header."""
    async with serve_channels() as served:
        channel = served.create()
        channel.append(channel.open_for_writing(0), b"begun")
        channel.open_for_writing(1)
        reads = [asyncio.create_task(served.send("GET", f"ch/{number}")) for number in (0, 1)]
        assert not (await asyncio.wait(reads, timeout=0.1))[0]
        await served.send("POST", "ch/2", data=b"late", headers={"Lp-Trickle-Reset": "1"})
        (_, begun, _), (status, empty, headers) = await asyncio.gather(*reads)
        assert (begun, status, empty) == (b"begun", 200, b"")
        assert "Lp-Trickle-Closed" not in headers


async def test_closing_a_channel_ends_everything_that_waits() -> None:
    """Waiting GETs and open POSTs get 200, empty, with the closing header; later calls 404."""
    async with serve_channels() as served:
        served.create()
        async with open_post(served, "ch/0") as begun, open_post(served, "ch/1") as opened:
            await _is_open(served, 1)
            await begun.write(b"x")
            waiting = asyncio.create_task(served.send("GET", "ch/1"))
            assert (await served.send("GET", "ch/next"))[0] == 200
            assert not (await asyncio.wait([waiting], timeout=0.1))[0]
            assert (await served.send("DELETE", "ch"))[0] == 200
            for post in (begun, opened):
                head = await post.read_head()
                assert head[0] == "HTTP/1.1 200 OK"
                assert "Lp-Trickle-Closed: terminated" in head
            status, body, headers = await waiting
            assert (status, body, headers["Lp-Trickle-Closed"]) == (200, b"", "terminated")
        assert (await served.send("GET", "ch/0"))[0] == 404
        assert (await served.send("POST", "ch/2", data=b"x"))[0] == 404


async def test_closing_a_segment_ends_what_waits_for_it_only() -> None:
    """The waiting GET gets 200, empty, without the closing header; the open POST 200 and the connection's end."""
    async with serve_channels() as served:
        channel = served.create()
        async with open_post(served, "ch/0") as post:
            await _is_open(served, 0)
            waiting = asyncio.create_task(served.send("GET", "ch/0"))
            assert not (await asyncio.wait([waiting], timeout=0.1))[0]
            assert (await served.send("DELETE", "ch/0"))[0] == 200
            head = await post.read_head()
            assert head[0] == "HTTP/1.1 200 OK"
            assert "Connection: close" in head
            status, body, headers = await waiting
            assert (status, body, headers.get("Lp-Trickle-Closed")) == (200, b"", None)
        assert not channel.is_closed


async def test_an_idle_post_is_told_to_go_on() -> None:
    """100 Continue comes again and again while no byte does, and the segment is written as ever afterwards."""
    async with serve_channels(TrickleTimes(continue_s=0.05)) as served:
        served.create()
        async with open_post(served, "ch/0") as post:
            for _ in range(3):
                assert await post.read_head() == ["HTTP/1.1 100 Continue"]
            await post.write(b"late")
            await post.write(b"")
            while (head := await post.read_head()) == ["HTTP/1.1 100 Continue"]:
                pass
            assert head[0] == "HTTP/1.1 200 OK"
        assert (await served.send("GET", "ch/0"))[1] == b"late"


async def test_a_channel_without_a_new_segment_is_closed() -> None:
    """Only the beginning of a segment keeps a channel open; one that is open without a byte does not."""
    async with serve_channels(TrickleTimes(idle_s=0.3)) as served:
        channel = served.create()
        channel.write(b"x")
        async with open_post(served, "ch/1") as post:
            assert "Lp-Trickle-Closed: terminated" in await post.read_head()
        assert not served.server.exists("ch")


async def test_a_writer_that_hangs_up_leaves_its_segment_open() -> None:
    """Readers of the segment wait until another one ends it."""
    async with serve_channels() as served:
        channel = served.create()
        async with open_post(served, "ch/0") as post:
            await post.write(b"half")
            await until(lambda: channel.latest == 0, "the segment has begun")
        waiting = asyncio.create_task(served.send("GET", "ch/0"))
        assert not (await asyncio.wait([waiting], timeout=0.2))[0]
        await served.send("POST", "ch/1", data=b"x", headers={"Lp-Trickle-Reset": "1"})
        assert (await waiting)[1] == b"half"


async def test_apps_read_and_write_channels_in_the_process() -> None:
    """The simulator's own apps see the same segments as clients do, up to the channel's end."""
    async with serve_channels() as served:
        channel = served.create()
        pieces: list[Piece] = []

        async def read() -> None:
            async for piece in channel.read():
                pieces.append(piece)  # noqa: PERF401 - as they come

        reading = asyncio.create_task(read())
        for number, content in enumerate((b"one", b"two")):
            await _is_open(served, number)
            await served.send("POST", f"ch/{number}", data=content)
        await until(lambda: len(pieces) == 4, "all pieces have come")
        await served.send("DELETE", "ch")
        await asyncio.wait_for(reading, 5)
        assert pieces[:4] == [Piece(0, b"one"), Piece(0, b""), Piece(1, b"two"), Piece(1, b"")]
