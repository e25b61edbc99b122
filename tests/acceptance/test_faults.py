"""One orchestrator per fault: the shipped demo shows each with the right outcome and reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobtester.simulator.scenario import Scenario

pytestmark = pytest.mark.slow

EXPECTED = {
    "error-503": ("failed", "503"),
    "down": ("failed", "unreachable"),
    "eof": ("failed", "no_reply"),
    "hang": ("failed", "timeout"),
    "null": ("failed", "null"),
    "runner-400": ("failed", "400"),
    "garbage-json": ("failed", "bad_json"),
    "deep-json": ("failed", "bad_json"),
    "endless-body": ("failed", "too_large"),
    "empty-images": ("failed", "check:image"),
    "wrong-shape": ("failed", "check:image"),
    "wrong-size": ("failed", "check:image"),
    "blank-image": ("failed", "check:image"),
    "truncated-image": ("failed", "check:image"),
    "not-an-image": ("failed", "check:image"),
    "bomb-image": ("failed", "check:image"),
    "no-seed-echo": ("failed", "check:image"),
    "flat-video": ("failed", "check:video"),
    "silent-audio": ("failed", "check:audio"),
    "wrong-transcript": ("failed", "check:transcript"),
    "empty-text": ("failed", "check:caption"),
    "wrong-answer": ("failed", "check:chat"),
    "wrong-mask": ("failed", "check:masks"),
    "nan-mask": ("failed", "check:masks"),
    "busy": ("unscored", "busy"),
    "frozen": ("failed", "unreachable"),
    "gone-410": ("unscored", "retired"),
    "empty": ("unscored", "empty"),
    "html": ("unscored", "gateway_fault"),
    "reset-mid-body": ("unscored", "gateway_fault"),
    "gateway-500": ("unscored", "500"),
    "unreachable-artifact": ("unscored", "artifact_unreachable"),
    "slow": ("passed", "ok"),
}


def test_every_fault_has_its_outcome_and_reason() -> None:
    """The table above is the whole scenario, and every line of it is what a person sees."""
    fault_by_address = {node.address: node.fault.replace("_", "-") for node in Scenario.load("faults").orchestrators}
    assert set(fault_by_address.values()) == set(EXPECTED)
    process = subprocess.run(
        [sys.executable, "-m", "jobtester", "demo", "--scenario", "faults", "--json"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    reasons = {
        fault_by_address[result["orchestrator"]]: (result["outcome"], result["reason"])
        for result in json.loads(process.stdout)["results"]
    }
    assert reasons == EXPECTED
    assert "Traceback" not in process.stderr
