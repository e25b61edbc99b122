"""In a real browser, pages follow a tick without reload, lead to evidence in two clicks, and never jump."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from jobtester.store.queries import Queries
from tests.harness.browser import console, find_violations
from tests.harness.hostile_texts import TICK, hostile_tester
from tests.harness.simulated import SimulatedTester, simulated_tester
from tests.harness.waiting import block_until

pytestmark = pytest.mark.browser

SLUGS = ("llm", "text-to-image", "text-to-speech")
WIDTHS = (375, 768, 1440)
_STICKING_OUT = (
    "return [...document.querySelectorAll('.facts dd')].filter((one) => one.scrollWidth > one.clientWidth)"
    ".map((one) => one.innerText)"
)
_BROKEN_HEADINGS = """
return [...document.querySelectorAll("table:not(.matrix) thead th:not(:has(.visually-hidden))")].map((heading) => {
  const range = document.createRange();
  range.selectNodeContents(heading);
  const tops = new Set([...range.getClientRects()].map((line) => Math.round(line.top)));
  return [heading.textContent, tops.size];
}).filter(([text, lines]) => lines > text.split(/[ -]/).length);
"""
_ITEMS = """
return [...document.querySelectorAll("tr")].filter((one) => one.querySelector(`a[href="${arguments[0]}"]`))
  .map((one) => one.textContent);
"""


@asynccontextmanager
async def after_one_tick(folder: Path, *, slow: float = 0.4) -> AsyncIterator[tuple[SimulatedTester, str]]:
    """Start a tester that has run one tick over a network in which half misbehave; jobs take about `slow` seconds."""
    scenario = generate(
        seed=5,
        orchestrators=8,
        models_per_pipeline=3,
        pipelines=SLUGS,
        latency_s=(slow, slow * 1.5),
        fault_share=0.5,
        fault_probability=0.6,
        gateways=(GatewaySpec(name="gateway", mode="query", retry_window=0.1),),
    )
    async with simulated_tester(scenario, folder) as tester:
        await tester.tick()
        yield tester, f"http://127.0.0.1:{tester.daemon.port}"


def set_window(browser: webdriver.Chrome, width: int, scheme: str = "light") -> None:
    """Make the browser's window as wide as a phone's or a desk's, and light or dark."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 812 if width < 600 else 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


def assert_console_empty(browser: webdriver.Chrome) -> None:
    """Assert that nothing was written to the console since the last look."""
    assert console(browser) == []


def assert_layout_stable(browser: webdriver.Chrome, width: int) -> None:
    """Assert that the page does not jump, that nothing is wider than its place, and that headings keep words whole."""
    url = browser.current_url
    assert sum(browser.execute_script("return window.shifts")) < 0.1, url
    scroll_width = browser.execute_script("return document.documentElement.scrollWidth")
    assert scroll_width <= width, url
    assert browser.execute_script(_STICKING_OUT) == [], url
    assert browser.execute_script(_BROKEN_HEADINGS) == [], url


def read_text(browser: webdriver.Chrome, name: str) -> str:
    """Read one of the texts that change, at one instant."""
    return str(browser.execute_script(f"return document.querySelector('[data-live={name}]').textContent"))


def watch(browser: webdriver.Chrome, base: str, width: int) -> list[int]:
    """Watch the overview while a tick runs, until its number of settled jobs has moved three times."""
    set_window(browser, width)
    browser.get(f"{base}/")
    block_until(lambda: read_text(browser, "state") == "running", "the page shows a running tick")
    browser.execute_script("window.sameDocument = true")
    counts: list[int] = []
    in_flight: set[str] = set()

    def has_moved() -> bool:
        now = int(read_text(browser, "finished"))
        if not counts or now != counts[-1]:
            counts.append(now)
        in_flight.add(read_text(browser, "in-flight"))
        return len(counts) >= 4

    block_until(has_moved, "the page follows the tick")
    assert read_text(browser, "planned") == "72"
    assert any(text.strip().startswith("gateway: 0x") for text in in_flight)
    assert browser.execute_script("return window.sameDocument === true")
    assert_layout_stable(browser, width)
    assert_console_empty(browser)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
async def test_progress_moves_without_reload(width: int, browser: webdriver.Chrome, tmp_path: Path) -> None:
    """The numbers of the running tick rise on the open page, which neither jumps nor complains; its end is shown."""
    async with after_one_tick(tmp_path) as (tester, base):
        running = asyncio.create_task(tester.tick())
        counts = await asyncio.to_thread(watch, browser, base, width)
        assert counts == sorted(counts)
        report = await running

        def is_shown_as_finished() -> bool:
            return any("finished" in text for text in browser.execute_script(_ITEMS, f"/t/{report.tick}"))

        await asyncio.to_thread(block_until, is_shown_as_finished)
        await asyncio.to_thread(assert_layout_stable, browser, width)


