"""Durations, sizes and amounts are read from texts, and written so that they can be read back."""

from __future__ import annotations

import pytest

from jobtester.domain.units import (
    format_duration,
    format_measure,
    format_wei,
    parse_duration,
    parse_size,
    parse_wei,
)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"), (0.0004, "0.4ms"), (0.25, "250ms"), (0.9994, "999ms"), (0.9997, "1s"), (1, "1s"), (12.345, "12.3s"),
        (59.97, "60s"), (60, "1m"), (3599.7, "1h"), (5400, "1h30m"), (90_061, "1d1h1m1s"),
    ],
)  # fmt: skip
def test_a_duration_is_short_and_can_be_read_back(seconds: float, shown: str) -> None:
    """Three digits at the most below a minute, whole seconds above, and never an exponent."""
    assert format_duration(seconds) == shown
    assert parse_duration(shown) == pytest.approx(seconds, rel=0.005)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400), ("1 h 30 m", 5400), ("500ms", 0.5), ("90", 90), (0, 0), (2.5, 2.5), ("36500d", 3.1536e9),
    ],
)  # fmt: skip
def test_durations_are_read(text: object, seconds: float) -> None:
    """Numbers, numbers with a unit, and sums of those."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["", "1x", "-1s", -1, True, None, "1h-1m", "36501d", float("nan"), "s"])
def test_anything_else_is_no_duration(value: object) -> None:
    """The message says what to write instead."""
    with pytest.raises(ValueError, match=r"write a duration|at most"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "size"), [("64MiB", 2**26), ("500kB", 500_000), ("1.5 KiB", 1536), ("7", 7), (7, 7), ("1GB", 10**9)]
)
def test_sizes_are_read(text: object, size: int) -> None:
    """Decimal and binary units, and plain numbers of bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize("value", ["64 mib", "-1", True, 1.5, None, "", "1000001GiB"])
def test_anything_else_is_no_size(value: object) -> None:
    """The message says what to write instead."""
    with pytest.raises(ValueError, match=r"write a size|less than a million GiB"):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "wei"),
    [
        ("0.01 ETH", 10**16), ("0.000000000000000001 eth", 1), ("12345.123456789123456789ETH", 12345123456789123456789),
        ("5000 wei", 5000), ("5000", 5000), (5000, 5000), (0, 0),
    ],
)  # fmt: skip
def test_amounts_are_exact(text: object, wei: int) -> None:
    """No digit is lost: an amount in ETH has more digits than a float."""
    assert parse_wei(text) == wei
    assert format_wei(wei) == str(wei)


@pytest.mark.parametrize("value", ["1.5 wei", "1.5", "-1 ETH", -1, True, 1.5, None, "", "0.0000000000000000001 ETH"])
def test_anything_else_is_no_amount(value: object) -> None:
    """There is no fraction of a wei, and a number without a unit is wei."""
    with pytest.raises(ValueError, match="write an amount"):
        parse_wei(value)


def test_an_unknown_amount_stays_unknown() -> None:
    """A text of an earlier version's report stays as it is."""
    assert format_wei(None) is None
    assert format_wei("12") == "12"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("first_frame_s", 3.336, ("first frame", "3.34s")), ("session_seconds", 0.00219, ("session", "2.19ms")),
        ("input_late_share", 0.00358, ("input late share", "0.358 %")),
        ("output_fps", 25.2, ("output frames", "25.2 per second")),
        ("tokens_per_s", 12.04, ("tokens", "12 per second")), ("stalls_over_1s", 0.0, ("stalls over 1s", "0")),
    ],
)  # fmt: skip
def test_a_measure_is_shown_with_its_unit(name: str, value: float, shown: tuple[str, str]) -> None:
    """The unit that a name ends in moves to the value, in the form that people read everywhere."""
    assert format_measure(name, value) == shown
