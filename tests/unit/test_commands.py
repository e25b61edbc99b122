"""Pure parts of the commands: exit codes, closing remarks, local URLs, changed settings, converted configurations."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import structlog

from jobtester.cli.completion import print_completion
from jobtester.cli.config_import import convert
from jobtester.cli.healthcheck import local_url
from jobtester.cli.parser import SHELLS, make_parser
from jobtester.cli.run import closing_remarks, exit_code
from jobtester.cli.tables import make_console
from jobtester.configuration import Configuration
from jobtester.daemon.config_watcher import diff_settings
from jobtester.domain.plan import Selection
from jobtester.domain.tick_report import TickReport
from jobtester.logs import configure_logs, set_verbosity


def make_report(state: str = "finished", *, planned: int = 2, **outcomes: int) -> TickReport:
    """Return the report of a tick with these outcomes."""
    report = TickReport("t", "run", 1.0, planned=planned, orchestrators=2, state=state, finished_at=2.0)
    report.outcomes = Counter(outcomes)
    return report


@pytest.mark.parametrize(
    ("report", "undelivered", "strict", "code"),
    [
        (make_report(passed=2), {}, False, 0),
        (make_report(passed=1, failed=1), {}, False, 0),
        (make_report(passed=1, failed=1), {}, True, 1),
        (make_report(passed=2), {"refused": 1}, False, 1),
        (make_report("suspect", passed=1), {}, False, 0),
        (make_report("failed"), {}, False, 1),
        (make_report("aborted", passed=1), {}, False, 1),
        (make_report(unscored=2), {}, False, 3),
        (make_report(planned=0), {}, True, 3),
    ],
)
def test_exit_codes(report: TickReport, undelivered: dict[str, int], strict: bool, code: int) -> None:
    """0 completed, 1 not completed, undelivered or strictly failed, 3 nothing tested."""
    assert exit_code(report, [], undelivered, strict=strict) == code


@pytest.mark.parametrize("reason", ["not_targeted", "gateway_lost", "deadline", "stopped"])
def test_a_strict_run_wants_everything_tested(reason: str) -> None:
    """A skip that says nothing about an orchestrator is 3 under --fail-on-failed, and 0 without."""
    report = make_report(passed=1)
    report.skipped[reason] = 1
    assert exit_code(report, [], {}, strict=True) == 3
    assert exit_code(report, [], {}, strict=False) == 0


def test_closing_remarks_name_filters_and_undelivered_stats() -> None:
    """Nothing is said after a tick that was tested and delivered."""
    assert closing_remarks(make_report(passed=1), {}, Selection()) == []
    (line,) = closing_remarks(make_report(planned=0), {}, Selection(models=("x",)))
    assert "no job of the 2 orchestrators matches --model x" in line
    selection = Selection(pipelines=("weathr",))
    (line,) = closing_remarks(make_report(planned=0), {}, selection, ["no pipeline weathr is defined"])
    assert line == "nothing was tested: no pipeline weathr is defined"
    assert closing_remarks(make_report(passed=1), {}, selection, ["no pipeline weathr is defined"]) == [
        "no pipeline weathr is defined"
    ]
    (line,) = closing_remarks(make_report(unscored=2), {}, Selection())
    assert "none of the 2 jobs was scored" in line
    (line,) = closing_remarks(make_report(passed=1), {"refused": 2, "pending": 1}, Selection())
    assert line == "not at the Leaderboard yet: 2 refused, 1 pending; see jobtester outbox list"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("", "http://127.0.0.1:1"),
        ("*", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("fe80::1", "http://[fe80::1]:1"),
        ("10.0.0.1", "http://10.0.0.1:1"),
    ],
)
def test_a_daemon_is_reached_from_its_own_machine(host: str, url: str) -> None:
    """Whatever address it listens on."""
    assert local_url(host, 1) == url


def test_every_command_has_a_function_as_handler() -> None:
    """The parser binds functions and no names, so that a missing one fails here."""
    for words in (["serve"], ["run"], ["plan"], ["check"], ["results"], ["demo"], ["simulate"], ["healthcheck"]):
        assert callable(make_parser().parse_args(words).handler), words


def test_changed_settings_are_listed_by_key() -> None:
    """Old and new value of each, `-` for an absent one, and secrets masked."""
    content = {
        "gateways": [{"name": "g", "url": "http://g"}],
        "leaderboard": {"post": False},
        "server": {"admin_token": "old-secret"},
    }
    before = Configuration.from_tables(content, origin="test").settings
    after = Configuration.from_tables(
        content
        | {
            "gateways": [{"name": "g", "url": "http://h"}],
            "server": {"admin_token": "new-secret"},
            "region": "FRA",
        },
        origin="test",
    ).settings
    changes = diff_settings(before, after)
    assert "→ http://h" in changes["gateways[0].url"]
    assert "region" in changes
    assert "secret" not in str(changes)
    assert diff_settings(before, before) == {}


def test_a_minimal_configuration_of_the_go_tester_is_converted() -> None:
    """Its defaults are written out, and each decision has a remark."""
    content, remarks = convert({"broadcasterJobEndpoint": "http://g:8935", "unknownKey": 1})
    assert content["region"] == "NYC"
    assert content["server"] == {"host": "0.0.0.0", "port": 7934}
    assert content["gateways"] == [{"name": "tester", "url": "http://g:8935"}]
    assert "pipelines" not in content
    assert any("unknownKey has no meaning here" in remark for remark in remarks)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command_and_its_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script of each shell names all commands, and options of the last one that was added."""
    assert print_completion(make_parser().parse_args(["completion", shell])) == 0
    script = capsys.readouterr().out
    for word in ("serve", "run", "outbox", "healthcheck", "completion", "no-post", "verbose", "leaderboard-rows"):
        assert word in script, word


def test_bash_reads_its_completion_and_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The beginning of a command, of an action below it and of an option."""
    print_completion(make_parser().parse_args(["completion", "bash"]))
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    for line, expected in ((["health"], "healthcheck"), (["outbox", "re"], "retry"), (["run", "--no-p"], "--no-post")):
        words = " ".join(["jobtester", *line])
        code = (
            f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(line)}; "
            "$(complete -p jobtester | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False, timeout=20)
        assert expected in done.stdout.split(), (line, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("option", "level"), [("--quiet", "error"), ("-q", "error"), ("-v", "debug"), ("--verbose", "debug"), ("", "info")]
)
def test_the_command_line_sets_the_level_of_the_log(option: str, level: str) -> None:
    """Over the configuration, whichever that asks for; both at once are refused."""
    options = make_parser().parse_args(["serve", *([option] if option else [])])
    written = io.StringIO()
    set_verbosity(options.verbosity)
    try:
        configure_logs("info", "json", written)
        for name in ("debug", "info", "warning", "error"):
            getattr(structlog.get_logger(), name)("event")
    finally:
        set_verbosity("normal")
        configure_logs()
    assert json.loads(written.getvalue().splitlines()[0])["level"] == level
    with pytest.raises(SystemExit):
        make_parser().parse_args(["serve", "-q", "-v"])


@pytest.mark.parametrize(
    ("columns", "width"), [("80", 80), ("", 180), ("wide", 180), ("0", 180), ("9" * 30, 180), ("120", 120)]
)
def test_piped_tables_are_as_wide_as_columns(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonsense counts as nothing, and then lines are wide."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert make_console().width == width
