"""A gateway that asks whom to use, in a process of its own, so that nothing but the tester can make it wait."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

_PAUSE_S = 0.01


@asynccontextmanager
async def gateway(url: str) -> AsyncIterator[list[float]]:
    """Ask a hundred times a second for the length of a block; at its end the list holds what each answer took."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.asking", url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    waits_s: list[float] = []
    try:
        yield waits_s
    finally:
        out, _ = await process.communicate(b"")
        waits_s += json.loads(out)


def _ask(url: str) -> list[float]:
    parts, over = urlsplit(url), threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    link = http.client.HTTPConnection(parts.netloc, timeout=10)
    waits_s = []
    while not over.wait(_PAUSE_S):
        began = time.monotonic()
        link.request("GET", parts.path)
        answer = link.getresponse()
        answer.read()
        waits_s.append(time.monotonic() - began)
        assert answer.status == 200, answer.status
    return waits_s


if __name__ == "__main__":
    print(json.dumps(_ask(sys.argv[1])))
