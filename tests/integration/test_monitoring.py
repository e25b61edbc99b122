"""What alerts and dashboard ask for is what a real tester exports, and each alert is shown firing and silent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from jobtester.daemon.bootstrap import open_daemon
from jobtester.metrics import MAX_SERIES, Metrics
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from tests.harness.live_runners import FakeOrchestrator, answers, config, fake_orchestrators
from tests.harness.simulated import simulated_tester

HOME = Path(__file__).parents[2]
MONITORING = HOME / "monitoring"
DASHBOARD = MONITORING / "grafana/dashboards/jobtester.json"
_OTHERS = {"up"}
_SELECTOR = re.compile(r"\b([a-z_]+)\{([^}]*)\}")
_NAME = re.compile(r"\b((?:jobtester|process)_[a-z_]+|up)\b(?!\()")
_MATCHER = re.compile(r'(\w+)(=~|!=|!~|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring) \(([^)]*)\)")

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool; Debian's package is prometheus")


def dashboard() -> dict[str, Any]:
    """Read the dashboard."""
    document: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return document


def rules() -> dict[str, str]:
    """Return each alert's expression, read with nothing but what YAML of this file needs."""
    alerts: dict[str, str] = {}
    for part in (MONITORING / "alerts.yml").read_text("utf-8").split("- alert: ")[1:]:
        name = part.partition("\n")[0].strip()
        expression = re.search(r"expr: (?:\|\n)?(.*?)\n        (?=for:|labels:)", part, re.DOTALL)
        assert expression is not None, name
        alerts[name] = expression[1]
    return alerts


def expressions() -> Iterator[tuple[str, str]]:
    """Return every query of the rules and of the dashboard, with where it stands."""
    yield from rules().items()
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"])
    for note in dashboard()["annotations"]["list"]:
        yield note["name"], note["expr"]


async def test_every_metric_label_and_value_that_is_asked_for_is_exported(tmp_path: Path) -> None:
    """Names, labels, and the values that are matched exactly: a tester that has run one tick has them all."""
    scenario = generate(
        seed=3, orchestrators=4, pipelines=("llm",), latency_s=(0.0, 0.01), gateways=(GatewaySpec("one"),)
    )
    async with simulated_tester(scenario, tmp_path) as tester, aiohttp.ClientSession() as session:
        await tester.tick()
        tester.daemon.coordinator.metrics.answer_notes.labels(
            "chat", "usage"
        ).inc()  # the simulated runner answers without oddities
        for gauge in tester.daemon.coordinator.metrics.live_video.values():
            gauge.labels("0x1", "live-video-to-video", "", "m").set(1)  # no stream runs here
        async with session.get(f"http://127.0.0.1:{tester.daemon.port}/metrics") as answer:
            text = await answer.text()
    series: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    queried = set()
    for where, expression in expressions():
        names = set(_NAME.findall(re.sub(r'"[^"]*"|' + _GROUPING.pattern, "", expression)))
        assert names, where
        assert names <= series.keys() | _OTHERS, (where, names - series.keys())
        queried |= names
        labels = {label for name in names - _OTHERS for labeled in series[name] for label in labeled} | {
            "job",
            "instance",
            "le",
        }
        for grouping in _GROUPING.findall(expression):
            assert {label.strip() for label in grouping.split(",")} <= labels, (where, grouping)
        for name, inside in _SELECTOR.findall(expression):
            for label, operator, value in _MATCHER.findall(inside):
                if label in ("job", "instance") or "$" in value:
                    continue
                values = value.split("|") if operator.endswith("~") else [value]
                for expected_labels in values:
                    assert any(sample.get(label) == expected_labels for sample in series[name]), (
                        where,
                        name,
                        label,
                        expected_labels,
                    )
    unused = {name for name in series if name.startswith("jobtester_")} - queried
    assert {re.sub("_(count|sum|bucket)$", "", name) for name in unused} <= {
        "jobtester_round_trip_seconds", "jobtester_tick_running",
    }  # fmt: skip


