"""The documentation says what is so: links, commands, keys, routes, codes and tables are held against the program."""

from __future__ import annotations

import argparse
import re
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.__main__ import PARTS
from jobtester import __version__
from jobtester.cli.parser import make_parser
from jobtester.daemon import config_watcher
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.plan import SKIP_REASONS
from jobtester.domain.reasons import REASONS, Verdict
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.simulator import scenario
from tests.harness import pages
from tests.harness.pages import Page
from tests.harness.program import every_command, fits, is_variable, routes, series, subcommands
from tools import documentation_tables as tables
from tools.documentation_tables import ROOT

EVERY = pages.all_pages()
LOCAL = ("http://127.0.0.1:",)

each_page = pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)


def test_the_floors_are_those_that_lint_holds() -> None:
    """What may import what stands in CONTRIBUTING as import-linter checks it, and every module has its floor there."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    floors = [re.split(r" [|:] ", layer.replace("jobtester.", "")) for layer in layers]
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    listed = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert listed is not None
    assert [line.split(", ") for line in listed[1].splitlines()] == floors
    modules = {
        path.stem for path in (ROOT / "jobtester").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert modules - {"__init__", "__main__", "simulator"} == {name for floor in floors for name in floor}


@each_page
def test_links_lead_somewhere(page: Page) -> None:
    """Files and headings that are linked exist, and no link leads out of the repository."""
    for link in page.links:
        if link.startswith(LOCAL):
            continue
        assert "://" not in link, f"{link} leads elsewhere"
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.is_file(), f"{link}: no such file"
        if anchor:
            assert anchor in Page(target).anchors, f"{link}: no such heading"


def test_every_page_is_reached_from_the_readme() -> None:
    """Nobody has to guess a file's name."""
    seen, todo = set(), [EVERY[0]]
    while todo:
        page = todo.pop()
        seen.add(page.path)
        for link in page.links:
            target = (page.path.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target not in seen and target.is_file():
                todo.append(Page(target))
    assert {page.path for page in EVERY} <= seen


@each_page
def test_generated_tables_are_those_of_the_program(page: Page) -> None:
    """`make docs` would change nothing."""
    assert tables.filled(page.text) == page.text, f"{page.name} is not up to date; run: make docs"


def test_every_table_is_on_some_page() -> None:
    """Nothing is made for nobody."""
    assert all(any(f"<!-- table: {name} -->" in page.text for page in EVERY) for name in tables.TABLES)


@each_page
def test_commands_exist(page: Page) -> None:
    """This version understands every command on a page."""
    for words in page.commands:
        _assert_command(words)
    for code in page.inline:
        if code.split()[0] in ("jobtester", "make") and "<" not in code and code not in ("jobtester", "make"):
            _assert_command(code.split(), partly=True)


def _assert_command(words: list[str], *, partly: bool = False) -> None:
    """Assert that a command, or the beginning of one, is known. Those of other programs are looked into."""
    shown = " ".join(words)
    words = [word for word in words if not word.startswith((">", "<"))]  # redirections are the shell's
    match words:
        case ["jobtester" | ".venv/bin/jobtester", *rest]:
            _assert_jobtester_command(rest, partly)
        case ["make", *rest]:
            targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            for word in rest:
                assert "=" in word or word in targets, f"{shown}: no such target"
        case ["docker", "compose", "exec", "job-tester", "jobtester", *rest]:
            _assert_jobtester_command(rest, partly)
        case ["docker", "run", *rest]:
            _assert_jobtester_command(rest[rest.index("livepeer-job-tester") + 1 :], partly)
        case ["docker", "compose" | "build", *_]:
            assert (ROOT / "docker-compose.yml").is_file()
            assert (ROOT / "Dockerfile").is_file()
        case ["export", assignment]:
            assert is_variable(assignment.partition("=")[0]), f"{shown}: no such key"
        case ["git", "pull" | "clone", *_] | ["cd", _] | ["source", ".venv/bin/activate"]:
            pass
        case ["cp", source, _]:
            assert (ROOT / source).is_file(), f"{shown}: no such file"
        case ["curl", *rest]:
            address = rest[-1]
            path = address.removeprefix("http://127.0.0.1:7934").partition("?")[0]
            method = rest[rest.index("-X") + 1] if "-X" in rest else "GET"
            assert any(verb == method and fits(route, path) for verb, route in routes()), f"{shown}: no such route"
        case _:
            pytest.fail(f"{shown}: not a command that is known here")


def _assert_jobtester_command(words: list[str], partly: bool) -> None:
    """Assert that the program's own parser takes these words."""
    parser: argparse.ArgumentParser = make_parser()
    at = 0
    while at < len(words):
        below = subcommands(parser)
        if below is None:
            break
        if words[at] == "--version":
            return
        assert words[at] in below, f"jobtester {' '.join(words)}: no such command"
        parser, at = below[words[at]], at + 1
    options = {option for action in parser._actions for option in action.option_strings}
    for word in words[at:]:
        assert not word.startswith("-") or word in options, f"jobtester {' '.join(words)}: no {word}"
    if not partly:
        try:
            make_parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"jobtester {' '.join(words)}: refused")


