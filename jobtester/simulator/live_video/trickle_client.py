"""How gateway and container read and write the channels of an orchestrator, as the clients of go-livepeer do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from jobtester.simulator.live_video.byte_pipes import Chunk, ChunkQueue

_RENEW_S = 20.0
_CONNECT_S = 5.0
_GONE = 470
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_RENEW_S)
_SHORT_TIMEOUT = aiohttp.ClientTimeout(total=_CONNECT_S)


class ChannelBrokenError(Exception):
    """The orchestrator cannot be reached, or the channel never was there; the text is what go-livepeer reports."""


@dataclass(frozen=True, slots=True)
class Received:
    """Some bytes of a segment; `content` is empty at the segment's end."""

    sequence: int
    content: bytes


async def read_channel(session: aiohttp.ClientSession, url: str, first: int = -1) -> AsyncIterator[Received]:
    """Yield what is written to a channel until it is closed. Raises ChannelBrokenError if the connection breaks."""
    sequence = first
    while True:
        number: int | None = None
        try:
            async with session.get(f"{url}/{sequence}", ssl=False, timeout=_TIMEOUT) as response:
                if "Lp-Trickle-Closed" in response.headers or response.status == 404:
                    return
                if response.status == _GONE:
                    sequence = int(response.headers["Lp-Trickle-Latest"])
                    continue
                if response.status != 200:
                    raise ChannelBrokenError(f"trickle subscribe error reading: status {response.status}")
                number = int(response.headers.get("Lp-Trickle-Seq", sequence))
                async for content in response.content.iter_any():
                    yield Received(number, content)
                yield Received(number, b"")
                sequence = number + 1
        except TimeoutError:  # nothing was written for a while: the request is renewed, or a stalled segment left
            sequence = sequence if number is None else number + 1
        except (aiohttp.ClientError, KeyError, ValueError) as error:
            raise ChannelBrokenError(f"trickle subscribe error reading: {error}") from error


async def write_channel(session: aiohttp.ClientSession, url: str, queue: ChunkQueue) -> None:
    """Send the segments of a queue from its next whole one on, until it ends or the channel is closed.

    Raises ChannelBrokenError if the orchestrator cannot be reached.
    """
    number = 0
    while (first := await queue.next_segment()) is not None:
        if not await write_segment(session, url, number, _contents(queue, first)):
            return
        number += 1


async def _contents(queue: ChunkQueue, first: Chunk) -> AsyncIterator[bytes]:
    async for chunk in queue.read_segment(first):
        if chunk.content:
            yield chunk.content


async def write_segment(
    session: aiohttp.ClientSession, url: str, number: int, content: AsyncIterator[bytes] | bytes
) -> bool:
    """Write one segment; return False if the channel is closed. Raises ChannelBrokenError."""
    try:
        async with session.post(f"{url}/{number}", data=content, ssl=False, timeout=_TIMEOUT) as response:
            return response.status == 200 and "Lp-Trickle-Closed" not in response.headers
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ChannelBrokenError(f"trickle publish error: {error}") from error


async def delete_channel(session: aiohttp.ClientSession, url: str) -> None:
    """Close a channel; one that is closed already or cannot be reached stays as it is."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with session.delete(url, ssl=False, timeout=_SHORT_TIMEOUT):
            pass
