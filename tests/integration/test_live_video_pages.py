"""What people see of a live video job: its frames, its delay over time, and what its runner reported."""

from __future__ import annotations

import io
from pathlib import Path

import aiohttp
from PIL import Image

from jobtester.domain.stream_status import STATE_WORDS
from jobtester.store.full_results import FullResults
from tests.harness.live_tester import live_tester
from tests.integration.test_live_video import network, node


async def test_the_page_of_a_stream_shows_its_frames_and_its_delay(tmp_path: Path) -> None:
    """A strip of frames is kept and served, the delay is drawn, and states are explained in words."""
    async with live_tester(network(node(1)), tmp_path) as tester, aiohttp.ClientSession() as session:
        await tester.tick()
        (row,) = await tester.results()
        full = await FullResults(tester.daemon.database).get(row.id)
        assert full is not None
        assert full.received is not None
        assert 20 < len(full.details["stream"]["delays"]) <= 120
        assert all(0 <= delay_s < 5 for _, delay_s in full.details["stream"]["delays"])
        page = f"http://127.0.0.1:{tester.daemon.port}/r/{row.id}"
        async with session.get(page) as response:
            text = await response.text()
        assert "delay from input to output" in text
        assert 'class="delay"' in text
        state = full.details["stream"]["states"][0][1]  # on a busy machine it may be that of a slow input
        assert STATE_WORDS[state] in text
        async with session.get(f"{page}/received") as response:
            strip = Image.open(io.BytesIO(await response.read()))
        assert strip.size == (full.received.width, full.received.height) == (480, 320)
        async with session.get(f"http://127.0.0.1:{tester.daemon.port}/api/results/{row.id}") as response:
            assert (await response.json())["stream"]["states"][0][1] == state
