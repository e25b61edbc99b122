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


def test_a_whole_file(tmp_path: Path) -> None:
    """It is checked before it is written, corrected, commented, and holds no secret."""
    (tmp_path / "config.json").write_text(json.dumps(OLD))
    ran = run_command("config", "import", "config.json", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    text = (tmp_path / "config.toml").read_text()
    assert "do-not-write-me" not in text + ran.stdout
    found = tomllib.loads(text)
    assert found["leaderboard"] == {"url": "http://leaderboard:8080"}
    assert found["gateways"] == [{"name": "tester", "url": "http://gateway:8935", "cli_url": "http://gateway:7935"}]
    assert found["pipelines"]["text-to-image"]["parameters"] == {
        "prompt": 'a "quoted" fox',
        "width": 512,
        "height": 512,
    }
    assert set(found["pipelines"]) == {"text-to-image"}
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
    again = run_command("config", "import", "config.json", folder=tmp_path)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


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
    ran = run_command("config", "import", "config.json", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = tomllib.loads((tmp_path / "config.toml").read_text())
    assert found["pipelines"] == {"llm": {"capture_response": False, "parameters": {"max_tokens": 32}}}
    assert "form data" not in ran.stdout
    assert "Llm: messages left out; questions with known answers are asked instead" in ran.stdout
    assert "Llm: top_p left out, as the built-in request does not set them; [pipelines.llm.parameters]" in ran.stdout
    assert "Segment anything 2: box, multimask_output, point_coords left out; a small picture" in ran.stdout
    assert "refuse what they do not know" not in ran.stdout


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
def test_what_cannot_be_converted(text: str, problem: str, tmp_path: Path) -> None:
    """One clear message with the key, exit code 2, and nothing half written."""
    (tmp_path / "old.json").write_text(text)
    ran = run_command("config", "import", "old.json", "new.toml", folder=tmp_path)
    assert problem in ran.stderr + ran.stdout
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "new.toml").exists() == (ran.returncode == 0)
