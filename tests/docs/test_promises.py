"""What was promised to users is kept: how to start, config.toml, commands, routes, and what is where.

The promises are written down here once more, apart from the code: names may gain siblings, and do not change.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import aiohttp
import pytest

from jobtester.cli.parser import make_parser
from jobtester.configuration import Configuration
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from tests.harness.program import every_command, routes, subcommands
from tests.harness.simulated import simulated_tester
from tools.documentation_tables import ROOT

SELECTION = ("--orchestrator", "--pipeline", "--model")
COMMANDS = {
    "serve": (),
    "run": (*SELECTION, "--no-post", "--json", "--fail-on-failed"),
    "plan": (*SELECTION, "--json"),
    "check": ("--probe",),
    "config init": (),
    "config show": (),
    "config import": (),
    "results": (*SELECTION, "--tick", "--since", "--until", "--json"),
    "result": (),
    "simulate": ("--scenario",),
    "demo": ("--stay", "--scenario", "--capabilities"),
    "outbox list": (),
    "outbox retry": (),
    "outbox drop": (),
    "tick release": (),
    "healthcheck": (),
}
WITHOUT_CONFIG = {"demo", "config init", "config import", "simulate"}

ROUTES = {
    ("GET", "/orchestrators"),
    ("GET", "/orchestrators/{gateway}"),
    ("POST", "/webhooks/gateway-events"),
    ("POST", "/webhooks/test-results"),
    ("POST", "/api/post_stats"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/ticks"),
    ("GET", "/t/{id}"),
    ("GET", "/o/{address}"),
    ("GET", "/o/{address}.atom"),
    ("GET", "/o/{address}.svg"),
    ("GET", "/r/{id}"),
    ("GET", "/outbox"),
    ("GET", "/api/ticks"),
    ("GET", "/api/ticks/{id}"),
    ("GET", "/api/results"),
    ("GET", "/api/orchestrators"),
    ("POST", "/api/ticks"),
}

FOLDERS = ("assets", "docs", "monitoring", "benchmarks", "tools", "tests", "jobtester", ".github/workflows")
ROOMS = (
    "cli", "daemon", "web", "tick", "gateway", "leaderboard", "pipelines", "checks", "store", "settings", "domain",
    "simulator",
)  # fmt: skip
FILES = (
    "pyproject.toml", "Makefile", "Dockerfile", "docker-compose.yml", "config.toml", "README.md", "CHANGELOG.md",
    "CONTRIBUTING.md", "SECURITY.md", "LICENSE", ".pre-commit-config.yaml",
)  # fmt: skip

CONFIG = """
region = "FRA"

[schedule]
interval = "1h"
offset = "0s"
run_at_start = true
deadline = "50m"

[server]
host = "0.0.0.0"
port = 7934
admin_token = "a-token-of-sixteen"
results_secret = "a-secret-of-sixteen"
read_token = "a-token-of-sixteen-too"
public_url = "https://tester.example"
trusted_proxy = ["172.16.0.0/12"]

[[gateways]]
name = "tester"
url = "http://gateway:8935"
cli_url = "http://gateway:7935"
targeting = "webhook"
overlap = false
token = "t"
verify_tls = true
artifact_networks = ["10.20.0.0/16"]

[limits]
jobs = 16
per_orchestrator = 1
max_response = "64MiB"

[leaderboard]
url = "https://leaderboard.example"
post = true
post_unscored = false
secret = "s"

[delivery]
audit = 3

[store]
path = "data/jobtester.db"
keep = "30d"
keep_files = true

[discovery]
source = "auto"
include = []
exclude = []

[live_runner]
enabled = true
urls = []
probe = "off"

[live_runner.payment]
signer_url = "http://127.0.0.1:9935"
max_price_per_job = "0.0001 ETH"

[live_video]
callback_host = "job-tester"

[notify]
format = "json"

[[pause]]
until = 2026-12-26T09:00:00Z
reason = "maintenance"

