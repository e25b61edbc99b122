"""A daemon that starts on a full disk waits for room, says so, and goes on by itself."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import tomli_w

from tests.harness.disk import fill_disk
from tests.harness.ports import free_ports
from tests.harness.process import DaemonProcess
from tests.harness.waiting import until


async def wait_for_status(url: str, status: int) -> dict[str, Any]:
    """Wait until a page is answered with this status; return what it says."""
    async with aiohttp.ClientSession() as session:

        async def document() -> dict[str, Any] | None:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with session.get(url) as response:
                    if response.status == status:
                        return dict(json.loads(await response.read()))
            return None

        answer: dict[str, Any] = await until(document, f"{url} is answered with {status}")
        return answer


@pytest.mark.parametrize("earlier", [False, True])
async def test_serve_starts_on_a_full_disk_and_recovers(small_disk: Path, tmp_path: Path, earlier: bool) -> None:
    """Alive and not ready, with the reason, whether there is a store already or not; SIGTERM ends it in order."""
    base, port = free_ports()
    config = {
        "region": "FRA",
        "schedule": {"interval": "1h"},
        "server": {"host": "127.0.0.1", "port": port},
        "gateways": [{"name": "g", "url": f"http://127.0.0.1:{base}", "targeting": "query"}],
        "leaderboard": {"post": False},
        "store": {"path": str(small_disk / "jobtester.db")},
        "logs": {"format": "json"},
    }
    (tmp_path / "config.toml").write_text(tomli_w.dumps(config))
    url = f"http://127.0.0.1:{port}"
    if earlier:
        daemon = await DaemonProcess.start(tmp_path)
        await daemon.next_event("serving")
        await daemon.kill()
    filler = fill_disk(small_disk)
    daemon = await DaemonProcess.start(tmp_path)
    try:
        await daemon.next_event("store_full")
        ready = await wait_for_status(f"{url}/readyz", 503)
        assert ready["checks"]["store"]["ok"] is False
        assert "make room" in ready["checks"]["store"]["problem"]
        assert (await wait_for_status(f"{url}/healthz", 200))["ok"] is True
        assert "make room" in (await wait_for_status(f"{url}/api/ticks", 503))["error"]
        filler.unlink()
        await daemon.next_event("serving")
        assert (await wait_for_status(f"{url}/healthz", 200))["ok"] is True
        await daemon.stop()
        assert sum(line["event"] == "store_full" for line in daemon.lines) == 1, "said once"
        (small_disk / "jobtester.db").unlink()
        filler = fill_disk(small_disk)
        daemon = await DaemonProcess.start(tmp_path)
        await daemon.next_event("store_full")
        await wait_for_status(f"{url}/readyz", 503)
        await daemon.stop()
    finally:
        if daemon.process.returncode is None:
            await daemon.kill()
