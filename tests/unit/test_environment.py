"""Variables and secret files: what is taken, what is refused with key and variable, and every problem in one pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as steady
from hypothesis import strategies as st

from jobtester.configuration import Configuration
from jobtester.errors import ConfigError
from jobtester.settings.environment import OutsideValues, merge_entries, variable_name
from jobtester.settings.model import Settings, check_tables
from jobtester.settings.schema import iterate_key_paths
from jobtester.settings.sections import Tables

GOOD: dict[str, Any] = {
    "region": "FRA",
    "leaderboard": {"post": False},
    "gateways": [{"name": "a", "url": "http://gateway.example:8935"}],
}


@pytest.fixture(autouse=True)
def no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read no secret files but those that a test writes."""
    monkeypatch.setenv("JOBTESTER_SECRETS_DIR", str(tmp_path))


def problems(content: dict[str, Any] = GOOD) -> list[str]:
    """Return every line that is said of a configuration; none if it is usable."""
    try:
        Configuration.from_tables(content, origin="test")
    except ConfigError as error:
        return [line.removeprefix("  ") for line in str(error).splitlines()[1:]]
    return []


TAKEN: list[tuple[str, str, Any]] = [
    ("DISCOVERY__EXCLUDE", "0xabc,0xdef", ["0xabc", "0xdef"]),
    ("DISCOVERY__EXCLUDE", " 0xabc , 0xdef, ", ["0xabc", "0xdef"]),
    ("DISCOVERY__EXCLUDE", "0xabc", ["0xabc"]),
    ("DISCOVERY__EXCLUDE", '["0xabc", "a,b"]', ["0xabc", "a,b"]),
    ("DISCOVERY__EXCLUDE", "", []),
    ("DISCOVERY__EXCLUDE__0", "0xabc", ["0xabc"]),
    ("DISCOVERY", '{"exclude": ["0xabc"]}', ["0xabc"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), TAKEN)
def test_lists_are_taken_in_every_form(
    name: str, text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With commas, as JSON, one by one, and within a table."""
    monkeypatch.setenv(f"JOBTESTER_{name}", text)
    assert Settings.from_tables(GOOD).discovery.exclude == expected


REFUSED = [
    ("DISCOVERY__EXCLUDE", '["0xabc"', "discovery.exclude: has to be a list: write it as JSON, or separate"),
    ("DISCOVERY__EXCLUDE", '{"a": 1}', "discovery.exclude: has to be a list"),
    ("DISCOVERY__EXCLUDE", "[1]", "discovery.exclude[0]: "),
    ("DISCOVERY__ORCHESTRATORS", "0xabc,0xdef", "discovery.orchestrators: has to be a list"),
    ("DISCOVERY__ORCHESTRATORS", "", "discovery.orchestrators: has to be a list"),
    ("DISCOVERY__ORCHESTRATORS", '["0xabc"]', "discovery.orchestrators[0]: "),
    ("DISCOVERY", "0xabc", "discovery: has to be a table"),
    ("DISCOVERY", "", "discovery: has to be a table"),
    ("GATEWAYS", "http://g:1,http://h:1", "gateways: has to be a list"),
    ("GATEWAYS", "7", "gateways: has to be a list"),
    ("GATEWAYS__URL", "http://g:1", "gateways is a list: a number has to follow"),
    ("GATEWAYS__-1__URL", "http://g:1", "gateways is a list: a number has to follow"),
    ("GATEWAYS__0", "http://g:1", "gateways[0]: has to be a table"),
    ("GATEWAYS__0__ULR", "http://g:1", "gateways[0].ulr: no such key; did you mean url?"),
    ("GATEWAYS__3__URL", "http://g:1", "gateways[3].url: would leave a gap: the list has 1, so the next one is"),
    ("DISCOVERY__EXCLUDE__1", "0xabc", "discovery.exclude[1]: would leave a gap: the list has 0"),
    ("SERVER__PORT", "", "server.port: "),
    ("SERVER__PORT", "many", "server.port: "),
    ("SERVER__PORT__X", "1", "server.port is a single value"),
    ("SERVER____PORT", "1", "a part of the name is empty"),
    ("REGION__NAME", "FRA", "region is a single value"),
    ("PIPELINES", "llm", "pipelines: has to be a table"),
    ("PIPELINES__LLM", "x", "pipelines.llm: has to be a table"),
    ("PIPELINES__LLM__MODELS", "a,b", "pipelines.llm.models: "),
    ("SCHEDULE__CRON", "61 * * * *", "schedule.cron: "),
    ("SCHEDULE__CRON", "0 0 30 2 *", "schedule.cron: '0 0 30 2 *' is a cron expression that never fires"),
    ("SCHEDULE__INTERVAL", "9" * 400 + "d", "schedule.interval: has to be at most"),
    ("LIMITS__MAX_RESPONSE", "9" * 400 + "GiB", "limits.max_response: "),
    ("REGION", "\udcff", "region: is not UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "problem"), REFUSED, ids=[f"{case[0]}={case[1][:9]!r}" for case in REFUSED])
def test_anything_else_is_refused_by_key_and_variable(
    name: str, text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line each, whatever is wrong."""
    monkeypatch.setenv(f"JOBTESTER_{name}", text)
    (line,) = problems()
    assert line.startswith(problem)
    assert "PIPELINES__LLM__" in name or line.endswith(f"(in JOBTESTER_{name})"), line


@given(
    path=st.sampled_from([variable_name(path) for path in iterate_key_paths(Settings)]),
    more=st.sampled_from(["", "__0", "__7", "__X", "__0__X", "__", "__0__0"]),
    text=st.text(max_size=30) | st.sampled_from(["[", "{", "[]", "{}", '[{"a":1}]', "null", "1e999", "[" * 2000]),
)
@steady(max_examples=600)
def test_no_variable_ends_in_anything_but_a_message(path: str, more: str, text: str) -> None:
    """Every key, and places around it, with any text."""
    entries = OutsideValues.from_variables({path + more: text}, Settings)
    tables, _ = merge_entries(GOOD, entries.entries, Settings)
    repaired, lines = check_tables(tables, {})
    assert isinstance(repaired, dict)
    if not lines:
        assert Tables.model_validate(repaired)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("discovery__exclude", b"0xabc", None),
        ("discovery__exclude", b'["0xabc"', "discovery.exclude: has to be a list"),
        ("discovery__orchestrators", b"0xabc", "discovery.orchestrators: has to be a list"),
        ("discovery__patience", b"soon", "discovery.patience: "),
        ("leaderboard__secret", b"\xff\xfe", "{}: the secret file is not UTF-8 text"),
        ("leaderboard__secert", b"x", "leaderboard.secert: no such key; did you mean secret?"),
        ("gateways__2__token", b"x", "gateways[2].token: would leave a gap"),
        ("eth__password", b"\xff", None),
    ],
)
def test_secret_files(name: str, text: bytes, problem: str | None, tmp_path: Path) -> None:
    """As variables: taken, or refused in one line that names the file. Those of others are passed over."""
    (tmp_path / name).write_bytes(text)
    lines = problems()
    if problem is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(problem.format(tmp_path / name))
        assert str(tmp_path / name) in line


