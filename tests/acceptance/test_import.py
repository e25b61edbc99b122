"""`jobtester config import` makes a usable config.toml of the earlier Go tester's config.json."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.harness.process import run_command

OLD: dict[str, Any] = {
    "region": "FRA",
    "internalWebServerPort": "7934",
    "internalWebServerAddress": "0.0.0.0",
    "metricsApiEndpoint": "http://leaderboard:8080/api/post_stats",
    "metricsSecret": "do-not-write-me",
    "broadcasterJobEndpoint": "http://gateway:8935",
    "broadcasterCliEndpoint": "http://gateway:7935",
    "broadcasterRequestToken": "None",
    "pipelines": [
        {"name": "Text to image", "uri": "text-to-image", "contentType": "application/json",
         "parameters": {"prompt": "a \"quoted\" fox", "width": 512, "height": 512, "made_up": 1}},
        {"name": "Llm", "uri": "llm", "contentType": "multipart/form-data", "parameters": {"prompt": "hello"}},
        {"name": "Segment anything 2", "uri": "segment-anything-2", "parameters": {"safety_check": True}},
        {"name": "Live video to video", "live": True, "parameters": {}},
    ],
    "somethingElse": 1,
}  # fmt: skip


def test_a_complete_file_is_converted(tmp_path: Path) -> None:
    """The new file is checked before it is written, has a remark on each change, and holds no secret."""
    (tmp_path / "config.json").write_text(json.dumps(OLD))
    process = run_command("config", "import", "config.json", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    text = (tmp_path / "config.toml").read_text()
    assert "do-not-write-me" not in text + process.stdout
    content = tomllib.loads(text)
    assert content["leaderboard"] == {"url": "http://leaderboard:8080"}
    assert content["gateways"] == [{"name": "tester", "url": "http://gateway:8935", "cli_url": "http://gateway:7935"}]
    assert content["pipelines"]["text-to-image"]["parameters"] == {
        "prompt": 'a "quoted" fox',
        "width": 512,
        "height": 512,
    }
    assert set(content["pipelines"]) == {"text-to-image"}
    for remark in (
        "made_up",
        "metricsSecret",
        "Live video to video",
        "somethingElse",
        "safety_check",
        "only gateways of the fork 0.0.11",
    ):
        assert remark in text, remark
    shown = run_command("config", "show", folder=tmp_path, JOBTESTER_LEADERBOARD__SECRET="x")
    assert shown.returncode == 0, shown.stderr
    repeated = run_command("config", "import", "config.json", folder=tmp_path)
    assert (repeated.returncode, "exists already" in repeated.stderr) == (2, True)


def test_remarks_are_true(tmp_path: Path) -> None:
    """What belongs to the Go tester's own inputs is replaced, what runners know is not called unknown to them."""
    points = {"point_coords": "[[1,2]]", "box": "[1,2,3,4]", "multimask_output": True, "made_up": 1}
    old = {
        **OLD,
        "pipelines": [
            {"name": "Llm", "uri": "llm", "contentType": "application/json", "capture_response": False,
             "parameters": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 32, "top_p": 0.9}},
            {"name": "Segment anything 2", "uri": "segment-anything-2", "parameters": points},
        ],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(old))
    process = run_command("config", "import", "config.json", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    content = tomllib.loads((tmp_path / "config.toml").read_text())
    assert content["pipelines"] == {"llm": {"capture_response": False, "parameters": {"max_tokens": 32}}}
    assert "form data" not in process.stdout
    assert "Llm: messages left out; questions with known answers are asked instead" in process.stdout
    assert (
        "Llm: top_p left out, as the built-in request does not set them; [pipelines.llm.parameters]" in process.stdout
    )
    assert "Segment anything 2: box, multimask_output, point_coords left out; a small picture" in process.stdout
    assert "refuse what they do not know" not in process.stdout


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not valid JSON"),
        ("[]", "has to be a JSON object"),
        ("{}", "gateways[0].url: has to be an http:// or https:// address"),
        (json.dumps({**OLD, "internalWebServerPort": "many"}), "server.port"),
        (json.dumps({**OLD, "pipelines": {"a": 1}}), "written"),
    ],
)
def test_an_unusable_file_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    """One clear message with the key, exit code 2, and nothing half written."""
    (tmp_path / "old.json").write_text(text)
    process = run_command("config", "import", "old.json", "new.toml", folder=tmp_path)
    assert problem in process.stderr + process.stdout
    assert "Traceback" not in process.stderr
    assert (tmp_path / "new.toml").exists() == (process.returncode == 0)