@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_help_names_the_built_in_networks(command: str) -> None:
    """A page that lets you choose lists what there is."""
    below = subcommands(make_parser())
    assert below is not None
    assert f"a built-in network: {', '.join(scenario.builtin_names())}" in " ".join(
        below[command].format_help().split()
    )


def test_every_command_is_documented() -> None:
    """The list of commands is whole."""
    commands = " ".join(pages.page_of("routes.md").inline)
    for words in every_command(make_parser(), ()):
        assert f"jobtester {' '.join(words)}" in commands, f"{' '.join(words)} is missing in docs/routes.md"


@each_page
def test_files_named_in_the_text_exist(page: Page) -> None:
    """A path that begins with one of our folders is there."""
    for code in page.inline:
        if re.fullmatch(r"(jobtester|tests|docs|assets|monitoring|requirements|benchmarks)/[\w./-]*", code):
            assert (ROOT / code).exists(), f"{code}: no such file"


def test_routes_are_those_of_the_program() -> None:
    """Each route is listed, and each that is listed exists."""
    listed = {
        tuple(cell[0].strip("`").split(" ", 1)) for cell in pages.page_of("routes.md").table("Which routes are there?")
    }
    assert listed == routes()


@each_page
def test_routes_named_in_the_text_exist(page: Page) -> None:
    """A method with a path is a route of ours, or of a gateway or the Leaderboard on the pages about them."""
    foreign: tuple[str, ...] = ("/getNetworkCapabilities", "/registeredOrchestrators", "/getOrchestratorAICapabilities")
    foreign += ("/v3/rtmpconns", "/in/", "/out/")  # routes of the listener for live video, which is another
    for code in page.inline:
        match = re.fullmatch(r"(GET|POST) (/\S*)", code)
        if match and not match[2].startswith(foreign):
            assert any(
                method == match[1] and (route == match[2] or fits(route, match[2])) for method, route in routes()
            )


@each_page
def test_metrics_named_in_the_text_exist(page: Page) -> None:
    """A series named in the text is one that /metrics exports."""
    exported = series()
    for code in page.inline:
        if re.fullmatch(r"jobtester_[a-z_]+[a-z]", code):
            assert code in exported, f"{code}: no such series"


def test_listed_metrics_exist() -> None:
    """The table of series is about series that there are."""
    exported = series()
    for _, names in pages.page_of("routes.md").table("What is in the metrics?"):
        for name in re.findall(r"`(\w+)`", names):
            assert f"jobtester_{name}" in exported, name


@each_page
def test_reasons_named_in_the_text_exist(page: Page) -> None:
    """A reason code in the text is one of the table's."""
    for code in re.findall(r"reasons? `(\w+)`", page.prose):
        assert code in REASONS or code in SKIP_REASONS, f"{code}: no such reason"


def test_stat_fields_are_those_that_are_posted() -> None:
    """The page lists each field of a stat, in the order in which they are sent."""
    job = Job(
        id="1", tick="t", orchestrator=Orchestrator("0x" + "1" * 40, "https://o"),
        capability=Capability("llm", "m", warm=True), pipeline_name="Llm", timeout_s=1.0, expected_s=1.0,
    )  # fmt: skip
    result = Result(
        job=job, verdict=Verdict.from_code("ok"), attribution=Attribution(AttributionKind.PROVEN), gateway="g",
        targeting="webhook", started_at=1.0, round_trip_s=1.0, status=200, request="{}", response="{}",
    )  # fmt: skip
    sent: Mapping[str, Any] = orjson.loads(Stat.from_result(result, "FRA").body)
    heading = "What is sent to the Stats API, field by field?"
    assert [row[0].strip("`") for row in pages.page_of("leaderboard.md").table(heading)] == list(sent)


def test_outbox_states_are_listed() -> None:
    """Each state that `outbox list` may show is explained."""
    from jobtester.store.outbox import STATES

    listed = [
        row[0].strip("`") for row in pages.page_of("leaderboard.md").table("How does each stat arrive exactly once?")
    ]
    assert listed == list(STATES)


def test_keys_that_need_a_restart_are_listed() -> None:
    """Nobody waits for a change that does not come."""
    part = pages.page_of("configuration.md").text.split("These need a restart", 1)[1].split("\n\n", 1)[0]
    assert set(re.findall(r"`(\w+\.\w+)`", part)) == set(config_watcher._RESTART_KEYS)


def test_parts_of_the_bench_are_listed() -> None:
    """The page explains each part that `make bench` runs."""
    listed = {row[0] for row in Page(ROOT / "benchmarks/README.md").table("What is measured, and how?")}
    assert set(PARTS) <= listed


def test_changelog_has_this_version() -> None:
    """The version has one source, and the changelog knows it."""
    versions = [heading for heading in pages.Page(ROOT / "CHANGELOG.md").headings if heading.startswith("[")]
    assert versions[1].startswith(f"[{__version__}]")


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").glob("*.svg")), ids=lambda path: path.name)
def test_pictures_stand_alone(picture: Path) -> None:
    """A picture is well-formed, loads nothing, describes itself, and knows dark pages."""
    text = picture.read_text("utf-8")
    root = ET.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") or root.get("aria-labelledby")
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"(href|src)=|@import|url\((?!#)", text)


def test_help_lists_the_targets() -> None:
    """`make help` names what the pages name."""
    shown = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    assert "docs-check" in shown
