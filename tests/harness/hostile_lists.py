"""Orchestrators that answer /discovery with anything but a list, in a process of their own.

In the tester's process their work would be taken for the tester's: a test measures how long its event loop is held up.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from jobtester.domain.orchestrators import Orchestrator

SOUND = "sound"
KINDS = (
    SOUND, "huge", "endless", "slow", "html", "wrong_types", "no_list", "many", "own_port", "own_host", "other_host",
    "redirect", "huge_price", "deep", "compressed", "deep_metadata",
)  # fmt: skip
_BLANKS = b" " * 65_536
_HUGE_BYTES = 100 * 2**20
_MANY = 10_000


@asynccontextmanager
async def hostile_lists(trap_port: int) -> AsyncIterator[dict[str, Orchestrator]]:
    """Run one orchestrator of each kind, and yield them by kind; `trap_port` is where some of them lead to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(trap_port), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        uris = json.loads(await process.stdout.readline())
        yield {kind: Orchestrator(f"0x{number:040x}", uri) for number, (kind, uri) in enumerate(uris.items(), start=1)}
    finally:
        process.kill()
        await process.wait()


def _runner(base: str, **changes: Any) -> dict[str, Any]:
    return {"url": f"{base}/apps/a/app", "app": "someone/hello-world", "mode": "single-shot", "capacity": 1} | changes


def _body(kind: str, base: str, trap_port: int) -> bytes:
    """Return the body of a kind whose answer has one."""
    nested = "[" * 1_000 + "]" * 1_000
    runners: Any = [_runner(base)]
    match kind:
        case "html":
            return b"<!doctype html><html><body>Welcome!</body></html>"
        case "deep":
            return b"[" * 500_000 + b"]" * 500_000
        case "compressed":
            return b"\x1f\x8b\x08\x00" + bytes(1_000)
        case "wrong_types":
            return json.dumps([{"address": 7, "runners": [{"url": 7, "app": ["x"]}]}, 5, None]).encode()
        case "no_list":
            runners = "runners"
        case "many":
            runners = [{**_runner(f"{base}/{n}"), "app": f"a/{n}"} for n in range(_MANY)]
        case "own_port":
            runners = [_runner(f"http://127.0.0.1:{trap_port}")]
        case "own_host":
            runners = [_runner(f"http://localhost:{base.rpartition(':')[2]}")]
        case "other_host":
            runners = [_runner("https://other.example:8935")]
        case "huge_price":
            runners = [_runner(base, price_info={"price": 2**70, "currency": "wei", "unit": "fixed"})]
        case "deep_metadata":
            runners = [_runner(base, metadata=f'{{"model":{nested}}}', price_info={"price": 1, "unit": "fixed"})]
    return json.dumps([{"address": base, "runners": runners}], separators=(",", ":")).encode()


async def _answer(kind: str, trap_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    head, more = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n", 0
    base = "http://127.0.0.1:{}".format(writer.get_extra_info("sockname")[1])
    if not request.startswith(b"GET /discovery "):
        body = b"hello"
    elif kind == "redirect":
        head, body = f"HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:{trap_port}/\r\n\r\n".encode(), b""
    elif kind in ("huge", "endless", "slow"):
        body, more = b'[{"address":"', _HUGE_BYTES if kind == "huge" else sys.maxsize
    else:
        body = _body(kind, base, trap_port)
    try:
        writer.write(head + body)
        while more > 0:
            await writer.drain()
            chunk = _BLANKS
            if kind == "slow":
                await asyncio.sleep(0.02)
                chunk = b" "
            writer.write(chunk)
            more -= len(chunk)
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _serve(trap_port: int) -> None:
    uris = {}
    for kind in KINDS:
        server = await asyncio.start_server(partial(_answer, kind, trap_port), "127.0.0.1", 0)
        uris[kind] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sys.stdout.write(json.dumps(uris) + "\n")
    sys.stdout.flush()
    # The test kills the process; if the test itself is killed, its end of the pipe closes.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
