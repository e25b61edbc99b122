"""Estimate what a job of a live runner costs, which is priced by the request or by time."""

from __future__ import annotations

import math

from jobtester.domain.orchestrators import Price

PREPAID_S = 10.0  # the first payment of a price by time is for some seconds ahead: two intervals of five
# Seconds of 720p video are the most that a second of a job can have, whatever it sends.
_BY_TIME = ("seconds", "720p-pixel-seconds")


def estimate_runner_price_wei(price: Price | None, unit: str, longest_s: float) -> int | None:
    """Return the most that a job of `longest_s` seconds costs in wei; None where the unit is not known."""
    if price is None or price.wei_per_unit == 0:
        return 0
    if unit == "fixed":
        return price.wei_per_unit
    return price.wei_per_unit * math.ceil(longest_s + PREPAID_S) if unit in _BY_TIME else None
