"""Values on pages are short, and no text from outside can look like another."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from jobtester.domain.orchestrators import shorten_address
from jobtester.web import template_filters as filters
from jobtester.web.schemas.full_results import CheckSchema


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("a\r\nb", "a\nb"),
        ("bell\x07", "bell␇"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        (Markup("<b>\x1b</b>"), Markup("<b>␛</b>")),
        (7, 7),
    ],
)
def test_control_characters_are_shown(text: object, shown: object) -> None:
    """Control characters and direction marks are seen instead of obeyed; other values stay as they are."""
    assert filters.show_control_characters(text) == shown


def test_instants_are_utc() -> None:
    """An instant is written for people and for programs; none is empty."""
    assert filters.format_instant(0.5) == "1970-01-01 00:00:00 UTC"
    assert filters.format_instant(None) == ""
    assert filters.format_iso(86_400) == "1970-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("size", "limits", "shown"),
    [
        ((256, 128), (320, 320), (256, 128)),
        ((1024, 576), (320, 320), (320, 180)),
        ((576, 1024), (320, 320), (180, 320)),
        ((0, 0), (320, 320), (320, 320)),
        ((960, 1200), (480, 2000), (480, 600)),
        ((10_000, 1), (320, 320), (320, 1)),
    ],
)
def test_a_picture_has_the_place_that_it_needs(
    size: tuple[int, int], limits: tuple[int, int], shown: tuple[int, int]
) -> None:
    """Its sides keep their ratio within the limits; one of unknown size gets a square."""
    assert filters.fit_picture(size, limits) == 'width="{}" height="{}"'.format(*shown)


def test_long_texts_are_cut() -> None:
    """Addresses keep both ends, other texts their beginning; short ones are whole."""
    assert shorten_address("0x" + "ab" * 20) == "0xababab…abab"
    assert shorten_address("0xab") == "0xab"
    assert filters.abbreviate("x" * 121) == "x" * 120 + "…"


def test_json_is_indented_and_other_text_is_not() -> None:
    """What is recorded of an answer may be any text."""
    assert filters.indent_json('{"a":1}') == '{\n  "a": 1\n}'
    assert filters.indent_json("{cut") == "{cut"


def test_a_check_shows_only_parameters_that_were_chosen() -> None:
    """Proves that defaults are left out, and that a check of another version keeps everything."""
    chosen = CheckSchema(check="json", parameters={"path": "city", "equals": "Tokyo", "max_length": 10**9})
    assert filters.choose_parameters(chosen) == {"path": "city", "equals": "Tokyo"}
    unknown = CheckSchema(check="of-tomorrow", parameters={"path": "city"})
    assert filters.choose_parameters(unknown) == {"path": "city"}


def test_evidence_that_the_message_has_is_not_repeated() -> None:
    """Proves that only what the message leaves out is listed below it."""
    lines = ("the gateway asked 140 times: 20 attempts failed", "metric: nothing moved")
    message = "No answer. The gateway asked 140 times: 20 attempts failed."
    assert filters.leave_out_repeated(lines, message) == ["metric: nothing moved"]
