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
        """Return True if the media server says that the source exists; False if it cannot be asked."""
        url = self._url("get")
        try:
            async with session.get(url, headers=self._headers, timeout=_TIMEOUT, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def kick_source(self, session: aiohttp.ClientSession) -> bool:
        """Ask the media server to disconnect the source; return whether it said that it did."""
        url = self._url("kick")
        try:
            async with session.post(url, headers=self._headers, timeout=_TIMEOUT, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    @property
    def _headers(self) -> dict[str, str]:
        credentials = base64.b64encode(f"{_USER}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {credentials}"}

    def _url(self, action: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v3/{KINDS[self.source_type]}/{action}/{quote(self.source_id, safe='')}"
