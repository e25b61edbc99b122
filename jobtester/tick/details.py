"""Collect the details of a result: the request and its inputs, what was expected, and what came back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from jobtester.checks.base import Check
from jobtester.checks.checker import CheckedAnswer
from jobtester.domain.exchanges import Exchange
from jobtester.domain.reasons import Finding
from jobtester.domain.result_details import ResultDetails
from jobtester.domain.untrusted_text import clean_prose
from jobtester.pipelines.request import Request

_MAX_MESSAGE_CHARS = 1000


def make_details(request: Request, exchange: Exchange, checked: CheckedAnswer) -> ResultDetails:
    """Return the details of a judged job."""
    expectation = request.expectation
    names = [name for name in expectation.inputs if isinstance(request.parameters.get(name), str)]
    return ResultDetails(
        request=exchange.request,
        inputs={
            name: {"name": request.parameters[name], **_known_facts(asdict(expectation.inputs[name]))} for name in names
        },
        checks=_describe_checks(expectation.checks, checked.findings),
        connect_s=exchange.connect_s,
        first_byte_s=exchange.first_byte_s,
        received=checked.received,
        stream=checked.stream,
    )


def _describe_checks(checks: tuple[Check, ...], findings: tuple[Finding, ...]) -> tuple[Mapping[str, Any], ...]:
    """Return each check with its parameters, and the problem that it found; `body` stands for an unreadable answer."""
    entries: list[dict[str, Any]] = [{"check": check.name, "parameters": _parameters(check)} for check in checks]
    if any(finding.check == "body" and not finding.passed for finding in findings):
        entries.insert(0, {"check": "body", "parameters": {}})
    # A pipeline may use one check several times: the findings of a name come in the order of its checks.
    remaining = list(findings)
    for entry in entries:
        finding = next((finding for finding in remaining if finding.check == entry["check"]), None)
        if finding is None:
            continue
        remaining.remove(finding)
        if not finding.passed:
            message = clean_prose(finding.message, _MAX_MESSAGE_CHARS)
            entry |= {"problem": finding.problem, "message": message}
    return tuple(entries)


def _parameters(check: Check) -> dict[str, Any]:
    values = {field.name.rstrip("_"): getattr(check.params, field.name) for field in fields(check.params)}
    return _known_facts(values)


def _known_facts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", (), 0, False)}
