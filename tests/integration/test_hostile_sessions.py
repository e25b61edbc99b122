"""Orchestrators that answer reservations with lies: nothing goes elsewhere, and their sessions are stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from jobtester.simulator.runner.media import create_image
from tests.harness.live_runners import FakeOrchestrator, config, fake_orchestrators, run_tick

SAY = {"runner": True, "apps": ["someone/*"], "uri": "/say", "timeout": "20s"}


class LyingOrchestrator(FakeOrchestrator):
    """Reserves sessions of one app, and answers with what it is told to; `{uri}` is its own address."""

    def __init__(self, answer: Any, status: int = 200) -> None:
        """Answer every reservation so."""
        super().__init__({"app": self._handle}, {"app": {"mode": "persistent", "url": "{uri}/apps/app/session"}})
        self.answer, self.status = answer, status

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path.endswith("/stop"):
            return web.Response(status=204)
        if "/say" in path:
            return web.json_response({"text": "hello"})
        if isinstance(self.answer, bytes):
            return web.Response(status=self.status, body=self.answer)
        filled = {key: str(value).replace("{uri}", self.uri) for key, value in self.answer.items()}
        return web.json_response(filled, status=self.status)

    @property
    def paths(self) -> list[str]:
        """The paths that were asked for below the one of reservations, which is `/` itself."""
        return [path or "/" for _, path, _ in self.requests]


OWN = "{uri}/apps/app/session/s1"
LIES: dict[str, tuple[Any, int, str, list[str]]] = {
    "honest": ({"session_id": "s1", "app_url": f"{OWN}/app", "control_url": OWN}, 200, "ok",
               ["/", "/s1/app/say", "/s1/stop"]),
    "foreign app": ({"session_id": "s1", "app_url": "https://other.example/app", "control_url": OWN}, 200, "refuted",
                    ["/", "/s1/stop"]),
    "foreign control": ({"session_id": "s1", "app_url": f"{OWN}/app", "control_url": "https://other.example/s1"}, 200,
                        "refuted", ["/", "/s1/stop"]),
    "another port": ({"session_id": "s1", "app_url": "https://127.0.0.1:1/app", "control_url": OWN}, 200, "refuted",
                     ["/", "/s1/stop"]),
    "another scheme": ({"session_id": "s1", "app_url": "http://127.0.0.1:1/app", "control_url": OWN}, 200, "refuted",
                       ["/", "/s1/stop"]),
    "a path as id": ({"session_id": "../../x", "app_url": f"{OWN}/app", "control_url": ""}, 200, "bad_json", ["/"]),
    "no urls": ({"session_id": "s1"}, 200, "bad_json", ["/", "/s1/stop"]),
    "no values": ({}, 200, "bad_json", ["/"]),
    "a number as id": (b'{"session_id": 7}', 200, "bad_json", ["/"]),
    "no json": (b"<html>welcome</html>", 200, "bad_json", ["/"]),
    "a list": (b"[1]", 200, "bad_json", ["/"]),
    "nothing": (b"", 200, "check:body", ["/"]),
    "too much": (b"x" * 300_000, 200, "too_large", ["/"]),
    "an error": (b"boom", 500, "app_error", ["/"]),
    "a demand": ({"payment_params": "eA=="}, 402, "payment_required", ["/"]),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_costs_nobody_else_anything(tmp_path: Path, lie: str) -> None:
    """Each answer has its reason; only the orchestrator's own address is ever asked, also to stop the session."""
    answer, status, reason, paths = LIES[lie]
    node = LyingOrchestrator(answer, status)
    async with fake_orchestrators(node) as tables:
        results, _ = await run_tick(config(tmp_path, tables, pipelines={"say": SAY}))
    assert {row.reason for row in results.values()} == {reason}, [row.message for row in results.values()]
    assert node.paths == paths


class GalleryOrchestrator(LyingOrchestrator):
    """Its app answers with the URL of a file that goes with the session."""

    def __init__(self) -> None:
        """Be honest about everything."""
        super().__init__({"session_id": "s1", "app_url": f"{OWN}/app", "control_url": OWN})
        self.is_open = True

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path.endswith("/stop"):
            self.is_open = False
        if path.endswith("/say"):
            return web.json_response({"images": [{"url": f"{self.uri}/apps/app/session/s1/app/files/a.png"}]})
        if path.endswith("/files/a.png") and self.is_open:
            return web.Response(body=create_image(64, 64), content_type="image/png")
        return web.Response(status=404) if "/files/" in path else await super()._handle(request)


async def test_files_are_fetched_before_the_session_ends(tmp_path: Path) -> None:
    """What an answer names may be gone once the session is stopped."""
    node = GalleryOrchestrator()
    pipelines = {"say": {**SAY, "checks": [{"check": "image", "size": "64x64", "seed": False}]}}
    async with fake_orchestrators(node) as tables:
        results, _ = await run_tick(config(tmp_path, tables, pipelines=pipelines))
    assert [row.reason for row in results.values()] == ["ok"], [row.message for row in results.values()]
    assert node.paths == ["/", "/s1/app/say", "/s1/app/files/a.png", "/s1/stop"]
