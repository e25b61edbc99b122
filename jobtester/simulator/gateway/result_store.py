"""The gateway's result store: files under /stream/, kept in memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict

from aiohttp import web

from jobtester.simulator.runner import ai_runner

_KEPT = 512
_TYPES = {"png": "image/png"}


class Store:
    """Keep the newest artefacts and hand them out."""

    def __init__(self) -> None:
        """Begin empty."""
        self._files: OrderedDict[str, bytes] = OrderedDict()

    def save(self, files: tuple[ai_runner.Artefact, ...]) -> list[str]:
        """Keep a job's files; return their URLs relative to the gateway."""
        folder = secrets.token_hex(4)
        urls = []
        for file in files:
            path = f"/stream/{folder}/{secrets.token_hex(4)}.{file.suffix}"
            if not file.unreachable:
                self._files[path] = file.content
            urls.append(path)
        while len(self._files) > _KEPT:
            self._files.popitem(last=False)
        return urls

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a GET for a file."""
        content = self._files.get(request.path)
        if content is None:
            return web.Response(status=404, text="ErrNotFound\n")
        headers = {"Cache-Control": "max-age=5"}
        return web.Response(body=content, headers=headers, content_type=_TYPES.get(request.path.rsplit(".")[-1]))
