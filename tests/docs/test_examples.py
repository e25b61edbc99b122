"""Examples of the pages that can be copied work as they stand: a pipeline with a network to try it, and a check."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from jobtester.checks.base import CheckFailedError, CheckInput, Expectation
from jobtester.domain.orchestrators import Capability, Price, RunnerOffer
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue
from jobtester.simulator.network import Network
from jobtester.simulator.scenario import Scenario
from tests.harness import pages
from tests.harness.pages import Page
from tests.harness.process import run_command_in_thread
from tools.documentation_tables import ROOT


async def test_a_pipeline_can_be_tried_without_a_real_network(tmp_path: Path) -> None:
    """The files and the command on the page work as they stand, but for the ports."""
    page, heading = pages.page_of("pipelines.md"), "How do I try a pipeline without a real network?"
    (scenario,), (config,), (commands,) = (page.blocks(language, under=heading) for language in ("text", "toml", "sh"))
    (tmp_path / "network.toml").write_text(scenario, "utf-8")
    simulate, command = (line.removeprefix("jobtester ") for line in commands.splitlines())
    assert simulate == "simulate --scenario network.toml"
    async with Network(Scenario.load(str(tmp_path / "network.toml"))) as running:
        gateway = running.gateways["tester"]
        config = config.replace("http://127.0.0.1:8935", gateway.url).replace("http://127.0.0.1:7935", gateway.cli_url)
        (tmp_path / "config.toml").write_text(config, "utf-8")
        done = await run_command_in_thread(tmp_path, *command.split(), JOBTESTER_SERVER__PORT="0")
        assert done.returncode == 0, done.stderr
        assert b"my-capability my-model: passed" in done.stdout


def uncommented_pipeline() -> str:
    """Return the last example of config.toml, without the marks of its comment."""
    text = (ROOT / "config.toml").read_text("utf-8")
    return "\n".join(line.removeprefix("# ") for line in text[text.index("# [pipelines.my-own]") :].splitlines())


@pytest.mark.parametrize("source", ["config.toml", "pipelines.md"])
async def test_an_added_pipeline_gets_jobs(source: str, tmp_path: Path) -> None:
    """The first example of an added pipeline is planned where an orchestrator advertises it, as the text says."""
    page = pages.page_of("pipelines.md")
    network, config = (
        page.blocks(language, under="How do I try a pipeline without a real network?")[0]
        for language in ("text", "toml")
    )
    example = page.blocks("toml", under="How do I add a pipeline?")[0]
    if source == "config.toml":
        example = uncommented_pipeline()
    (tmp_path / "network.toml").write_text(network.replace("my-capability", "my-own"), "utf-8")
    async with Network(Scenario.load(str(tmp_path / "network.toml"))) as running:
        gateway = running.gateways["tester"]
        config = config.replace("http://127.0.0.1:8935", gateway.url).replace("http://127.0.0.1:7935", gateway.cli_url)
        (tmp_path / "config.toml").write_text(config + example, "utf-8")
        done = await run_command_in_thread(tmp_path, "plan", "--pipeline", "my-own", "--json")
        assert done.returncode == 0, done.stderr
        assert [job["model"] for job in json.loads(done.stdout)["jobs"]] == ["my-model"]


def test_example_amounts_are_those_of_the_estimate() -> None:
    """What a job costs on the pages about live runners and live video is what the plan estimates for that price."""
    catalogue = load_catalogue({}, Assets())
    page = pages.page_of("live-runner.md")
    price = Price(int(re.findall(r"price of (\d+) wei per second", page.text)[0]), 1)
    apps = {
        "hello-world": RunnerOffer("https://o:1/app", "single-shot", "fixed"),
        "runner-chat-completions": RunnerOffer("https://o:1/app", "single-shot", "seconds"),
        "runner-video-echo": RunnerOffer("https://o:1/app", "persistent", "seconds"),
    }
    rows = list(page.table("What does it cost?"))
    assert [row[0].split("`")[1] for row in rows] == list(apps)
    for (slug, runner), row in zip(apps.items(), rows, strict=True):
        estimate = catalogue[slug].estimate_price_wei(Capability(slug, "m", price=price, runner=runner))
        assert f"{Decimal(estimate or 0) / 10**18:f} ETH" == row[-1]
    text = " ".join(pages.page_of("live-video.md").under("What does it cost?").split())
    price = Price(int(re.findall(r"price of (\d+) wei per pixel", text)[0]), 1)
    pixels = catalogue["live-video-to-video"].count_units("m")
    estimate = catalogue["live-video-to-video"].estimate_price_wei(Capability("live-video-to-video", "m", price=price))
    assert pixels is not None
    assert f"{pixels} pixels" in text
    for jobs in (1, 24):
        assert f"{jobs * Decimal(estimate or 0) / 10**18:f} ETH" in text


def test_the_example_of_a_check_works(tmp_path: Path) -> None:
    """The module in CONTRIBUTING can be copied: lint and right answers pass, each wrong one has its finding."""
    (source,) = Page(ROOT / "CONTRIBUTING.md").blocks("python")
    path = tmp_path / "ranking.py"
    path.write_text(source, "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), path], check=True)
    specification = importlib.util.spec_from_file_location("ranking", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ranking", module)  # dataclasses look their module up
        specification.loader.exec_module(module)
    asked = Expectation((), {"documents": ["a", "b", "c"]}, {})
    module.check(CheckInput({"scores": [0.1, 0.9, 0.2]}, asked), module.Params(best=1))
    for scores, code in (
        ([0.1, 0.9], "count"),
        ("high", "count"),
        ([0.1, "x", 0.2], "not_a_number"),
        ([3, 2, 1], "best"),
    ):
        with pytest.raises(CheckFailedError) as caught:
            module.check(CheckInput({"scores": scores}, asked), module.Params(best=1))
        assert caught.value.problem == code
    with pytest.raises(ValueError, match="best"):
        module.Params(best=-1)