def test_every_problem_is_named_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown keys, types, rules over several keys, pipelines, test inputs, variables and secret files together."""
    monkeypatch.setenv("JOBTESTER_SHEDULE__INTERVAL", "5m")
    monkeypatch.setenv("JOBTESTER_SERVER_PORT", "5")
    monkeypatch.setenv("JOBTESTER_DISCOVERY__ORCHESTRATORS", "x")
    (tmp_path / "notify__secret").write_bytes(b"\xff")
    content = {
        "regoin": "FRA",
        "schedule": {"interval": "soon", "cron": "61 * * * *"},
        "server": {"port": "x", "hots": "::"},
        "gateways": [
            {"name": "a", "url": "gopher://x", "overlap": True, "metrics": False, "retry_window": -1},
            {"name": "a", "tagreting": "query"},
        ],
        "leaderboard": {"url": "leaderboard.example"},
        "discovery": {"source": "static"},
        "pipelines": {
            "llm": {"modelz": []},
            "upscale": {"files": {"image": "nothing.png"}},
            "text-to-image": 3,
        },
    }
    lines = problems(content)
    expected = [
        "JOBTESTER_SHEDULE__INTERVAL: no such key; did you mean JOBTESTER_SCHEDULE__INTERVAL?",
        "JOBTESTER_SERVER_PORT: no such key; did you mean JOBTESTER_SERVER__PORT?",
        "discovery.orchestrators: has to be a list",
        f"{tmp_path / 'notify__secret'}: the secret file is not UTF-8 text",
        "regoin: no such key; did you mean region?",
        "schedule.interval: ",
        "schedule.cron: ",
        "schedule: give interval or cron, not both",
        "server.port: ",
        "server.hots: no such key; did you mean host?",
        "gateways[0].url: ",
        "gateways[0].retry_window: ",
        "gateways[0]: overlap needs an evidence source",
        "gateways[1].url: is missing",
        "gateways[1].tagreting: no such key; did you mean targeting?",
        "gateways: two are called 'a'",
        "leaderboard.url: ",
        "region: needed to post stats",
        "leaderboard.secret: needed to post stats",
        'discovery.orchestrators: needed for source = "static"',
        "pipelines.llm.modelz: no such key; did you mean models?",
        "pipelines.upscale.files.image: ",
        "pipelines.text-to-image: ",
    ]
    for start in expected:
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
    assert len(lines) == len(expected), [line for line in lines if not line.startswith(tuple(expected))]


LINKS = {
    "JOBTESTER_PORT": "tcp://10.96.0.7:7934",
    "JOBTESTER_SERVICE_HOST": "10.96.0.7",
    "JOBTESTER_SERVICE_PORT": "7934",
    "JOBTESTER_SERVICE_PORT_HTTP": "7934",
    "JOBTESTER_PORT_7934_TCP": "tcp://10.96.0.7:7934",
    "JOBTESTER_PORT_7934_TCP_PROTO": "tcp",
    "JOBTESTER_PORT_7934_TCP_PORT": "7934",
    "JOBTESTER_PORT_7934_TCP_ADDR": "10.96.0.7",
}


@pytest.mark.parametrize("service", ["JOBTESTER", "JOBTESTER_WEB", "JOBTESTER_STORE"])
def test_service_links_are_passed_over_with_one_warning(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets them beside a Service whose name begins with jobtester."""
    for name, text in LINKS.items():
        monkeypatch.setenv(name.replace("JOBTESTER", service, 1), text)
    (warning,) = Configuration.from_tables(GOOD, origin="test").warnings
    assert "enableServiceLinks: false" in warning


