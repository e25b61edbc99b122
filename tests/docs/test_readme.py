"""What README shows is so: its commands run as they stand, and the demo prints what it quotes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import GatewaySpec
from tests.harness.pages import Page
from tests.harness.process import clean_environment, write_config
from tools import readme_pictures
from tools.documentation_tables import ROOT

README = Page(ROOT / "README.md")
BLOCKS = README.blocks("sh")


def run(lines: str, folder: Path, **variables: str) -> None:
    """Run lines of a shell block as they stand; each has to succeed."""
    environment: Mapping[str, str] = {**clean_environment(), **variables}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"


def test_these_are_all_blocks_with_commands() -> None:
    """A new block needs a test below."""
    assert [block.split()[0] for block in BLOCKS] == ["git", "docker", ".venv/bin/jobtester"]
    assert not README.blocks("console", "bash")


def test_the_first_block_works_in_a_new_clone(tmp_path: Path) -> None:
    """Clone, go there, and two targets that exist in what was cloned; what they run is tested elsewhere."""
    run(BLOCKS[0].replace("make ", "make --dry-run "), tmp_path, REPOSITORY=str(ROOT))
    assert (tmp_path / "job-tester/README.md").is_file()


def test_compose_accepts_the_files(tmp_path: Path) -> None:
    """`docker compose up -d` finds a valid file; the container tests start it."""
    assert BLOCKS[1].strip() == "docker compose up -d"
    if shutil.which("docker") is None:
        pytest.skip("no docker is installed")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no Compose")
    run(f"docker compose --project-directory {ROOT} config --quiet", tmp_path)


async def test_an_operator_tests_one_orchestrator(tmp_path: Path) -> None:
    """The line runs as it stands, but for the address, and exits with 0 as its orchestrator passes."""
    network = generate(
        seed=1, orchestrators=3, models_per_pipeline=1, pipelines=("llm",), latency_s=(0.0, 0.01), fault_share=0.0,
        gateways=(GatewaySpec(name="gateway", mode="query"),),
    )  # fmt: skip
    (tmp_path / ".venv").symlink_to(sys.prefix)
    async with Network(network) as running:
        write_config(running, tmp_path)
        address = running.scenario.orchestrators[0].address
        await asyncio.to_thread(run, BLOCKS[2].replace("0x…", address), tmp_path)
        assert {job.address.lower() for job in running.logged_jobs} == {address.lower()}


@pytest.mark.slow
def test_the_demo_prints_what_is_quoted() -> None:
    """Every quoted line is one of a new run, apart from numbers and times, and a new cut has the same lines."""
    output = readme_pictures.run_demo()
    quoted = readme_pictures.shapes(readme_pictures.written_cut())
    assert len(quoted) > 8
    assert quoted - {"…"} <= readme_pictures.shapes(output)
    assert readme_pictures.shapes(readme_pictures.cut(output)) - {"…"} == quoted - {"…"}


def test_the_picture_is_small() -> None:
    """It loads fast, and is as wide as the page of a large screen."""
    assert readme_pictures.PICTURE.stat().st_size <= readme_pictures.MAX_PICTURE_BYTES
    with Image.open(readme_pictures.PICTURE) as picture:
        assert picture.width >= 1000