def test_known_series_start_at_nothing() -> None:
    """Every pipeline has its outcomes, reasons and buckets at 0 before the first job: a first rise is seen."""
    fresh = Metrics()
    fresh.start_series(["llm"])
    samples = {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(fresh.render().decode())
        for sample in family.samples
    }
    for key in (
        ("jobtester_jobs_total", ("llm", "passed", "true")),
        ("jobtester_jobs_total", ("llm", "failed", "false")),
        ("jobtester_job_failures_total", ("llm", "timeout")),
        ("jobtester_job_failures_total", ("llm", "not_targeted")),
        ("jobtester_round_trip_seconds_count", ("llm", "true")),
        ("jobtester_attribution_total", ("refuted",)),
        ("jobtester_jobs_skipped_total", ("deadline",)),
        ("jobtester_ticks_missed_total", ()),
    ):
        assert samples[key[0], frozenset(key[1])] == 0, key
    assert samples["jobtester_config_reload_successful", frozenset()] == 1
    assert not any(name.endswith("_created") for name, _ in samples)


def test_capabilities_have_a_series_each_up_to_a_limit() -> None:
    """Failing ones come first, the rest is counted, and what is not tested any more has none."""
    fresh = Metrics(lambda: "FRA")
    up: dict[tuple[str, ...], bool] = {(f"0x{number}", "llm", "", "m"): number != 7 for number in range(10)}
    fresh.export_capabilities(up, 3)
    lines = fresh.render().decode().splitlines()
    series = [line for line in lines if line.startswith("jobtester_capability_up{")]
    assert len(series) == 3
    assert 'jobtester_capability_up{app="",model="m",orchestrator="0x7",pipeline="llm",region="FRA"} 0.0' in series
    assert 'jobtester_capabilities_cut{region="FRA"} 7.0' in lines
    fresh.export_capabilities({}, 3)
    assert "jobtester_capability_up{" not in fresh.render().decode()


async def test_each_tested_capability_is_up_or_down(tmp_path: Path) -> None:
    """As the last scored job says; the key turns the series off, and a region stands on every series."""
    scenario = generate(
        seed=3, orchestrators=4, pipelines=("llm",), latency_s=(0.0, 0.01), fault_share=0.5,
        fault_names=("garbage_json",), gateways=(GatewaySpec("one"),),
    )  # fmt: skip
    async with simulated_tester(scenario, tmp_path) as tester:
        await tester.tick()
        metrics, rows = tester.daemon.coordinator.metrics, await tester.results()
        samples = [
            sample
            for family in text_string_to_metric_families(metrics.render().decode())
            for sample in family.samples
        ]  # fmt: skip
        up = {
            sample.labels["orchestrator"]: sample.value
            for sample in samples
            if sample.name == "jobtester_capability_up"
        }
        assert up == {row.orchestrator: float(row.outcome == "passed") for row in rows}
        assert set(up.values()) == {0.0, 1.0}
        assert {sample.labels.get("region") for sample in samples} == {"FRA"}
    async with simulated_tester(scenario, tmp_path, metrics={"capabilities": False}) as tester:
        await tester.tick()
        assert b"jobtester_capability_up{" not in tester.daemon.coordinator.metrics.render()


def test_series_stay_bounded_whatever_the_network_names() -> None:
    """Of orchestrators and models that come and go, only those that passed last keep a series."""
    fresh = Metrics()
    for number in range(MAX_SERIES + 500):
        fresh.last_success.labels(f"0x{number:040x}", "llm", "", f"model\n\"{number}'").set(number)
    lines = [line for line in fresh.render().decode().splitlines() if line.startswith("jobtester_last_success")]
    assert len(lines) == MAX_SERIES
    assert f"0x{499:040x}" not in "".join(lines)
    assert f"0x{500:040x}" in "".join(lines)