@pytest.mark.parametrize("name", ["JOBTESTER_PORT", "JOBTESTER_SERVER_PORT", "JOBTESTER_HOST", "JOBTESTER_SERVICES"])
def test_what_only_looks_like_a_service_link_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that somebody meant to set is not ignored."""
    monkeypatch.setenv(name, "7934")
    (line,) = problems()
    assert line.startswith(f"{name}: no such key")


def test_a_file_that_cannot_be_read_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with variables and secret files is reported beside bad TOML, not one round later."""
    (tmp_path / "config.toml").write_text("region = ")
    (tmp_path / "leaderboard__secret").write_bytes(b"\xff")
    monkeypatch.setenv("JOBTESTER_SHEDULE__INTERVAL", "5m")
    monkeypatch.setenv("JOBTESTER_DISCOVERY__ORCHESTRATORS", "x")
    with pytest.raises(ConfigError) as refused:
        Configuration.load(str(tmp_path / "config.toml"))
    for problem in (
        "config.toml: is not valid TOML: ",
        "leaderboard__secret: the secret file is not UTF-8 text",
        "JOBTESTER_SHEDULE__INTERVAL: no such key",
        "discovery.orchestrators: has to be a list",
    ):
        assert sum(problem in line for line in refused.value.problems) == 1, problem
