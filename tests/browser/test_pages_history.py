"""In a real browser, a network of 60 with 500 ticks of history stays readable, and leads to any failure quickly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from jobtester.simulator.generated_scenario import generate
from tests.browser.test_pages_live import assert_console_empty, assert_layout_stable, find_inaccessible, set_window
from tests.harness.history import LongHistory, write_long_history
from tests.harness.simulated import simulated_tester
from tests.harness.waiting import block_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Words of up to 20 letters that stand on more than one line, other than at a hyphen.
_BROKEN_WORDS = """
const broken = [];
for (const cell of document.querySelectorAll("table :is(th, td)")) {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    for (const match of text.data.matchAll(/[\\p{L}\\p{N}]{2,20}/gu)) {
      const range = document.createRange();
      range.setStart(text, match.index);
      range.setEnd(text, match.index + match[0].length);
      const tops = new Set([...range.getClientRects()].map((line) => Math.round(line.top)));
      if (tops.size > 1) broken.push(match[0]);
    }
  }
}
return broken;
"""
_TAB_STOPS = """
return [...document.querySelectorAll("svg.plot[role=group]")]
  .map((plot) => [...plot.querySelectorAll("a")].filter((link) => link.tabIndex >= 0).length);
"""
_FOCUS = """
const focused = document.activeElement;
if (!focused || focused === document.body || focused.dataset.seen) return null;
focused.dataset.seen = "yes";
const style = getComputedStyle(focused), box = focused.getBoundingClientRect();
return {
  html: focused.outerHTML.slice(0, 120),
  is_marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
  is_visible: box.width > 0 && box.bottom > 0 && box.top < innerHeight,
};
"""
_LOST_COLUMNS = """
return [...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth + 1)
  .map((box) => box.getAttribute("aria-label"));
"""


@asynccontextmanager
async def long_history(folder: Path) -> AsyncIterator[tuple[str, LongHistory]]:
    """Start a tester with a failing orchestrator of each kind among 60, and 500 ticks."""
    pause = {"from": "2020-01-01", "orchestrators": [f"0x{1:040x}"], "reason": "moved to another data center"}
    async with simulated_tester(generate(seed=1, orchestrators=1, pipelines=("llm",)), folder, pause=[pause]) as tester:
        yield f"http://127.0.0.1:{tester.daemon.port}", await write_long_history(tester.daemon.database)


def list_paths(history: LongHistory) -> list[str]:
    """Return the pages that show a history."""
    address = history.failing["timeout"]
    return [
        "/",
        "/?q=gpu-3&outcome=failed",
        f"/o/{address}?window=7d",
        f"/o/{history.skipped}",
        "/ticks",
        f"/t/{history.ticks[-1]}",
        "/outbox",
        *(f"/r/{number:04x}0000" for number in (2, 3, 4, 7)),  # failed: batch, live runner, BYOC; a pipeline's pass
    ]


def press_tab(browser: webdriver.Chrome) -> dict[str, Any] | None:
    """Press Tab and return what has the focus now, None if it has left the page."""
    ActionChains(browser).send_keys(Keys.TAB).perform()
    return cast(dict[str, Any] | None, browser.execute_script(_FOCUS))


async def test_yesterdays_failure_takes_two_clicks_or_one_filter(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """From an orchestrator's page, the bar of the hour and the result; or from and until, which list the reason."""
    async with long_history(tmp_path) as (base, history):
        page = f"{base}/o/{history.failing['503']}?window=7d"

        def find() -> None:
            set_window(browser, 1440)
            browser.get(page)
            bars = browser.find_elements(By.CSS_SELECTOR, "svg.bars a[aria-label*='failed']")
            yesterday = [bar for bar in bars if bar.get_attribute("aria-label")][-2 if len(bars) > 1 else -1]
            browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", yesterday)
            browser.find_element(
                By.XPATH, "//section[@aria-labelledby='results']//tr[td//span[text()='failed']]//a"
            ).click()
            assert "503" in browser.find_element(By.TAG_NAME, "main").text
            browser.get(page)
            Select(browser.find_element(By.NAME, "outcome")).select_by_value("failed")
            browser.find_element(By.NAME, "since").send_keys("24.5h")
            browser.find_element(By.NAME, "until").send_keys("24h" + Keys.ENTER)
            block_until(lambda: "until=24h" in browser.current_url, "the filtered page")
            rows = browser.find_elements(By.CSS_SELECTOR, "section[aria-labelledby=results] tbody tr")
            assert len(rows) == 1
            assert "503" in rows[0].text
            assert_console_empty(browser)

        await asyncio.to_thread(find)


async def test_pages_with_a_long_history_are_readable(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """From a phone to a desk nothing jumps or is too wide, no word breaks, and a chart is one stop of the Tab key."""
    async with long_history(tmp_path) as (base, history):

        def check() -> None:
            for path in list_paths(history):
                for width in (375, 768, 900, 1440):
                    set_window(browser, width)
                    browser.get(base + path)
                    assert_layout_stable(browser, width)
                    assert browser.execute_script(_BROKEN_WORDS) == [], (path, width)
                    assert set(browser.execute_script(_TAB_STOPS)) <= {1}, path
                    assert_console_empty(browser)
                assert browser.execute_script(_LOST_COLUMNS) == [], f"{path} at 1440 px"

        await asyncio.to_thread(check)


async def test_keys_reach_the_content_and_each_mark(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """The first Tab offers to skip to the content; in a chart, arrow keys move from mark to mark."""
    async with long_history(tmp_path) as (base, history):

        def press() -> None:
            set_window(browser, 1440)
            browser.get(f"{base}/o/{history.failing['timeout']}")
            browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
            assert browser.switch_to.active_element.text == "Skip to the content"
            browser.switch_to.active_element.send_keys(Keys.ENTER)
            assert browser.switch_to.active_element.tag_name == "main"
            browser.execute_script("document.querySelector('svg.bars a[tabindex=\"0\"]').focus()")
            label = browser.switch_to.active_element.get_attribute("aria-label")
            browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
            before = browser.switch_to.active_element.get_attribute("aria-label")
            assert before
            assert before != label
            assert browser.execute_script(_TAB_STOPS)[0] == 1

        await asyncio.to_thread(press)


async def test_every_page_can_be_walked_by_keyboard(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Tab goes from stop to stop, each of them visible and marked, until it leaves the page; nothing holds it."""
    async with long_history(tmp_path) as (base, history):

        def walk() -> None:
            for path in list_paths(history):
                if path == "/":
                    continue  # the same as with a filter, which leaves fewer stops
                set_window(browser, 1440)
                browser.get(base + path)
                stops = 0
                while (stop := press_tab(browser)) is not None:
                    assert stop["is_marked"], (path, stop)
                    assert stop["is_visible"], (path, stop)
                    stops += 1
                    assert stops < 400, f"{path} holds the focus at {stop}"
                assert stops > 5, path

        await asyncio.to_thread(walk)


async def test_pages_with_a_long_history_are_accessible(browser: webdriver.Chrome, axe: str, tmp_path: Path) -> None:
    """axe-core finds no violation on any of them, light or dark, on a phone or a desk."""
    async with long_history(tmp_path) as (base, history):
        missing = ["/r/missing", "/missing", f"/o/{history.skipped[:-1]}0", "/?q=matches+nothing"]
        problems = find_inaccessible(browser, axe, base, [*list_paths(history), *missing])
        assert await asyncio.to_thread(list, problems) == []
