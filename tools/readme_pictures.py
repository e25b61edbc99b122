"""Make what README shows of a run: a picture of the overview, and a cut of the output of `make demo`.

`python -m tools.readme_pictures` (`make readme-pictures`) writes both; the picture needs chromium and
chromedriver. A test runs the demo and compares its lines with the cut.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tools.documentation_tables import ROOT

README = ROOT / "README.md"
PICTURE = ROOT / "docs/overview.png"
MAX_PICTURE_BYTES = 200_000
_WIDTH, _HEIGHT = 1440, 1150
_TIMEOUT_S = 180.0
_TICKS_TIMEOUT_S = 600.0
_CUT = re.compile(r"(<!-- cut: demo -->\n```text\n).*?(```\n<!-- end -->)", re.DOTALL)

# One job of each kind, and what the tick came to. Each has to match a line.
_SHOWN = (
    r"This network is SIMULATED",
    r"tick \S+: \d+ jobs",
    r"\[\d+\] 0xa11ce0\S+ llm ",
    r"\[\d+\] 0xb0b000\S+ audio-to-text ",
    r"\[\d+\] 0xdead00\S+ text-to-image ",
    r"\[\d+\] 0xfa1100\S+ image-to-video ",
    r"\[\d+\] \S+ livepeer-example/hello-world ",
    r"tick \S+ finished in",
    r"skipped: ",
    r"\d+ stats stored",
)
_VARIABLE = (
    (r"\b\d{8}T\d{9}Z\b", "ID"),
    (r"\b(?:proven|presumed)\b", "ATTRIBUTION"),
    (r"\b[\d.]+(?:ms|s|m)\b", "TIME"),
    (r"(?<![\w…./-])\d+(?![\w./-])", "N"),
)


def main() -> int:
    """Write the picture and the cut; exit 1 where no browser is installed."""
    shown = cut(run_demo())
    README.write_text(_CUT.sub(lambda found: f"{found[1]}{shown}{found[2]}", README.read_text("utf-8")), "utf-8")
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        print("no chromium with chromedriver is installed: the picture stays as it was", file=sys.stderr)
        return 1
    with _staying_demo() as url:
        PICTURE.write_bytes(_compress(_take_picture(url, chromium, driver)))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size} bytes")
    return 0


def run_demo() -> str:
    """Return what `make demo` prints."""
    command = [sys.executable, "-m", "jobtester", "demo"]
    environment = _environment()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
    )
    return done.stdout


def cut(output: str) -> str:
    """Return some lines of the output. Raises ValueError where one that has to be there is missing."""
    lines = output.splitlines()
    chosen: set[int] = set()
    for pattern in _SHOWN:
        number = next((number for number, line in enumerate(lines) if re.match(pattern, line)), None)
        if number is None:
            raise ValueError(f"no line of the demo matches {pattern}")
        chosen.add(number)
    shown, before = [], -1
    for number in sorted(chosen):
        if number > before + 1:
            shown.append("…")
        shown.append(lines[number])
        before = number
    return "\n".join(shown) + "\n"


def written_cut() -> str:
    """Return the cut that README has."""
    found = _CUT.search(README.read_text("utf-8"))
    assert found is not None, "README has no cut"
    return found[0].split("```text\n", 1)[1].split("```", 1)[0]


def shapes(lines: str) -> set[str]:
    """Return the lines with what differs from run to run replaced: numbers, times, ids, and how well it is proven."""
    found = set()
    for line in lines.splitlines():
        shape = line
        for pattern, word in _VARIABLE:
            shape = re.sub(pattern, word, shape)
        found.add(shape)
    return found


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("JOBTESTER_")} | {"COLUMNS": "160"}


@contextmanager
def _staying_demo() -> Iterator[str]:
    """Run a demo that keeps its pages until some ticks have ended, and yield their address."""
    command = [sys.executable, "-m", "jobtester", "demo", "--stay", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = next(found[1] for line in process.stdout if (found := re.match(r"tester: (\S+)/ ", line)))
            deadline = time.monotonic() + _TICKS_TIMEOUT_S
            while not _is_presentable(url):
                if time.monotonic() > deadline:
                    raise TimeoutError("no tick of the demo is fit for a picture")
                time.sleep(1)
            yield url
        finally:
            process.terminate()


def _is_presentable(url: str) -> bool:
    """Whether two ticks have finished, the newest as every one does on a machine with nothing else to do."""
    with urllib.request.urlopen(f"{url}/api/ticks?limit=3", timeout=10) as answer:  # noqa: S310 - our own address
        ticks: Sequence[dict[str, Any]] = json.load(answer)["items"]
    if sum(tick["state"] == "finished" for tick in ticks) < 2:
        return False
    return ticks[0]["state"] == "finished" and "tester_fault" not in ticks[0]["report"]["reasons"]


def _take_picture(url: str, chromium: str, driver: str) -> bytes:
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={_WIDTH},{_HEIGHT}")
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_page_load_timeout(60)
        browser.get(url)
        return browser.get_screenshot_as_png()
    finally:
        browser.quit()


def _compress(png: bytes) -> bytes:
    """Return a picture with few colors, which is what a page has. Raises ValueError if it is still too large."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128).save(buffer, "PNG", optimize=True)
    if buffer.tell() > MAX_PICTURE_BYTES:
        raise ValueError(f"the picture has {buffer.tell()} bytes, {MAX_PICTURE_BYTES} at most are wanted")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
