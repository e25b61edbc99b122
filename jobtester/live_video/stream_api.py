"""Call a gateway's routes for live video: start a stream, change its parameters, read its status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from jobtester.domain.stream_status import StreamStatus
from jobtester.errors import GatewayError
from jobtester.gateway.client import GatewayClient

_PREFIX = "/live/video-to-video"
_FORM = "application/x-www-form-urlencoded"
_MAX_BYTES = 256 * 1024
_SHORT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class StreamStart:
    """What a stream is started with; all URLs are the tester's own, as the gateway reaches them.

    `stream_id` is the key of the status. It has to be new for every start: the status of an earlier stream lives on for
    a minute and names the earlier orchestrator.
    """

    stream_id: str
    model: str
    service_uri: str
    parameters: Mapping[str, Any]
    input_url: str
    output_url: str

    def encode_form(self) -> bytes:
        """Return the form of the start call; the keys of its query are encoded a second time."""
        query = {
            "pipeline": self.model,
            "streamId": self.stream_id,
            "params": orjson.dumps(dict(self.parameters)).decode(),
            # The gateway looks for a part of the orchestrator's URL, so the whole URL has to be given.
            "orchestrator": self.service_uri,
            "rtmpOutput": self.output_url,
        }
        form = {
            "source_id": self.stream_id,
            "source_type": "rtmpconn",
            "query": urlencode(query),
            "rtmp_url": self.input_url,
        }
        return urlencode(form).encode()


@dataclass(frozen=True, slots=True)
class StreamApi:
    """The live video routes of one gateway. Every call raises GatewayError where the gateway does not answer."""

    client: GatewayClient

    async def start(self, start: StreamStart, *, timeout_s: float) -> tuple[int, str]:
        """Start a stream; return status and text. 200 only says that the gateway has tried to find an orchestrator."""
        status, body = await self.client.call(
            "POST",
            f"{_PREFIX}/{start.stream_id}/start",
            body=start.encode_form(),
            content_type=_FORM,
            timeout_s=timeout_s,
            max_bytes=_MAX_BYTES,
        )
        return status, body[:300].decode("utf-8", "replace").strip()

    async def update(self, stream_id: str, parameters: Mapping[str, Any]) -> int:
        """Change the parameters of a running stream; return the status."""
        status, _ = await self.client.call(
            "POST",
            f"{_PREFIX}/{stream_id}/update",
            body=orjson.dumps(dict(parameters)),
            content_type="application/json",
            timeout_s=_SHORT_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
        )
        return status

    async def read_status(self, stream_id: str) -> StreamStatus | None:
        """Return the stream's status, None where the gateway knows no such stream. Raises also UnusableStatusError."""
        status, body = await self.client.call(
            "GET", f"{_PREFIX}/{stream_id}/status", timeout_s=_SHORT_TIMEOUT_S, max_bytes=_MAX_BYTES
        )
        if status == 404:
            return None
        if status != 200:
            raise GatewayError(f"{self.client.url}: the status of a stream was answered with {status}")
        return StreamStatus.from_json(body)
