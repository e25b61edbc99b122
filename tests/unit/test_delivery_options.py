"""Delivery's options follow the settings, and the time after which a miss counts follows the server."""

from __future__ import annotations

from typing import Any

import pytest

from jobtester.leaderboard.options import DeliveryOptions
from jobtester.settings.model import Settings


def make_options(url: str, **delivery: Any) -> DeliveryOptions:
    """Return the options for a server at `url`."""
    settings = Settings.from_tables(
        {
            "region": "FRA",
            "leaderboard": {"post": False},
            "delivery": delivery,
            "gateways": [{"name": "g", "url": "http://127.0.0.1:8935"}],
        }
    )
    return DeliveryOptions.from_settings(settings, url)


def test_options_follow_the_settings() -> None:
    """Each key of `[delivery]` has its option; the region is the tester's."""
    options = make_options("http://l.example", uncertain="resend", max_age="2h", parallel=4, audit=7, miss_after="10s")
    assert options == DeliveryOptions("FRA", "resend", 7200.0, 4, 7, 10.0)


@pytest.mark.parametrize(
    ("url", "miss_after_s"), [("https://l.example", 90.0), ("https://leaderboard.vercel.app", 300.0)]
)
def test_a_miss_counts_later_on_vercel(url: str, miss_after_s: float) -> None:
    """A function may run there for five minutes, and store the stat at their end."""
    assert make_options(url).miss_after_s == miss_after_s
