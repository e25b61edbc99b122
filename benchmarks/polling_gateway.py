"""Poll /orchestrators as a gateway does, in a process of its own, so that only the tester can make it wait."""

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
async def poll_orchestrators(url: str) -> AsyncIterator[list[float]]:
    """Poll a hundred times a second during the block; at its end the list holds how long each response took."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.polling_gateway",
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    waits_s: list[float] = []
    try:
        yield waits_s
    finally:
        out, _ = await process.communicate(b"")
        waits_s += json.loads(out)


def _poll(url: str) -> list[float]:
    address, finished = urlsplit(url), threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        finished.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    connection = http.client.HTTPConnection(address.netloc, timeout=10)
    waits_s = []
    while not finished.wait(_PAUSE_S):
        began = time.monotonic()
        connection.request("GET", address.path)
        response = connection.getresponse()
        response.read()
        waits_s.append(time.monotonic() - began)
        assert response.status == 200, response.status
    return waits_s


if __name__ == "__main__":
    print(json.dumps(_poll(sys.argv[1])))
