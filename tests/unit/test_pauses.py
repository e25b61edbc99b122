"""Maintenance windows of config.toml: when they are on, what they say when they are wrong, and whom they concern."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.plan import SKIP_REASONS, Pause, Selection, make_plan
from jobtester.domain.tick_report import TickReport
from jobtester.errors import ConfigError
from jobtester.settings.model import Settings
from jobtester.settings.operator_sections import PauseSettings

A, B = "0x" + "a" * 40, "0x" + "b" * 40


def load(**pause: Any) -> Settings:
    """Return settings with one window, as a file would give them."""
    return Settings.from_tables(
        {"gateways": [{"url": "http://g:1"}], "leaderboard": {"post": False}, "pause": [{"reason": "why", **pause}]}
    )


def at(text: str) -> datetime:
    """Return an instant."""
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("pause", "moment", "expected"),
    [
        ({"from": "2026-12-24T18:00Z", "until": "2026-12-26"}, "2026-12-24T17:59:59Z", False),
        ({"from": "2026-12-24T18:00Z", "until": "2026-12-26"}, "2026-12-24T18:00:00Z", True),
        ({"from": "2026-12-24T18:00Z", "until": "2026-12-26"}, "2026-12-25T23:59:59Z", True),
        ({"from": "2026-12-24T18:00Z", "until": "2026-12-26"}, "2026-12-26T00:00:00Z", False),
        ({"from": "2026-12-24T18:00Z"}, "2036-01-01T00:00:00Z", True),
        ({"until": "2026-12-24T18:00Z"}, "1996-01-01T00:00:00Z", True),
        # a local time is read in the window's timezone
        ({"from": "2026-12-24T18:00", "timezone": "Europe/Berlin"}, "2026-12-24T16:59:59Z", False),
        ({"from": "2026-12-24T18:00", "timezone": "Europe/Berlin"}, "2026-12-24T17:00:00Z", True),
        # every Sunday from 02:00 for two hours
        ({"cron": "0 2 * * 0", "duration": "2h"}, "2026-12-06T01:59:59Z", False),
        ({"cron": "0 2 * * 0", "duration": "2h"}, "2026-12-06T02:00:00Z", True),
        ({"cron": "0 2 * * 0", "duration": "2h"}, "2026-12-06T03:59:59.5Z", True),
        ({"cron": "0 2 * * 0", "duration": "2h"}, "2026-12-06T04:00:00Z", False),
        ({"cron": "0 2 * * 0", "duration": "2h"}, "2026-12-07T02:30:00Z", False),
        ({"cron": "0 2 * * 0", "duration": "2h", "timezone": "Asia/Tokyo"}, "2026-12-05T17:00:00Z", True),
        # the repetition begins and ends with the window
        ({"cron": "0 2 * * *", "duration": "2h", "from": "2026-12-07"}, "2026-12-06T02:30:00Z", False),
        ({"cron": "0 2 * * *", "duration": "2h", "until": "2026-12-07"}, "2026-12-06T02:30:00Z", True),
        ({"cron": "0 2 * * *", "duration": "2h", "until": "2026-12-07"}, "2026-12-07T02:30:00Z", False),
        # a window that is longer than the time between two of them is always on
        ({"cron": "0 * * * *", "duration": "90m"}, "2026-12-06T02:59:59Z", True),
    ],
)
def test_a_window_is_on_from_its_first_instant_until_before_its_last(
    pause: dict[str, Any], moment: str, expected: bool
) -> None:
    """Once and repeated, in UTC and in other timezones."""
    assert load(**pause).pause[0].is_active(at(moment)) is expected


def test_dates_and_times_are_read_as_toml_and_as_text() -> None:
    """TOML has both without quotes; the environment has texts only."""
    window = load(**{"from": datetime(2026, 12, 24, 18, tzinfo=UTC), "until": date(2026, 12, 26)}).pause[0]
    assert (window.start, window.end) == (at("2026-12-24T18:00Z"), at("2026-12-26T00:00Z"))


@pytest.mark.parametrize(
    ("pause", "message"),
    [
        ({}, "pause[0]: set from, until or both, or cron and duration"),
        ({"from": "soon"}, "pause[0].from: has to be a date and time such as 2026-12-24T18:00:00Z, or a date"),
        ({"until": 5}, "pause[0].until: has to be a date and time such as"),
        ({"from": "2026-12-26", "until": "2026-12-24"}, "pause[0]: until has to be later than from"),
        ({"from": "2026-12-26", "until": "2026-12-26"}, "pause[0]: until has to be later than from"),
        ({"cron": "0 2 * * *"}, "pause[0]: cron and duration go together"),
        ({"duration": "2h"}, "pause[0]: cron and duration go together"),
        ({"cron": "0 25 * * *", "duration": "2h"}, "its hour, '25', is not understood"),
        ({"cron": "0 2 * * *", "duration": "0s"}, "pause[0].duration: has to be longer than 0"),
        ({"until": "2026-12-24", "timezone": "Mars"}, "pause[0].timezone: no timezone is called 'Mars'"),
        ({"until": "2026-12-24", "reason": ""}, "pause[0].reason: "),
        (
            {"until": "2026-12-24", "orchestrator": []},
            "pause[0].orchestrator: no such key; did you mean orchestrators?",
        ),
    ],
)
def test_a_wrong_window_is_refused_with_one_message_that_names_the_key(pause: dict[str, Any], message: str) -> None:
    """What is said of one key says nothing of the others."""
    with pytest.raises(ConfigError) as refused:
        load(**pause)
    assert message in str(refused.value)
    assert len(refused.value.problems) == 1, refused.value.problems


def test_a_paused_orchestrator_is_skipped_with_the_operators_words() -> None:
    """By address or service URI, all where none is named; what is excluded anyway says that."""
    orchestrators = [
        Orchestrator(address, uri, (Capability("llm", "m"), Capability("llm", "n")))
        for address, uri in ((A, "https://a.example:8935"), (B, "https://b.example:8935"))
    ]
    for names, paused in (((A,), {A}), (("b.example:8935",), {B}), ((), {A, B})):
        selection = Selection(pauses=(Pause(names, "new GPUs"),))
        plan = make_plan(orchestrators, {}, selection, tick="t", seed=1, new_id=str)
        skips = [skip for skip in plan.skipped if skip.reason == "paused"]
        assert {skip.orchestrator for skip in skips} == paused
        assert {(skip.note, skip.explanation) for skip in skips} == {("new GPUs", "new GPUs")}
        report = TickReport("t", "test", 1.0)
        report.set_plan(plan)
        assert report.as_json()["pauses"] == {"new GPUs": 2 * len(paused)}
    selection = Selection(exclude=(A,), pauses=(Pause((), "new GPUs"),))
    plan = make_plan(orchestrators[:1], {}, selection, tick="t", seed=1, new_id=str)
    assert {(skip.reason, skip.note) for skip in plan.skipped} == {("excluded", "")}
    assert "paused" in SKIP_REASONS
    assert PauseSettings.model_fields.keys() >= {"from", "until"}
