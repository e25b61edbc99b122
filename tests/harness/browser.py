"""What tests read from a browser."""

from __future__ import annotations

from typing import Any

from selenium import webdriver


def console(driver: webdriver.Chrome) -> list[Any]:
    """Return what was written to the console since the last call."""
    return list(driver.get_log("browser"))  # type: ignore[no-untyped-call]


def find_violations(driver: webdriver.Chrome, axe: str, *rules: str) -> list[dict[str, Any]]:
    """Return what axe-core, whose source is `axe`, finds wrong on the open page by `rules`, or by all that it has."""
    driver.execute_script(axe)
    options = {"runOnly": list(rules)} if rules else {}
    answer: dict[str, Any] = driver.execute_async_script(
        "const [options, done] = arguments;axe.run(options).then(done, (error) => done({problem: String(error)}));",
        options,
    )
    assert "problem" not in answer, answer
    assert answer["passes"] or answer["violations"], "no rule applied"
    return list(answer["violations"])
