"""What tests read from a browser."""

from __future__ import annotations

from typing import Any

from selenium import webdriver


def console(driver: webdriver.Chrome) -> list[Any]:
    """Return what was written to the console since the last call."""
    return list(driver.get_log("browser"))  # type: ignore[no-untyped-call]
