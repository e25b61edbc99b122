"""A real browser: Debian's chromium with its driver, where both are installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.harness.browser import console

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver") or ""
_SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (!one.hadRecentInput) window.shifts.push(one.value);
}).observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    """Start a browser that notes layout shifts and what is written to the console.

    It ends with the module: an idle chromium can keep a core busy, which the tests after it would share.
    """
    if not CHROMIUM or not DRIVER:
        pytest.skip("no chromium with chromedriver is installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    driver.set_script_timeout(60)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _SHIFTS})
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """Yield the browser with nothing open and a clean console, and leave it so."""
    _clear(chromium)
    yield chromium
    _clear(chromium)


def _clear(driver: webdriver.Chrome) -> None:
    driver.get("about:blank")
    console(driver)


@pytest.fixture(scope="session")
def axe() -> str:
    """Return axe-core's source, of the package that brings it along; AXE may name another axe.min.js."""
    path = os.environ.get("AXE")
    if path:
        return Path(path).read_text("utf-8")
    return (resources.files("axe_core_python") / "axe.min.js").read_text("utf-8")
