"""The Compose file of several regions is valid, and its parts are about the same testers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobtester.simulator.leaderboard.leaderboard import SEEDED_REGIONS

HOME = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services of the file as Compose reads it; no engine is needed for that."""
    if shutil.which("docker") is None:
        pytest.skip("no docker compose")
    command = [
        "docker", "compose", "--file", "compose/regions.yml", "--project-directory", ".", "config", "--format", "json"
    ]  # fmt: skip
    # In a session of its own: what docker starts holds the pipes and would keep a test waiting that has given up.
    process = subprocess.Popen(
        command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.skip("docker compose does not come to an end")
    if "is not a docker command" in errors:
        pytest.skip("no docker compose")
    assert process.returncode == 0, errors
    read: dict[str, Any] = json.loads(output)["services"]
    return read


def find_testers(services: dict[str, Any]) -> dict[str, Any]:
    """Return the testers among the services."""
    return {name: service for name, service in services.items() if name.startswith("tester-")}


def test_each_region_has_its_own_network_store_port_and_time(services: dict[str, Any]) -> None:
    """A gateway asks one tester only, and no orchestrator is tested by two regions at once."""
    testers = find_testers(services)
    regions = [tester["environment"]["JOBTESTER_REGION"] for tester in testers.values()]
    assert len(set(regions)) == 3
    assert set(regions) <= {name for name, _, kind in SEEDED_REGIONS if kind == "ai"}
    for key in ("JOBTESTER_SCHEDULE__OFFSET", "JOBTESTER_GATEWAYS__0__URL", "JOBTESTER_GATEWAYS__0__CLI_URL"):
        assert len({tester["environment"][key] for tester in testers.values()}) == 3, key
    assert len({tester["ports"][0]["published"] for tester in testers.values()}) == 3
    assert len({volume["source"] for tester in testers.values() for volume in tester["volumes"]}) == 4
    assert {tester["environment"]["JOBTESTER_LEADERBOARD__URL"] for tester in testers.values()} == {
        "http://network-fra:8080"
    }
    for name, tester in testers.items():
        region = name.removeprefix("tester-")
        assert tester["environment"]["JOBTESTER_REGION"] == region.upper()
        network = services[f"network-{region}"]
        assert f"--webhook=http://{name}:7934/orchestrators" in network["command"]
        assert f"--node-host=network-{region}" in network["command"]


def test_prometheus_scrapes_every_tester(services: dict[str, Any]) -> None:
    """With the rules of one region, from the file that the service reads."""
    assert "--config.file=/etc/prometheus/prometheus-regions.yml" in services["prometheus"]["command"]
    text = (HOME / "monitoring/prometheus-regions.yml").read_text("utf-8")
    assert set(re.findall(r'"([\w-]+):7934"', text)) == find_testers(services).keys()
    assert "alerts.yml" in text
    assert "profiles" not in services["grafana"]