[pipelines.text-to-image]
enabled = true
timeout = "60s"
cold_timeout = "5m"
models = ["*"]
capture_response = true

[pipelines.text-to-image.parameters]
prompt = ["a red fox in snow", "a lighthouse at dusk"]
width = 512

[pipelines.my-own]
uri = "/my-own"
name = "My own"
content_type = "multipart/form-data"
files = { image = "image.png" }
checks = [{ check = "json", path = "images.0.url", is = "image" }]

[pipelines.openai-chat-completions]
byoc = true
uri = "/v1/chat/completions"
content_type = "application/json"
checks = [{ check = "chat", contains = "42" }]

[pipelines.my-app]
runner = true
uri = "/v1/run"
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_promised_command_has_its_options(command: str) -> None:
    """And `-c` wherever a configuration is used."""
    parser = make_parser()
    for word in command.split():
        below = subcommands(parser)
        assert below is not None
        parser = below[word]
    options = {option for action in parser._actions for option in action.option_strings}
    assert set(COMMANDS[command]) <= options
    assert {"-c", "--config"} <= options or command in WITHOUT_CONFIG


def test_each_promised_command_does_something() -> None:
    """None of them has become a group of others."""
    assert set(COMMANDS) <= {" ".join(words) for words in every_command(make_parser(), ())}


def test_promised_routes_exist() -> None:
    """Each with its method."""
    assert routes() >= ROUTES


def test_everything_is_where_it_was_promised() -> None:
    """Top-level folders and files, and the rooms of the package; no module lies beside them."""
    for name in FOLDERS:
        assert (ROOT / name).is_dir(), name
    for name in ROOMS:
        assert (ROOT / "jobtester" / name / "__init__.py").is_file(), name
    for name in FILES:
        assert (ROOT / name).is_file(), name
    assert not list(ROOT.glob("*.py"))


def test_promised_keys_of_config_toml_are_accepted() -> None:
    """A configuration with each of them is valid as a whole."""
    loaded = Configuration.from_tables(tomllib.loads(CONFIG), origin="promised")
    assert loaded.settings.region == "FRA"
    assert {"my-own", "my-app", "openai-chat-completions"} <= set(loaded.catalogue)


def test_compose_starts_tester_and_simulated_network() -> None:
    """`docker compose up -d` needs no profile and no .env, and config.toml names what it starts."""
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    service = re.search(r"\n  job-tester:\n(.*?)\n\n", compose, re.DOTALL)
    assert service is not None
    assert "profiles:" not in service[1]
    assert "path: compose/${ETH_RPC_URL:+real-}gateway.yml" in compose
    network = (ROOT / "compose/gateway.yml").read_text("utf-8")
    assert "profiles:" not in network
    config = tomllib.loads((ROOT / "config.toml").read_text("utf-8"))
    assert "--port=8935" in network  # with its CLI port 1000 below
    assert "--leaderboard-port=8080" in network
    assert "--webhook=http://job-tester:7934/orchestrators" in network
    assert config["gateways"][0]["url"] == "http://gateway:8935"
    assert config["gateways"][0]["cli_url"] == "http://gateway:7935"
    assert config["leaderboard"]["url"] == "http://leaderboard:8080"
    assert config["server"]["port"] == 7934
    assert 'CMD ["jobtester", "healthcheck"]' in (ROOT / "Dockerfile").read_text("utf-8")


async def test_healthz_answers(tmp_path: Path) -> None:
    """With 200 and JSON, without a token even where readers need one."""
    network = generate(seed=1, orchestrators=1, gateways=(GatewaySpec(name="gateway", mode="query"),))
    server = {"read_token": "a-token-of-sixteen"}
    async with simulated_tester(network, tmp_path, server=server) as tester, tester.serving():
        base = f"http://127.0.0.1:{tester.daemon.port}"
        async with aiohttp.ClientSession(base) as session, session.get("/healthz") as answer:
            assert answer.status == 200
            assert await answer.json()
        async with aiohttp.ClientSession(base) as session, session.get("/") as answer:
            assert answer.status == 401