def find_evidence(browser: webdriver.Chrome, base: str, address: str, width: int) -> str:
    """Go from the overview to a failed job's evidence by two clicks; return the id of the result that was found."""
    set_window(browser, width)
    browser.get(f"{base}/")
    browser.find_element(By.CSS_SELECTOR, f".matrix a[href='/o/{address}']").click()
    row = "//section[@aria-labelledby='results']//tr[td//span[text()='failed']]"
    browser.find_element(By.XPATH, f"({row})[1]//a").click()
    assert "/r/" in browser.current_url
    assert_console_empty(browser)
    return browser.current_url.rpartition("/")[2]


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
async def test_two_clicks_lead_to_the_evidence_of_a_failure(
    width: int, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    """Overview, orchestrator, failed result: its reason, message, evidence, request and answer stand there."""
    async with after_one_tick(tmp_path, slow=0.01) as (tester, base):
        row = next(row for row in await tester.results() if row.outcome == "failed")
        result_id = await asyncio.to_thread(find_evidence, browser, base, row.orchestrator, width)
        result = await Queries(tester.daemon.database).get(result_id)
        assert result is not None
        assert (result.orchestrator, result.outcome) == (row.orchestrator, "failed")
        text = await asyncio.to_thread(lambda: browser.find_element(By.TAG_NAME, "main").text)
        for part in (result.reason, result.message, *result.evidence):
            assert " ".join(part.split()) in " ".join(text.split())
        assert '"' in await asyncio.to_thread(lambda: browser.find_element(By.TAG_NAME, "pre").text)
        await asyncio.to_thread(assert_layout_stable, browser, width)


async def sample_paths(tester: SimulatedTester) -> list[str]:
    """Return one page of each kind, with results of each outcome."""
    rows = await tester.results()
    by_outcome = {row.outcome: row for row in rows}
    return [
        "/",
        f"/o/{rows[0].orchestrator}",
        f"/t/{rows[0].tick}",
        "/outbox",
        *(f"/r/{row.id}" for row in by_outcome.values()),
    ]


def visit(browser: webdriver.Chrome, base: str, paths: list[str]) -> Iterator[tuple[str, int]]:
    """Open pages at each width, light and dark."""
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            set_window(browser, width, scheme)
            for path in paths:
                browser.get(base + path)
                yield f"{path} at {width} px, {scheme}", width


def find_inaccessible(browser: webdriver.Chrome, axe: str, base: str, paths: list[str]) -> Iterator[str]:
    """Yield what axe-core finds wrong on pages: on a phone and on a desk, and for the colors also in the dark."""
    for width, scheme, rules in ((375, "light", ()), (1440, "light", ()), (1440, "dark", ("color-contrast",))):
        set_window(browser, width, scheme)
        for path in paths:
            browser.get(base + path)
            for violation in find_violations(browser, axe, *rules):
                where = violation["nodes"][0]["html"][:200]
                yield f"{path} at {width} px, {scheme}: {violation['id']}: {violation['help']}: {where}"


async def test_pages_fit_and_are_quiet(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """No page of any kind is wider than the window, jumps while it loads, or writes to the console."""
    async with after_one_tick(tmp_path, slow=0.01) as (tester, base):
        paths = await sample_paths(tester)

        def check() -> None:
            for _, width in visit(browser, base, paths):
                assert_layout_stable(browser, width)
                assert_console_empty(browser)

        await asyncio.to_thread(check)


@pytest.mark.slow
async def test_hostile_texts_run_nothing_and_break_no_page(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """With markup, controls and 100 kB in every text from outside, no script runs and no page grows too wide."""
    async with hostile_tester(tmp_path) as (tester, ids):
        paths = ["/", "/outbox", f"/t/{TICK}", f"/o/0x{1:040x}", *(f"/r/{result_id}" for result_id in ids.values())]
        base = f"http://127.0.0.1:{tester.daemon.port}"

        def check() -> None:
            for _, width in visit(browser, base, paths):
                assert not browser.find_elements(By.CSS_SELECTOR, "main img, main script, main b, main [onmouseover]")
                assert_layout_stable(browser, width)
                assert_console_empty(browser)

        await asyncio.to_thread(check)


@pytest.mark.slow
async def test_pages_are_accessible(browser: webdriver.Chrome, axe: str, tmp_path: Path) -> None:
    """axe-core finds no violation on any page, light or dark, on a phone or a desk."""
    async with after_one_tick(tmp_path, slow=0.01) as (tester, base):
        paths = await sample_paths(tester)

        assert await asyncio.to_thread(list, find_inaccessible(browser, axe, base, paths)) == []
