"""Fingerprints: compare pictures by what is left of them at 16×16 pixels."""

from __future__ import annotations

from jobtester.video.frame_record import FINGERPRINT_SIDE

_BRIGHTNESS_BYTES = FINGERPRINT_SIDE**2
_MIN_CHANGE = 3  # of 255: what compression alone changes in a cell of a picture that stands still is less
_BRIGHTEST_BLACK = 32  # black is 16


def looks_equal(first: bytes, second: bytes) -> bool:
    """Return True if two pictures show the same."""
    return first == second or all(abs(a - b) < _MIN_CHANGE for a, b in zip(first, second, strict=True))


def is_black(fingerprint: bytes) -> bool:
    """Return True if a picture is black all over."""
    return max(fingerprint[:_BRIGHTNESS_BYTES]) < _BRIGHTEST_BLACK


def distance(first: bytes, second: bytes) -> float:
    """Return the mean difference of two pictures, 0 to 255."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)
