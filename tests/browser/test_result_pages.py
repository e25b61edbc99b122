"""In a real browser, the page of a failure sets what came beside what was expected, at every width, light and dark."""

from __future__ import annotations

import asyncio
import os
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from jobtester.simulator.scenario import GatewaySpec, ModelSpec, OrchestratorSpec, Scenario
from jobtester.store.results import ResultRow
from tests.browser.test_pages_live import WIDTHS, assert_console_empty, assert_layout_stable, set_window
from tests.harness.simulated import simulated_tester

pytestmark = pytest.mark.browser

FAULTS = {
    "image-to-image": "wrong_size",
    "text-to-image": "blank_image",
    "image-to-video": "flat_video",
    "text-to-speech": "silent_audio",
    "audio-to-text": "wrong_transcript",
    "image-to-text": "wrong_answer",
    "llm": "wrong_answer",
    "segment-anything-2": "wrong_mask",
}
_LOADED = """
return Promise.all([...document.images].map((image) => image.decode().then(() => image.naturalWidth, () => 0)));
"""
_AXE = "axe.run().then((found) => arguments[0](found.violations.map((one) => one.id + ' ' + one.nodes[0].html)))"


def network() -> Scenario:
    """Return one sound orchestrator, and for each pipeline one that fails at it in its own way."""
    # The name of a model decides how many frames are expected of it.
    names = {slug: "sim/img2vid" if slug == "image-to-video" else f"sim/{slug}" for slug in FAULTS}
    models = {slug: ModelSpec(slug, name, latency_s=(0.01, 0.02)) for slug, name in names.items()}
    sound = OrchestratorSpec(f"0x{1:040x}", service_uri="https://sound.sim.example:8935", models=tuple(models.values()))
    faulty = tuple(
        OrchestratorSpec(
            f"0x{number:040x}", service_uri=f"https://o{number}.sim.example:8935", models=(models[slug],), fault=fault
        )
        for number, (slug, fault) in enumerate(FAULTS.items(), 2)
    )
    return Scenario("evidence", 1, (GatewaySpec("gateway", mode="query"),), (sound, *faulty))


def look(browser: webdriver.Chrome, base: str, rows: list[ResultRow], axe: str) -> dict[str, str]:
    """Open the page of each result at each width, light and dark; return the texts of the widest, by result."""
    texts = {}
    shots = os.environ.get("SCREENSHOTS", "")
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            set_window(browser, width, scheme)
            for row in rows:
                browser.get(f"{base}/r/{row.id}")
                assert all(browser.execute_script(_LOADED)), (row.pipeline, row.outcome)
                assert_layout_stable(browser, width)
                assert_console_empty(browser)
                texts[row.id] = browser.find_element(By.TAG_NAME, "main").text
                if shots:
                    options = {"captureBeyondViewport": True, "format": "png"}
                    data = browser.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
                    Path(f"{shots}/{row.pipeline}-{row.outcome}-{width}-{scheme}.png").write_bytes(b64decode(data))
            browser.execute_script(axe)
            assert browser.execute_async_script(_AXE) == []
    return texts


def count(browser: webdriver.Chrome, base: str, row: ResultRow, selector: str) -> int:
    """Return how many elements the page of a result has."""
    browser.get(f"{base}/r/{row.id}")
    return len(browser.find_elements(By.CSS_SELECTOR, selector))


@pytest.mark.slow
async def test_each_failure_is_shown_beside_what_was_expected(
    browser: webdriver.Chrome, axe: str, tmp_path: Path
) -> None:
    """Pictures, sounds and words of every kind of failure are there, load, and fit; so are those of passes."""
    async with simulated_tester(network(), tmp_path) as tester:
        await tester.tick()
        base = f"http://127.0.0.1:{tester.daemon.port}"
        rows = await tester.results()
        failed = {row.pipeline: row for row in rows if row.outcome == "failed"}
        passed = {row.pipeline: row for row in rows if row.outcome == "passed"}
        assert failed.keys() == FAULTS.keys() == passed.keys()
        texts = await asyncio.to_thread(look, browser, base, rows, axe)
        for row in rows:
            for part in ("wait", "transfer", "curl --request POST", "delivered", '"round_trip_time"'):
                assert part in texts[row.id], row.pipeline

        def counts(pipeline: str, selector: str, results: dict[str, Any] = failed) -> int:
            return count(browser, base, results[pipeline], selector)

        def check_elements() -> None:
            # What was sent, what came back, and what an orchestrator returned that passed.
            assert counts("image-to-image", ".pair img") == 3
            assert counts("text-to-image", ".pair img") == 2
            assert counts("image-to-video", ".pair img") == 3
            assert counts("text-to-speech", ".pair audio") == 2
            assert counts("text-to-speech", ".pair audio", passed) == 1
            assert counts("audio-to-text", ".word.missing") > 3
            assert counts("audio-to-text", ".word.missing", passed) == 0
            assert counts("llm", ".word.missing") == 1
            assert counts("image-to-text", ".word.missing") > 0
            assert counts("image-to-text", ".pair img") == 1

        await asyncio.to_thread(check_elements)


def measure_shifts(browser: webdriver.Chrome, base: str, rows: list[ResultRow]) -> list[tuple[str, str, int, float]]:
    """Open the page of each result while the network is slow; return how far each page has moved."""
    shifts = []
    network = {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    try:
        for width in WIDTHS:
            set_window(browser, width)
            browser.execute_cdp_cmd("Network.enable", {})
            browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
            browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**network, "latency": 250})
            for row in rows:
                browser.get(f"{base}/r/{row.id}")
                assert all(browser.execute_script(_LOADED)), (row.pipeline, row.outcome)
                shifts.append((row.pipeline, row.outcome, width, sum(browser.execute_script("return window.shifts"))))
    finally:
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**network, "latency": 0})
        browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": False})
        browser.execute_cdp_cmd("Network.disable", {})
    return shifts


@pytest.mark.slow
async def test_pictures_have_their_place_before_they_arrive(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Where pictures take a quarter of a second to load, nothing on the page moves when they come."""
    async with simulated_tester(network(), tmp_path) as tester:
        await tester.tick()
        rows = [row for row in await tester.results() if "image" in row.pipeline]
        base = f"http://127.0.0.1:{tester.daemon.port}"
        shifts = await asyncio.to_thread(measure_shifts, browser, base, rows)
        assert len(shifts) >= 3 * 8
        assert [shift for shift in shifts if shift[-1] >= 0.01] == []


async def test_the_copy_button_copies_the_command(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """One click puts the whole command into the clipboard, or selects it where a page may not write there."""
    async with simulated_tester(network(), tmp_path) as tester:
        await tester.tick()
        row = (await tester.results())[0]

        def click() -> tuple[str, str]:
            set_window(browser, 1440)
            browser.get(f"http://127.0.0.1:{tester.daemon.port}/r/{row.id}")
            browser.find_element(By.CSS_SELECTOR, ".copy").click()
            selected = browser.execute_script("return getSelection().toString()")
            return str(selected), str(browser.execute_script("return document.querySelector('#curl').textContent"))

        selected, command = await asyncio.to_thread(click)
        assert command.startswith("curl ")
        assert selected.split() == command.split()
