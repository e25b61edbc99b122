"""A relay in front of a server that records each request's bytes, as they were on the wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request: its line without the version, its headers in lower case, and its body."""

    line: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class RecordingRelay:
    """Passes connections on to `target`; of each one, all bytes are recorded as one request when it ends."""

    target: str
    url: str = ""
    requests: list[RecordedRequest] = field(default_factory=list)

    def find(self, job_id: str) -> RecordedRequest | None:
        """Return the last request with this X-Request-ID, None if there was none yet."""
        matching = (request for request in reversed(self.requests) if request.headers.get("x-request-id") == job_id)
        return next(matching, None)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = urlsplit(self.target)
        sent = bytearray()
        with contextlib.suppress(ConnectionError):
            upstream, out = await asyncio.open_connection(place.hostname, place.port)

            async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter, copy: bytearray | None) -> None:
                with contextlib.suppress(ConnectionError):
                    while chunk := await source.read(65_536):
                        if copy is not None:
                            copy += chunk
                        to.write(chunk)
                        await to.drain()
                to.close()

            # The connection of a job is for that job alone, so all its bytes are one request.
            asking = asyncio.ensure_future(pass_on(reader, out, sent))
            await pass_on(upstream, writer, None)
            asking.cancel()
            await asyncio.wait({asking})
            for stream in (writer, out):
                stream.close()
                with contextlib.suppress(ConnectionError):
                    await stream.wait_closed()
        if sent:
            head, _, body = bytes(sent).partition(b"\r\n\r\n")
            line, *fields = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in fields)}
            self.requests.append(RecordedRequest(line.rpartition(" ")[0], headers, body))


@asynccontextmanager
async def recording_relay(target: str) -> AsyncIterator[RecordingRelay]:
    """Run a relay in front of a server of plain HTTP."""
    relay = RecordingRelay(target)
    server = await asyncio.start_server(relay._relay, "127.0.0.1", 0)
    relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