async def test_apps_have_series_as_pipelines_do(tmp_path: Path) -> None:
    """Counters name the definition, so apps cannot make ever more series; series of one orchestrator name the app."""
    apps = {"hello-world": answers(lambda: web.Response(text="hello")), "full": answers(lambda: web.Response(text="x"))}
    node = FakeOrchestrator(apps, {"full": {"capacity_used": 1, "capacity_available": 0}})
    async with (
        fake_orchestrators(node) as tables,
        open_daemon(config(tmp_path, tables)) as daemon,
        aiohttp.ClientSession() as session,
    ):
        await daemon.run_once("test")
        async with session.get(f"http://127.0.0.1:{daemon.port}/metrics") as answer:
            text = await answer.text()
    samples = {
        (sample.name, *sorted(item for item in sample.labels.items() if item[0] != "region")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    hello = ("pipeline", "hello-world")
    assert samples["jobtester_jobs_total", ("outcome", "passed"), hello, ("warm", "true")] == 1
    assert samples["jobtester_round_trip_seconds_count", hello, ("warm", "true")] == 1
    capability = (
        ("app", "someone/hello-world"), ("model", "default"), ("orchestrator", tables[0]["address"]), hello
    )  # fmt: skip
    assert samples["jobtester_last_success_timestamp_seconds", *capability] > 0
    assert samples["jobtester_unscored_ticks", *capability] == 0
    states = {labels[0][1]: value for (name, *labels), value in samples.items() if name == "jobtester_live_runners"}
    assert states == {"listed": 1, "no_capacity": 1, "foreign_url": 0, "gone": 0, "no_list": 0}


def test_the_dashboard_is_sound() -> None:
    """Ids are unique, no panel covers another, and every data source is the one that can be chosen."""
    document = dashboard()
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    occupied: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & occupied, panel["title"]
        assert place["x"] + place["w"] <= 24
        occupied |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
    assert "uid: prometheus" in (MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8")


def test_each_alert_is_tested_both_ways() -> None:
    """The rules' own tests show every alert firing once and silent once, and each states what it means."""
    text = (MONITORING / "alerts.test.yml").read_text("utf-8")
    for name in rules():
        assert re.search(rf"alertname: {name}\n\s+exp_alerts:\n\s+- exp_labels", text), f"{name} is never shown firing"
        silent = rf"alertname: {name}, exp_alerts: \[\]"
        assert re.search(silent, text), f"{name} is never shown silent"
    alerts = (MONITORING / "alerts.yml").read_text("utf-8")
    assert alerts.count("summary:") == alerts.count("description:") == alerts.count("severity:") == len(rules())


@promtool
def test_promtool_finds_nothing_wrong() -> None:
    """Configuration, rules and their tests pass Prometheus' own tool."""
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("check", "config", "prometheus-regions.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ):
        done = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_every_query_of_the_dashboard_can_be_read_by_prometheus(tmp_path: Path) -> None:
    """Written as rules, with the variables filled in, they pass its own parser."""
    filled = [
        expression.replace("$instance", ".*")
        .replace("$pipeline", ".*")
        .replace("$region", ".*")
        .replace("$__interval", "5m")
        for _, expression in expressions()
    ]
    assert len(filled) > 25
    assert not any("$" in expression for expression in filled)
    written = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(filled)]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": written}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=none", "queries.yml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
@pytest.mark.parametrize(
    ("before", "after"),
    [("> 2 * jobtester", "> 9 * jobtester"), ("> 3600", "> 36000"), ('kind="refuted"', 'kind="missing"'),
     ('outcome="passed"}[3h])) == 0', 'outcome="passed"}[3h])) >= 0'), ("successful == 0", "successful == 2"),
     ("gateway_up == 0", "gateway_up >= 0"), ("sessions_open[30m]) > 0", "sessions_open[30m]) > 9"),
     ("(jobtester_capability_up) == 1", "(jobtester_capability_up) == 0"),
     ("region) (jobtester_capability_up)) > 1", "region) (jobtester_capability_up)) > 3")],
)  # fmt: skip
def test_the_rules_tests_notice_a_wrong_rule(before: str, after: str, tmp_path: Path) -> None:
    """A rule that is changed fails its test: the tests of the rules are worth something."""
    text = (MONITORING / "alerts.yml").read_text("utf-8")
    assert before in text
    (tmp_path / "alerts.yml").write_text(text.replace(before, after))
    shutil.copy(MONITORING / "alerts.test.yml", tmp_path)
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts.test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0


def test_the_scraped_port_is_the_configured_one() -> None:
    """The scrape example names the shipped configuration's port."""
    port = tomllib.loads((HOME / "config.toml").read_text("utf-8")).get("server", {}).get("port", 7934)
    assert f"job-tester:{port}" in (MONITORING / "prometheus.yml").read_text("utf-8")
