"""What the settings let in: whose events are believed, and where result files may come from."""

from __future__ import annotations

from typing import Any

import pytest

from jobtester.errors import ConfigError
from jobtester.settings.model import Settings


def tables(*, server: dict[str, Any] | None = None, **gateway: Any) -> dict[str, Any]:
    """Return the shortest configuration with these keys of the gateway."""
    return {
        "gateways": [{"name": "g", "url": "http://gateway:8935", **gateway}],
        "leaderboard": {"post": False},
        "server": server or {},
    }


def test_events_need_a_token_or_an_explicit_empty_one() -> None:
    """Events prove and refute results, so that nobody is believed by default."""
    with pytest.raises(ConfigError, match=r"server\.events_token: needed with gateways\.events = true"):
        Settings.from_tables(tables(events=True))
    Settings.from_tables(tables(events=False))
    for token in ("", "t"):
        assert Settings.from_tables(tables(events=True, server={"events_token": token})).server.events_token is not None


@pytest.mark.parametrize(
    ("network", "stored"), [("10.1.2.3/8", "10.0.0.0/8"), ("fd00::/8", "fd00::/8"), ("10.0.0.1", "10.0.0.1/32")]
)
def test_artifact_networks_are_networks(network: str, stored: str) -> None:
    """Written with or without host bits."""
    assert Settings.from_tables(tables(artifact_networks=[network])).gateways[0].artifact_networks == [stored]


@pytest.mark.parametrize("network", ["10.0.0.0/33", "minio", "http://10.0.0.1", ""])
def test_what_is_no_network_is_refused_with_its_key(network: str) -> None:
    """And with an example."""
    with pytest.raises(ConfigError, match=r"gateways\[0\]\.artifact_networks\[0\]: has to be a network such as"):
        Settings.from_tables(tables(artifact_networks=[network]))
