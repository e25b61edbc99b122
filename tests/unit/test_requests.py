"""Tokens and rates of incoming requests are judged the same whatever a client sends."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from jobtester.web.requests import is_token, parse_bearer
from jobtester.web.webhooks import RateLimiter


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None), ("abc", None), ("", None)],
)
def test_a_bearer_is_read_in_any_case(header: str, token: str | None) -> None:
    """The scheme's case and blanks make no difference; another scheme has no bearer."""
    assert parse_bearer(header) == token


@pytest.mark.parametrize(("text", "equal"), [("secret", True), ("Secret", False), ("\udcff", False), ("é", False)])
def test_any_header_can_be_compared_with_a_token(text: str, equal: bool) -> None:
    """Bytes that are no UTF-8 are a wrong token and no error."""
    assert is_token(text, SecretStr("secret")) is equal


def test_each_source_has_a_rate_of_its_own() -> None:
    """The third request within a minute is too many; after a minute, and from elsewhere, requests are accepted."""
    now = 0.0
    limiter = RateLimiter(per_minute=2, clock=lambda: now)
    assert [limiter.is_exceeded("a") for _ in range(3)] == [False, False, True]
    assert not limiter.is_exceeded("b")
    now = 60.0
    assert not limiter.is_exceeded("a")


def test_sources_are_forgotten_in_their_order() -> None:
    """However many addresses post, the limiter holds a bounded number of them."""
    limiter = RateLimiter(per_minute=1, clock=lambda: 0.0)
    for number in range(1_001):
        assert not limiter.is_exceeded(str(number))
    assert not limiter.is_exceeded("0"), "the first one was forgotten"
    assert limiter.is_exceeded("1000")
