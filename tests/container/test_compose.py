"""`docker compose up -d` on a fresh clone: the image, the tester and the simulated network beside it."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.harness import compose, pages
from tests.harness.compose import Project
from tests.harness.ports import free_port
from tests.harness.waiting import block_until

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

_CLOSING_S = 5.0
_FIRST_TICK_S = 30.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clone that is up, with nothing prepared but shorter waits for busy orchestrators; all of it is removed."""
    if why := compose.engine_problem():
        pytest.skip(why)
    folder = compose.copy_project(tmp_path_factory.mktemp("clone"))
    folder.chmod(0o755)
    _edit(folder / "config.toml", "[limits]\n", '[limits]\nbusy_backoff = "500ms"\n')
    name = f"jobtester-test-{secrets.token_hex(4)}"
    clone = Project(folder, name, free_port(), f"{name}:test")
    try:
        clone.compose("up", "--detach", "--wait")
        yield clone
    finally:
        clone.compose("down", "--volumes", "--timeout", "5", check=False)
        subprocess.run(["docker", "image", "rm", "--force", clone.image], capture_output=True)


def test_a_fresh_clone_comes_up_healthy_and_passes_a_tick(project: Project) -> None:
    """The first run needs no keys and no configuration, and shows everything working."""
    assert project.inspect("job-tester")["State"]["Health"]["Status"] == "healthy"
    done = block_until(lambda: project.log("tick_done"), "a tick", timeout_s=60)[0]
    assert done["state"] == "finished"
    assert done["settled"] == done["planned"] > 20
    assert done["outcomes"]["passed"] > 15
    assert "SIMULATED" in project.compose("logs", "gateway")
    created, finished = (
        datetime.fromisoformat(text) for text in (project.inspect("gateway")["Created"], done["timestamp"])
    )
    assert (finished - created).total_seconds() < _FIRST_TICK_S


def test_stats_reach_the_simulated_leaderboard(project: Project) -> None:
    """Both sides agree on the demo secret, and every scored result of the tick is stored once."""
    done = block_until(lambda: project.log("tick_done"), "a tick", timeout_s=60)[0]
    scored = done["outcomes"]["passed"] + done["outcomes"]["failed"]
    block_until(lambda: len(_rows(project)) >= scored, "stats at the Leaderboard", timeout_s=30)
    rows = _rows(project)
    assert len(rows) == scored
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == scored


@pytest.mark.parametrize("service", ["job-tester", "gateway"])
def test_containers_may_do_little(project: Project, service: str) -> None:
    """Not root, nothing writable but /data and /tmp, no capability, no way to gain any; logs do not fill the disk."""
    container = project.inspect(service)
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] is None
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Init"] is True
    assert host["LogConfig"]["Config"]["max-size"]
    assert container["Config"]["User"] == "10001:10001"
    status = project.run_python(service, "print(open('/proc/1/status').read())")
    ids = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines() if ":" in line}
    assert ids["Uid"] == ["10001"] * 4
    assert int(ids["CapEff"][0], 16) == 0
    assert int(ids["NoNewPrivs"][0]) == 1
    places = "[p for p in ('/', '/venv', '/config', '/etc', '/data', '/tmp') if os.access(p, os.W_OK)]"
    writable = project.run_python(service, f"import os; print(*{places})").split()
    assert set(writable) <= {"/data", "/tmp"}


def test_the_port_is_for_this_machine_only_and_secrets_are_files(project: Project) -> None:
    """Nothing secret stands in the environment or the arguments, which anybody who may ask the engine could read."""
    container = project.inspect("job-tester")
    assert container["HostConfig"]["PortBindings"] == {
        "7934/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(project.port)}]
    }
    assert project.inspect("gateway")["HostConfig"]["PortBindings"] in ({}, None)
    for service in ("job-tester", "gateway"):
        container = project.inspect(service)
        assert "demo-secret" not in json.dumps([container["Config"]["Env"], container["Args"]])
    assert "demo-secret" not in project.compose("logs")
    assert "demo-secret" not in project.compose("exec", "--no-TTY", "job-tester", "jobtester", "config", "show")


