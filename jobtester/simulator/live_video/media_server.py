"""The gateway's questions to the media server beside the client that started a stream, in MediaMTX's API."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_USER = "admin"
KINDS = {"rtmpconn": "rtmpconns", "webrtcsession": "webrtcsessions"}


@dataclass(frozen=True, slots=True)
class MediaServer:
    """The media server at the address from which a stream was started, and the source of that stream there."""

    host: str
    port: int
    password: str
    source_type: str
    source_id: str

    async def has_source(self, session: aiohttp.ClientSession) -> bool:
        """Return True if the media server answers that the source exists; False if it cannot be reached."""
        return await self._request(session, "GET", "get")

    async def kick_source(self, session: aiohttp.ClientSession) -> bool:
        """Ask the media server to disconnect the source; return True if it answers that it did."""
        return await self._request(session, "POST", "kick")

    async def _request(self, session: aiohttp.ClientSession, method: str, action: str) -> bool:
        host = f"[{self.host}]" if ":" in self.host else self.host
        url = f"http://{host}:{self.port}/v3/{KINDS[self.source_type]}/{action}/{quote(self.source_id, safe='')}"
        credentials = base64.b64encode(f"{_USER}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        try:
            async with session.request(
                method, url, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
