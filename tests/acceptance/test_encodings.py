"""Any terminal's encoding and a closed pipe are fine for every command that prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from tests.harness.process import clean_environment, run_command_in_thread, write_config


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("latin-1", "cp1252"))]
)
async def test_every_command_prints_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    """Tables, reports and lists hold characters that these encodings lack; none ends in a traceback."""
    scenario = generate(seed=6, orchestrators=2, pipelines=("llm",), latency_s=(0.0, 0.01))
    async with Network(scenario) as network:
        write_config(network, tmp_path)
        for arguments in (["run", "--no-post"], ["results"], ["plan"], ["check"], ["outbox", "list"]):
            done = await run_command_in_thread(tmp_path, *arguments, PYTHONIOENCODING=encoding)
            assert b"Traceback" not in done.stderr + done.stdout, (arguments, done.stderr)
            assert b"UnicodeEncodeError" not in done.stderr, (arguments, done.stderr)
            assert done.stdout, arguments


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_a_closed_pipe_is_no_traceback(encoding: str, tmp_path: Path) -> None:
    """As after `| head -1`, whose reader leaves before the table is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobtester", "--help"], cwd=tmp_path, env=clean_environment(PYTHONIOENCODING=encoding),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(120)
    assert errors == b""
