"""Settings refuse gateways that cannot be distinguished, however they are written, and accept all others."""

from __future__ import annotations

from typing import Any

import pytest

from jobtester.errors import ConfigError
from jobtester.settings.model import Settings

ONE: dict[str, Any] = {"name": "a", "url": "http://gateway.example:8935", "cli_url": "http://gateway.example:7935"}


def load_gateways(*gateways: dict[str, Any]) -> Settings:
    """Check a configuration with these gateways."""
    server = {"events_token": "t"}
    return Settings.from_tables(
        {"region": "FRA", "leaderboard": {"post": False}, "server": server, "gateways": list(gateways)}
    )


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "a", "url": "http://other.example"}, "two are called 'a'"),
        ({"name": "A", "url": "http://other.example"}, "two are called 'A'"),
        ({"name": "b", "url": "http://gateway.example:8935"}, "is given twice"),
        ({"name": "b", "url": "HTTP://Gateway.Example:8935/"}, "is given twice"),
        ({"name": "b", "url": "http://gateway.example.:8935"}, "is given twice"),
        ({"name": "b", "url": "http://user:pass@other.example"}, "has to be without user and password"),
        ({"name": "b", "url": "http://other.example", "events": True, "event_source": "A"}, "themselves 'A' in events"),
        ({"name": "b", "url": "http://other.example:0"}, "gateways[1].url"),
        ({"name": "b c", "url": "http://other.example"}, "gateways[1].name"),
    ],
)  # fmt: skip
def test_gateways_that_are_the_same_are_refused(other: dict[str, Any], words: str) -> None:
    """One name, one place and one name in events each: else leases or evidence of two would be mixed up."""
    with pytest.raises(ConfigError) as caught:
        load_gateways(ONE | {"events": True}, other)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ONE, {"name": "b", "url": "http://gateway.example:8936"}),
        (ONE | {"url": "http://proxy.example/one"}, {"name": "b", "url": "http://proxy.example/two"}),
        (ONE | {"url": "http://[2001:db8::1]:8935"}, {"name": "b", "url": "http://[2001:db8::2]:8935"}),
        (ONE | {"events": True, "event_source": "x"}, {"name": "x", "url": "http://other.example"}),
    ],
)
def test_gateways_that_differ_are_accepted(first: dict[str, Any], second: dict[str, Any]) -> None:
    """By port, by path behind one proxy, by address; and a name in events matters only where events are expected."""
    assert len(load_gateways(first, second).gateways) == 2


def test_the_name_of_live_runners_is_taken_while_they_are_tested() -> None:
    """Results would name a gateway and the orchestrators themselves alike."""
    gateway = {"name": "Live-Runner", "url": "http://gateway.example:8935"}
    assert not load_gateways(gateway).live_runner.enabled
    with pytest.raises(ConfigError, match="'live-runner' stands for the orchestrators themselves"):
        Settings.from_tables({"leaderboard": {"post": False}, "gateways": [gateway], "live_runner": {"enabled": True}})
