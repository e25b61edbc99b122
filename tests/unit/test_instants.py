"""People write instants in several ways; what is none is refused with how to write it."""

from __future__ import annotations

import pytest

from jobtester.domain.instants import parse_instant

NOW = 1_780_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-04T10:00", 1_777_888_800.0), ("2026-05-04 10:00:00Z", 1_777_888_800.0),
        ("2026-05-04 10:00:00 UTC", 1_777_888_800.0), ("2026-05-04 12:00:00 +02:00", 1_777_888_800.0),
        ("2026-05-04 12:00:00 +02:00".replace(" +", "+"), 1_777_888_800.0), (" 2026-05-04 ", 1_777_852_800.0),
        ("1777888800", 1_777_888_800.0), ("1777888800.25", 1_777_888_800.25),
        ("24h", NOW - 86_400), ("-90s", NOW - 90), ("1h30m", NOW - 5400),
    ],
)  # fmt: skip
def test_instants_are_read(text: str, expected: float) -> None:
    """An ISO time is UTC unless it says otherwise; a duration is how long ago."""
    assert parse_instant(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "10:00", "١٢٣٤٥٦٧٨٩٠", "9" * 30, "9" * 300, "nan", "99999h9"]
)
def test_anything_else_is_refused(text: str) -> None:
    """With how to write it, and never as another error."""
    with pytest.raises(ValueError, match="UTC, or with an offset"):
        parse_instant(text, NOW)
