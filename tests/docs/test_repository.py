"""The files that hosts, installers and editors read agree with each other and with the program."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from tools import make_fixtures
from tools.documentation_tables import ROOT

CI = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")


def _project() -> dict[str, Any]:
    metadata: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return metadata


def test_ci_tests_the_versions_that_the_classifiers_name() -> None:
    """The oldest version is also the one that installers require."""
    prefix = "Programming Language :: Python :: "
    classified = [
        name.removeprefix(prefix) for name in _project()["classifiers"] if re.fullmatch(rf"{prefix}3\.\d+", name)
    ]
    matrix = re.search(r"python: \[(.*)\]", CI)
    assert matrix is not None
    assert re.findall(r'"([\d.]+)"', matrix[1]) == classified
    assert _project()["requires-python"] == f">={classified[0]}"


def test_ci_pins_its_actions() -> None:
    """An action is a full commit hash, with its version as a comment, and no job reads a secret."""
    actions = re.findall(r"uses: (.*)", CI)
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
    assert "secrets." not in CI


def test_ci_runs_targets_that_exist() -> None:
    """A renamed target of the Makefile does not break CI unnoticed."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    used = set(re.findall(r"run: make ([a-z-]+)", CI))
    assert {"lint", "test", "container-test"} <= used <= targets


def test_hooks_run_every_tool_of_lint() -> None:
    """A commit made with the hooks passes `make lint`."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    recipe = (ROOT / "Makefile").read_text("utf-8").split("\nlint:", 1)[1].split("\n\n", 1)[0]
    for tool in re.findall(r"\$\(BIN\)/([\w-]+(?: (?:check|format))?)", recipe):
        assert f".venv/bin/{tool}" in hooks
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}


def test_the_wheel_contains_types_and_assets(tmp_path: Path) -> None:
    """Type checkers of other projects see the annotations, and an installed tester has its inputs."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"jobtester/py.typed", "jobtester/assets/truth.toml", "jobtester/web/static/style.css"} <= names


def test_config_init_writes_the_file_of_the_repository() -> None:
    """What an installed program writes is the commented config.toml that the pages speak of."""
    assert (ROOT / "jobtester/starter.toml").read_text("utf-8") == (ROOT / "config.toml").read_text("utf-8")


def test_fixtures_are_those_of_their_script() -> None:
    """`python -m tools.make_fixtures` would change nothing."""
    assert {path.name: path.read_text("utf-8") for path in make_fixtures.FIXTURES.iterdir()} == make_fixtures.contents()
