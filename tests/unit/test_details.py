"""The details of a result: each finding stands at the check that made it."""

from __future__ import annotations

from typing import Any

import pytest

from jobtester.checks.base import Expectation
from jobtester.checks.checker import CheckedAnswer
from jobtester.checks.registry import make_check
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.reasons import Finding, Note
from jobtester.pipelines.request import Request
from jobtester.tick.details import make_details

FIRST = {"check": "json", "path": "city", "is": "text"}
SECOND = {"check": "json", "path": "city", "equals": "Tokyo"}


def problems(findings: tuple[Finding, ...], *tables: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each check's name and problem, as the details have them."""
    expectation = Expectation(tuple(make_check(table) for table in tables))
    request = Request("/weather", "application/json", b"{}", {}, expectation)
    exchange = Exchange(Ending.ANSWERED, 0.0, 0.0, 1.0, status=200)
    details = make_details(request, exchange, CheckedAnswer(findings))
    return [(entry["check"], entry.get("problem", "")) for entry in details.checks]


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ((Finding("json"), Finding("json", "value")), ["", "value"]),
        ((Finding("json", "type"), Finding("json")), ["type", ""]),
        ((Finding("json", "type"), Finding("json", "value")), ["type", "value"]),
        (
            (Finding("body", notes=(Note("body", "odd", "x"),)), Finding("json"), Finding("json", "value")),
            ["", "value"],
        ),
    ],
)
def test_a_problem_stands_at_its_own_check_among_several_of_one_name(
    findings: tuple[Finding, ...], expected: list[str]
) -> None:
    """Proves that findings are matched by their place, not by the name of the check alone."""
    assert [problem for _, problem in problems(findings, FIRST, SECOND)] == expected


def test_an_unreadable_answer_is_a_problem_of_the_body_alone() -> None:
    """Proves that the body's own entry comes first, and that no check gets its problem."""
    found = problems((Finding("body", "bad_json", "x"),), FIRST, SECOND)
    assert found == [("body", "bad_json"), ("json", ""), ("json", "")]
