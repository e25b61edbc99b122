"""Orchestrators that answer reservations with lies: nothing goes elsewhere, and their sessions are stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

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
    "no json": (b"<html>welcome</html>", 200, "bad_json", ["/"]),
    "a list": (b"[1]", 200, "bad_json", ["/"]),
    "nothing": (b"", 200, "check:body", ["/"]),
    "too much": (b"x" * 100_000, 200, "too_large", ["/"]),
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
