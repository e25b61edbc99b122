"""What a live runner's job may cost, and which demands for payment are answered at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from jobtester.domain.orchestrators import Price
from jobtester.domain.runner_prices import estimate_runner_price_wei
from jobtester.live_runner.payment import PaymentRefusedError, parse_challenge

URI = "https://node.example:8935"
GOOD = {
    "payment_params": "eA==",
    "manifest_id": "session_1",
    "payment_url": f"{URI}/apps/x/session/session_1/payment",
    "orchestrator": URI,
}


@pytest.mark.parametrize(
    ("price", "unit", "longest_s", "wei"),
    [
        (None, "", 10, 0),
        (Price(0), "fixed", 10, 0),
        (Price(7), "fixed", 1000, 7),
        (Price(7), "seconds", 10, 140),
        (Price(7), "seconds", 10.2, 147),
        (Price(7), "720p-pixel-seconds", 10, 140),
        (Price(7), "moons", 10, None),
    ],
)
def test_estimates(price: Price | None, unit: str, longest_s: float, wei: int | None) -> None:
    """A price by time counts for the longest time and for what is paid ahead; an unknown unit cannot be limited."""
    assert estimate_runner_price_wei(price, unit, longest_s) == wei


def test_a_whole_challenge_is_read() -> None:
    """Every value goes on as it is."""
    challenge = parse_challenge(orjson.dumps({**GOOD, "more": 1}), URI)
    assert (challenge.payment_params, challenge.manifest_id) == ("eA==", "session_1")
    assert challenge.payment_url == GOOD["payment_url"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"payment_url": "https://other.example/payment"}, "refuted"),
        ({"payment_url": "https://node.example:8936/payment"}, "refuted"),
        ({"payment_url": "http://node.example:8935/payment"}, "refuted"),
        ({"payment_url": "https://node.example:8935@evil.example/payment"}, "refuted"),
        ({"orchestrator": "https://other.example:8935"}, "refuted"),
        ({"payment_url": f"{URI}/a b"}, "payment_required"),
        ({"payment_url": "https://user:secret@node.example:8935/payment"}, "payment_required"),
        ({"payment_url": ""}, "payment_required"),
        ({"payment_url": None}, "payment_required"),
        ({"payment_params": None}, "payment_required"),
        ({"payment_params": "x" * 100_000}, "payment_required"),
        ({"manifest_id": 7}, "payment_required"),
        ({"manifest_id": "x" * 2_000}, "payment_required"),
    ],
)
def test_a_bad_challenge_is_not_paid(changes: dict[str, Any], code: str) -> None:
    """Nobody but the orchestrator itself is ever paid, and nothing goes to another address."""
    with pytest.raises(PaymentRefusedError) as caught:
        parse_challenge(orjson.dumps({**GOOD, **changes}), URI)
    assert caught.value.code == code


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff", b'{"payment_params":' * 50])
def test_what_is_no_challenge_is_not_paid(body: bytes) -> None:
    """A 402 of an app that knows nothing of this protocol is only that."""
    with pytest.raises(PaymentRefusedError) as caught:
        parse_challenge(body, URI)
    assert caught.value.code == "payment_required"
