"""Ctrl-C while a command still imports its modules: it ends at once, with exit code 130 and without a word."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import clean_environment

COMMANDS = (
    "serve", "run", "plan", "check", "config show", "results", "outbox list", "tick release", "simulate", "demo",
    "healthcheck",
)  # fmt: skip


def run_and_interrupt(folder: Path, arguments: list[str], module: str) -> tuple[int, str]:
    """Run a command, press Ctrl-C when it has imported a module, and return its exit code and what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "jobtester", *arguments],
        cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    printed = []
    for line in process.stderr:
        if not line.startswith("import time:"):
            printed.append(line)
        elif line.rpartition("|")[2].strip() == module:
            process.send_signal(signal.SIGINT)
    process.wait(60)
    assert process.stdout is not None
    printed.append(process.stdout.read())
    process.stdout.close()
    process.stderr.close()
    # Where the signal meets code that is run from a string, as dataclasses are made, Python ends itself by the signal
    # although the exception was handled. Shells show the code 130 for both.
    code = 128 - process.returncode if process.returncode < 0 else process.returncode
    return code, "".join(printed)


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_during_imports_prints_no_traceback(tmp_path: Path, command: str) -> None:
    """The parser has just been imported, and what the command itself needs is next."""
    assert run_and_interrupt(tmp_path, command.split(), "argparse") == (130, "")


@pytest.mark.parametrize("module", ["asyncio", "pydantic", "structlog", "aiohttp.client"])
def test_ctrl_c_during_any_import_prints_no_traceback(tmp_path: Path, module: str) -> None:
    """Whichever module it meets, those written in C included."""
    assert run_and_interrupt(tmp_path, ["demo"], module) == (130, "")