def test_the_image_is_small_and_holds_no_compiler(project: Project) -> None:
    """What is not there cannot be misused; the engine checks health by the tester's own command."""
    image = json.loads(subprocess.run(["docker", "inspect", project.image], capture_output=True, check=True).stdout)[0]
    assert image["Size"] < 350e6
    assert image["Config"]["Entrypoint"] == ["jobtester"]
    assert image["Config"]["Healthcheck"]["Test"] == ["CMD", "jobtester", "healthcheck"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in image["Config"]["Labels"].items()}
    assert labels["title"] == "livepeer-job-tester"
    assert {"authors", "base.name", "description", "licenses", "revision", "version"} < set(labels)
    code = "import shutil; print([n for n in ('cc', 'gcc', 'clang', 'c++', 'make', 'ld') if shutil.which(n)])"
    assert project.run_python("job-tester", code).strip() == "[]"


def test_an_edited_interval_comes_into_force(project: Project) -> None:
    """Without a restart, and also when an editor puts another file into the old one's place."""
    assert project.metric("jobtester_tick_interval_seconds") == 3600
    config, other = project.folder / "config.toml", project.folder / "config.toml.new"
    other.write_text(config.read_text())
    _edit(other, 'interval = "1h"', 'interval = "5s"')
    other.replace(config)
    changed = block_until(lambda: project.log("config_changed"), "the change", timeout_s=15)[0]
    assert "schedule.interval" in changed["changes"]
    assert project.metric("jobtester_tick_interval_seconds") == 5
    block_until(lambda: _by_schedule(project), "a tick by the new interval", timeout_s=30)
    config.write_text(config.read_text().replace('interval = "5s"', 'interval = "nonsense"'))
    block_until(lambda: project.log("config_rejected"), "the refusal", timeout_s=15)
    assert project.metric("jobtester_tick_interval_seconds") == 5
    config.write_text(config.read_text().replace('interval = "nonsense"', 'interval = "2h"'))
    block_until(lambda: project.metric("jobtester_tick_interval_seconds") == 7200, "the next change", timeout_s=15)


def test_it_stops_within_the_grace_period_and_keeps_its_data(project: Project) -> None:
    """SIGTERM reaches the tester behind init; it ends by itself, in order, and the next start has what was there."""
    before = _ids(project)
    assert len(before) > 20
    began = time.monotonic()
    project.compose("stop", "job-tester")
    took = time.monotonic() - began
    state = project.inspect("job-tester")["State"]
    assert state["ExitCode"] == 0
    assert took < 20 + 10 + _CLOSING_S
    assert project.log("stopped")
    project.compose("down")
    project.compose("up", "--detach", "--wait")
    assert before <= _ids(project)


def test_a_copy_is_made_and_brought_back_as_the_page_says(project: Project) -> None:
    """From a daemon that runs, and after everything was lost; the tester goes on with it."""
    before = _ids(project)
    project.shell(_documented_commands("How do I back up?"))
    project.compose("down", "--volumes")
    project.compose("up", "--detach", "--wait")
    assert not before & _ids(project)
    project.shell(_documented_commands("How do I restore a backup?"))
    block_until(lambda: before <= _ids(project), "all that was there", timeout_s=30)
    block_until(lambda: before < _ids(project), "something new", timeout_s=60)


