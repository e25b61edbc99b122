"""Bad input gets one clear message that names the key or the peer, the right exit code, and never a traceback."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.harness.process import VALID_CONFIG, run_command


def assert_refused(process: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    """Assert one clear message with these words, and the exit code."""
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    for word in words:
        assert word in process.stderr + process.stdout


CASES = [
    ("interval = \"1h\"", "interval = \"0s\"", ["schedule.interval"]),
    ("interval = \"1h\"", "interval = \"soon\"", ["schedule.interval", "1h30m"]),
    ("interval = \"1h\"", "cron = \"61 * * * *\"", ["schedule.cron"]),
    ("interval = \"1h\"", "cron = \"0 * * * *\"\ninterval = \"1h\"", ["schedule", "not both"]),
    ("interval = \"1h\"", "interval = \"1h\"\ntimezone = \"Mars/Olympus\"", ["schedule.timezone", "Mars/Olympus"]),
    ("region = \"FRA\"", "region = \"FRA\"\nregoin = 3", ["regoin", "no such key"]),
    ("region = \"FRA\"", "region = [", ["TOML"]),
    ("region = \"FRA\"", "region = " + "[" * 5000, ["TOML", "recursion"]),
    ("port = 0", "port = " + "9" * 5000, ["TOML", "digits"]),
    ("post = false", "post = false\n[pipelines.text-to-image.parameters]\nwidth = nan", ["text-to-image", "width"]),
    ("port = 0", "port = \"x\"", ["server.port"]),
    ("url = \"http://127.0.0.1:1\"\n", "url = \"gopher://x\"\n", ["gateways[0].url", "http"]),
    ("name = \"g\"", "name = \"g\"\noverlap = true\nmetrics = false", ["gateways[0]", "evidence"]),
    ("post = false", "post = true\nurl = \"http://127.0.0.1:1\"", ["leaderboard.secret"]),
    ("post = false", "post = false\n[pipelines.llm]\nmodelz = []", ["pipelines.llm.modelz"]),
    ("post = false", "post = false\n[pipelines.upscale]\nfiles = { image = \"nothing.png\" }", ["nothing.png"]),
    ("post = false", "post = false\n[pipelines.new-one]\nuri = \"/x\"\nchecks = [{ check = \"magic\" }]", ["magic"]),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "words"), CASES, ids=[" ".join(case[2]) for case in CASES])
def test_a_bad_configuration_is_refused_by_its_key(tmp_path: Path, good: str, bad: str, words: list[str]) -> None:
    """Exit 2, the key path, and no traceback."""
    (tmp_path / "config.toml").write_text(VALID_CONFIG.replace(good, bad, 1))
    assert_refused(run_command("serve", folder=tmp_path), *words)


@pytest.mark.parametrize(
    ("section", "key"), [("gateways", "gateways[0].url"), ("notify", "notify.url")], ids=["gateway", "notify"]
)
def test_a_secret_in_a_refused_url_is_not_printed(tmp_path: Path, section: str, key: str) -> None:
    """A password, or a hook's path, is not written to a terminal or a log because of a mistake beside it."""
    bad = {
        "gateways": VALID_CONFIG.replace("http://127.0.0.1:1", "http://user:very-secret@127.0.0.1:1", 1),
        "notify": f'{VALID_CONFIG}\n[notify]\nurl = "hooks.example/very-secret"\n',
    }
    (tmp_path / "config.toml").write_text(bad[section])
    process = run_command("check", folder=tmp_path)
    assert_refused(process, key)
    assert "very-secret" not in process.stdout + process.stderr


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """A file from an editor on Windows is usable."""
    (tmp_path / "config.toml").write_text(VALID_CONFIG, "utf-8-sig")
    assert run_command("config", "show", folder=tmp_path).returncode == 0


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """Three mistakes need one run and not three."""
    text = VALID_CONFIG.replace('"1h"', '"x"').replace("port = 0", "port = -1").replace('region = "FRA"', "regoin = 1")
    (tmp_path / "config.toml").write_text(text)
    assert_refused(run_command("serve", folder=tmp_path), "schedule.interval", "server.port", "regoin")


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    """The message says how to create one."""
    assert_refused(run_command("serve", folder=tmp_path), "config.toml", "config init")
    assert_refused(run_command("serve", "-c", str(tmp_path), folder=tmp_path), "folder")
    assert_refused(run_command("plan", "-c", "other.toml", folder=tmp_path), "other.toml")


def test_an_unknown_variable_is_named(tmp_path: Path) -> None:
    """A typing error in the environment is not passed over in silence."""
    (tmp_path / "config.toml").write_text(VALID_CONFIG)
    assert_refused(
        run_command("check", folder=tmp_path, JOBTESTER_SHEDULE__INTERVAL="5m"), "JOBTESTER_SHEDULE__INTERVAL"
    )


def test_the_starter_file_is_valid_but_for_its_secret(tmp_path: Path) -> None:
    """`config init` writes what `config show` reads; an existing file is kept."""
    assert run_command("config", "init", folder=tmp_path).returncode == 0
    assert_refused(run_command("config", "init", folder=tmp_path), "exists")
    hook = "https://hooks.example:8443/hidden-thing"
    secrets = {"JOBTESTER_LEADERBOARD__SECRET": "hidden-thing", "JOBTESTER_NOTIFY__URL": hook}
    shown = run_command("config", "show", folder=tmp_path, **secrets)
    assert shown.returncode == 0, shown.stderr
    assert "hidden-thing" not in shown.stdout
    (tmp_path / "again.toml").write_text(shown.stdout)
    again = run_command("config", "show", "-c", "again.toml", folder=tmp_path)
    assert again.stdout == shown.stdout


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """The daemon says which key to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = VALID_CONFIG.replace("port = 0", f"port = {taken.getsockname()[1]}")
        (tmp_path / "config.toml").write_text(text)
        assert_refused(run_command("serve", folder=tmp_path), "server.port", "taken")


def test_a_gateway_that_is_not_there_is_named(tmp_path: Path) -> None:
    """`check` lists every peer that does not answer; `run` and `plan` exit 1 with the reason."""
    (tmp_path / "config.toml").write_text(VALID_CONFIG)
    assert_refused(run_command("check", folder=tmp_path), "gateway g", "http://127.0.0.1:1", "discovery", code=1)
    assert_refused(run_command("plan", folder=tmp_path), "http://127.0.0.1:1", code=1)
    assert_refused(run_command("run", folder=tmp_path), "http://127.0.0.1:1", code=1)


@pytest.fixture
def html_server() -> Iterator[str]:
    """Serve a login page at every address, as a captive proxy does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Please log in</html>")

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_gateway_that_answers_html_is_named(tmp_path: Path, html_server: str) -> None:
    """Discovery says what it got."""
    (tmp_path / "config.toml").write_text(VALID_CONFIG.replace("http://127.0.0.1:1", html_server))
    assert_refused(run_command("plan", folder=tmp_path), "not JSON", "Please log in", code=1)


def test_usage_errors_exit_2(tmp_path: Path) -> None:
    """An unknown command or option, as in other programs."""
    assert run_command("nonsense", folder=tmp_path).returncode == 2
    assert run_command(folder=tmp_path).returncode == 2
    assert run_command("--help", folder=tmp_path).returncode == 0
    assert_refused(run_command("demo", "--scenario", "nowhere", folder=tmp_path), "nowhere")
