"""The workers behind external capabilities: OpenAI-like chat, embeddings and images, and an echo for the rest."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass
from typing import Any

from jobtester.simulator.runner import media
from jobtester.simulator.runner.ai_runner import complete_chat, count_tokens, embed_text


@dataclass(frozen=True, slots=True)
class WorkerResponse:
    """A worker's answer, or the lines of its stream."""

    status: int
    body: bytes = b""
    lines: tuple[str, ...] = ()


def run_worker(capability: str, model: str, body: bytes, fault: str, thinking_tokens: int = 0) -> WorkerResponse:
    """Do the job; `fault` spoils the content where it can. Blocks for a while: call in a thread."""
    try:
        asked = json.loads(body)
    except ValueError:
        asked = None
    if not capability.startswith("openai-"):
        return WorkerResponse(200, body)
    if not isinstance(asked, dict):
        return _bad_request("body is not a JSON object")
    wanted = asked.get("model") or model
    if model and wanted != model:
        return WorkerResponse(404, _json({"error": {"message": f"The model `{wanted}` does not exist.", "code": 404}}))
    match capability:
        case "openai-chat-completions":
            return _chat(asked, wanted, fault, thinking_tokens)
        case "openai-text-embeddings":
            return _embeddings(asked, wanted)
        case "openai-image-generation":
            return _image(asked)
    return _bad_request("unknown capability")


def _chat(asked: dict[str, Any], model: str, fault: str, thinking_tokens: int) -> WorkerResponse:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        return _bad_request("messages is required")
    plain = [{"content": str(message.get("content", ""))} for message in messages if isinstance(message, dict)]
    limit = int(asked.get("max_tokens") or 256)
    answer = {"object": "chat.completion", **complete_chat(model, plain, limit, fault, thinking_tokens)}
    if not asked.get("stream"):
        return WorkerResponse(200, _json(answer))
    choice = answer["choices"][0]
    said, thought = (
        re.findall(r"\S+\s*", choice["message"].get(name, "")) for name in ("content", "reasoning_content")
    )
    pieces = [*({"reasoning_content": word} for word in thought), *({"content": word} for word in said)]
    deltas = [{"role": "assistant", "content": ""}, *pieces, {}]
    chunks = [
        {
            **answer,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else choice["finish_reason"]}],
            "usage": None if delta else answer["usage"],
        }
        for delta in deltas
    ]
    return WorkerResponse(200, lines=(*(f"data: {json.dumps(chunk)}" for chunk in chunks), "data: [DONE]"))


def _embeddings(asked: dict[str, Any], model: str) -> WorkerResponse:
    given = asked.get("input")
    texts = [text for text in (given if isinstance(given, list) else [given]) if isinstance(text, str)]
    if not texts:
        return _bad_request("input is required")
    count = sum(map(count_tokens, texts))
    data = [{"object": "embedding", "index": index, "embedding": embed_text(text)} for index, text in enumerate(texts)]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return WorkerResponse(200, _json({"object": "list", "data": data, "model": model, "usage": usage}))


def _image(asked: dict[str, Any]) -> WorkerResponse:
    if not asked.get("prompt"):
        return _bad_request("prompt is required")
    try:
        width, height = (int(side) for side in str(asked.get("size") or "512x512").split("x"))
    except ValueError:
        return _bad_request("size must look like 512x512")
    picture = base64.b64encode(media.create_image(width, height)).decode()
    return WorkerResponse(
        200, _json({"created": int(time.time()), "data": [{"b64_json": picture}] * int(asked.get("n") or 1)})
    )


def _bad_request(message: str) -> WorkerResponse:
    return WorkerResponse(400, _json({"error": {"message": message, "type": "invalid_request_error"}}))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
