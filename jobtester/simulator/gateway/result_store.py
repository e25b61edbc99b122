"""The gateway's object store: result files in memory, served under /stream/."""

from __future__ import annotations

import secrets
from collections import OrderedDict

from aiohttp import web

from jobtester.simulator.runner.ai_runner import ResultFile

_MAX_FILES = 512
_CONTENT_TYPES = {"png": "image/png"}


class ResultStore:
    """The newest result files."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, bytes] = OrderedDict()

    def save(self, files: tuple[ResultFile, ...]) -> list[str]:
        """Store a job's files and return their URLs, relative to the gateway."""
        folder = secrets.token_hex(4)
        urls = []
        for file in files:
            path = f"/stream/{folder}/{secrets.token_hex(4)}.{file.suffix}"
            if not file.is_unreachable:
                self._files[path] = file.content
            urls.append(path)
        while len(self._files) > _MAX_FILES:
            self._files.popitem(last=False)
        return urls

    async def handle(self, request: web.Request) -> web.Response:
        """Respond to a GET for a file."""
        content = self._files.get(request.path)
        if content is None:
            return web.Response(status=404, text="ErrNotFound\n")
        headers = {"Cache-Control": "max-age=5"}
        return web.Response(
            body=content, headers=headers, content_type=_CONTENT_TYPES.get(request.path.rsplit(".")[-1])
        )