def test_the_gateway_profile_has_every_flag(project: Project) -> None:
    """A real gateway in the simulated one's place: started as a tester gateway, reached under the same name."""
    variables = {"ETH_RPC_URL": "https://rpc.example/key", "MAX_PRICE_PER_UNIT": "1200"}
    (project.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    try:
        services = json.loads(project.compose("--profile", "gateway", "config", "--format", "json"))["services"]
    finally:
        (project.folder / ".env").unlink()
    flags = services["gateway"]["command"]
    for flag in (
        "-gateway", "-network=arbitrum-one-mainnet", "-ethKeystorePath=/keystore",
        "-ethPassword=/run/secrets/eth_password", "-httpIngest=true",
        "-httpAddr=0.0.0.0:8935", "-cliAddr=0.0.0.0:7935", "-monitor=true", "-maxPricePerUnit=1200",
        "-pixelsPerUnit=1", "-blockPollingInterval=20", "-orchWebhookUrl=http://job-tester:7934/orchestrators",
        "-aiTesterGateway=true", "-aiSessionTimeout=0", "-webhookRefreshInterval=0", "-discoveryTimeout=1000ms",
    ):  # fmt: skip
        assert flag in flags
    assert any(flag.startswith("-maxTotalEV=") for flag in flags)
    assert services["gateway"]["environment"]["LP_ETHURL"] == "https://rpc.example/key"
    assert services["gateway"]["environment"]["LIVEPEER_OS_HTTP_TIMEOUT"] == "8s"
    assert "ports" not in services["gateway"]
    assert set(services) == {"job-tester", "gateway"}


def test_every_variable_is_explained(project: Project) -> None:
    """.env.example names each variable of docker-compose.yml, with the default that holds without it."""
    files = [project.folder / "docker-compose.yml", *(project.folder / "compose").iterdir()]
    text = "".join(file.read_text() for file in files)
    example = (project.folder / ".env.example").read_text()
    explained = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", example, flags=re.MULTILINE))
    used = dict(re.findall(r"\$\{([A-Z_]+)(?::[-+]([^}]*))?\}", text))
    assert set(used) <= set(explained)
    assert set(explained) <= {*used, "COMPOSE_PROFILES"}


def test_the_monitoring_profile_mounts_what_is_there(project: Project) -> None:
    """Prometheus and Grafana find their files in ./monitoring."""
    services = json.loads(project.compose("--profile", "monitoring", "config", "--format", "json"))["services"]
    for service in ("prometheus", "grafana"):
        for mount in services[service]["volumes"]:
            if mount["type"] == "bind":
                assert Path(mount["source"]).is_dir(), mount
        assert all(port["host_ip"] == "127.0.0.1" for port in services[service]["ports"])
    for name in ("prometheus.yml", "alerts.yml", "grafana/dashboards/jobtester.json"):
        assert (project.folder / "monitoring" / name).is_file()


def test_a_real_gateway_takes_the_simulated_ones_place(project: Project) -> None:
    """With a stand-in for its image: the tester waits for it, tests through it, and everything stops in order.

    Also where the simulated network was still running, which then answers no more.
    """
    image = f"{project.image}-gateway"
    recipe = f"""FROM {project.image}
USER 0
ENTRYPOINT ["sh", "-c", "cat /keystore/key /run/secrets/eth_password && exec jobtester simulate --host 0.0.0.0 \\
  --port 8935 --node-host gateway --leaderboard-port 8080 --webhook http://job-tester:7934/orchestrators"]
"""
    project.compose("up", "--detach", "--wait")
    subprocess.run(["docker", "build", "--tag", image, "-"], input=recipe, text=True, capture_output=True, check=True)
    secret_folder = project.folder / "secrets" / "keystore"
    secret_folder.mkdir(parents=True)
    (secret_folder / "key").write_text("key of somebody\n")
    (secret_folder / "key").chmod(0o600)
    (project.folder / "secrets" / "eth_password").write_text("password\n")
    example = (project.folder / ".env.example").read_text()
    for name, value in (("ETH_RPC_URL", "https://rpc.example/key"), ("GATEWAY_IMAGE", image)):
        example = re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", example)
    (project.folder / ".env").write_text(example)
    _edit(project.folder / "config.toml", "http://leaderboard:8080", "http://gateway:8080")
    try:
        project.compose("up", "--detach", "--wait")
        assert project.compose("ps", "--services").split() == ["gateway", "job-tester"]
        assert project.inspect("gateway")["Config"]["Image"] == image
        done = block_until(lambda: project.log("tick_done"), "a tick", timeout_s=90)[0]
        assert done["state"] == "finished"
        assert done["attribution"]["proven"] > 20
        project.compose("stop")
        assert project.inspect("job-tester")["State"]["ExitCode"] == 0
        project.compose("down", "--volumes")
    finally:
        (project.folder / ".env").unlink()
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True)


def test_nothing_is_left_after_removing_it_as_the_page_says(project: Project) -> None:
    """Containers, volumes and the image are gone."""
    project.compose("up", "--detach", "--wait")
    project.shell(_documented_commands("How do I remove it?"))
    for kind in ("container", "volume", "network"):
        assert not _engine(kind, "ls", "--quiet", "--filter", f"label=com.docker.compose.project={project.name}")
    assert not _engine("image", "ls", "--quiet", project.image)


def _engine(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, check=True, text=True).stdout


def _documented_commands(heading: str) -> str:
    """Return the commands that docs/production.md has under a heading."""
    return pages.page_of("production.md").blocks("sh", under=heading)[0]


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def _by_schedule(project: Project) -> list[object]:
    return [done for done in project.log("tick_done") if done["trigger"] == "schedule"]


def _rows(project: Project) -> list[object]:
    code = "import urllib.request as u; print(u.urlopen('http://gateway:10935/rows').read().decode())"
    rows: list[object] = json.loads(project.run_python("job-tester", code))
    return rows


def _ids(project: Project) -> set[str]:
    listed = project.compose("exec", "--no-TTY", "job-tester", "jobtester", "results", "--json", "--limit", "9999")
    return {result["id"] for result in json.loads(listed)["items"]}
