"""The apps behind the runners: greeting, chat, embeddings, images and an echo."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobtester.simulator.runner import media
from jobtester.simulator.runner.byoc_workers import run_worker
from jobtester.simulator.scenario import RunnerSpec

_JSON = "application/json"
_NOT_AN_IMAGE = b"<html><body>404 not found</body></html>"
_IMAGE_SIZES = {
    "square": (512, 512), "square_hd": (1024, 1024), "portrait_4_3": (768, 1024), "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768), "landscape_16_9": (1024, 576),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AppRequest:
    """What an app receives. `headers` are those that the orchestrator adds."""

    method: str
    path: str
    query: str = ""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class AppResponse:
    """An app's response. With `chunks` it is streamed; `file` is served by its name, which the body has as `{file}`."""

    status: int = 200
    body: bytes = b""
    content_type: str = _JSON
    chunks: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    file: bytes = b""


def run_app(spec: RunnerSpec, request: AppRequest, fault: str) -> AppResponse:
    """Return the app's response, its content spoiled by `runner_wrong`. Blocks: call in a thread."""
    is_wrong = fault == "runner_wrong"
    match spec.app_kind:
        case "hello-world":
            return _greet(request, is_wrong=is_wrong)
        case "openai-chat":
            return _run_openai(spec, request, "/v1/chat/completions", "openai-chat-completions", is_wrong=is_wrong)
        case "openai-embeddings":
            return _run_openai(spec, request, "/v1/embeddings", "openai-text-embeddings", is_wrong=is_wrong)
        case "fal-text-to-image":
            return _create_image(request, is_wrong=is_wrong)
    return _echo(request, is_wrong=is_wrong)


def create_own_error(fault: str, *, is_session: bool) -> AppResponse | None:
    """Return the error response of an app that a fault makes fail, None for any other fault."""
    match fault:
        case "runner_fails":
            return _json_response({"detail": "Internal Server Error"}, 500)
        case "runner_says_busy":
            return AppResponse(503, b"no capacity available for runner", "text/plain")
        case "runner_says_missing":
            return AppResponse(404, b"runner not found", "text/plain")
        case "session_conflict" if is_session:
            return _json_response({"error": "runner already has an active session"}, 409)
        case "runner_redirects":
            return AppResponse(307, headers={"Location": "https://elsewhere.sim.example:8935/"})
    return None


def _greet(request: AppRequest, *, is_wrong: bool) -> AppResponse:
    if request.method not in ("GET", "POST"):
        return _json_response({"detail": "Method Not Allowed"}, 405)
    name = "world"
    if request.method == "POST":
        values = _parse_object(request.body)
        if values is None:
            return _json_response({"detail": "body is not a JSON object"}, 422)
        name = str(values.get("name") or name)
    return _json_response({"message": "Goodbye." if is_wrong else f"Hello, {name}!"})


def _run_openai(spec: RunnerSpec, request: AppRequest, path: str, capability: str, *, is_wrong: bool) -> AppResponse:
    if request.path != path:
        return _json_response({"detail": "Not Found"}, 404)
    if request.method != "POST":
        return _json_response({"detail": "Method Not Allowed"}, 405)
    if is_wrong and spec.app_kind == "openai-embeddings":
        return _json_response({"object": "list", "data": []})
    response = run_worker(capability, spec.model, request.body, "wrong_answer" if is_wrong else "")
    if not response.lines:
        return AppResponse(response.status, response.body)
    return AppResponse(
        content_type="text/event-stream", chunks=tuple(f"{line}\n\n".encode() for line in response.lines)
    )


def _create_image(request: AppRequest, *, is_wrong: bool) -> AppResponse:
    if request.method != "POST":
        return _json_response({"detail": "Method Not Allowed"}, 405)
    values = _parse_object(request.body) or {}
    if not values.get("prompt"):
        missing = {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
        return _json_response({"detail": [missing]}, 422)
    try:
        width, height = _parse_size(values.get("image_size") or "landscape_4_3")
    except (KeyError, TypeError, ValueError):
        return _json_response({"detail": [{"loc": ["body", "image_size"], "msg": "Input should be a size"}]}, 422)
    seed = values.get("seed")
    result = {
        "images": [{"url": "{file}", "width": width, "height": height, "content_type": "image/png"}],
        "timings": {"inference": 0.1},
        "seed": random.getrandbits(31) if seed is None else seed,
        "has_nsfw_concepts": [False],
        "prompt": values["prompt"],
    }
    content = _NOT_AN_IMAGE if is_wrong else media.create_image(width, height)
    return AppResponse(body=json.dumps(result).encode(), file=content)


def _parse_size(size: Any) -> tuple[int, int]:
    width, height = (int(size["width"]), int(size["height"])) if isinstance(size, dict) else _IMAGE_SIZES[size]
    if not (1 <= width <= 4096 and 1 <= height <= 4096):
        raise ValueError(f"size {width}x{height}")
    return width, height


def _echo(request: AppRequest, *, is_wrong: bool) -> AppResponse:
    if request.path != "/request":
        return AppResponse(
            body=b"something else" if is_wrong else request.body,
            content_type=request.content_type or "application/octet-stream",
        )
    shown = {"method": request.method, "query": request.query, "headers": dict(request.headers)}
    return _json_response(shown)


def _parse_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _json_response(value: object, status: int = 200) -> AppResponse:
    return AppResponse(status, json.dumps(value).encode())
