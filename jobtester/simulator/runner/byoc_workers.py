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
    """A worker's response: a body, or the lines of a stream."""

    status: int
    body: bytes = b""
    lines: tuple[str, ...] = ()


def run_worker(capability: str, model: str, body: bytes, fault: str, thinking_tokens: int = 0) -> WorkerResponse:
    """Return the response to a job, its content spoiled by `fault` where it applies. Blocks: call in a thread."""
    try:
        request = json.loads(body)
    except ValueError:
        request = None
    if not capability.startswith("openai-"):
        return WorkerResponse(200, body)
    if not isinstance(request, dict):
        return _bad_request("body is not a JSON object")
    requested_model = request.get("model") or model
    if model and requested_model != model:
        error = {"message": f"The model `{requested_model}` does not exist.", "code": 404}
        return WorkerResponse(404, _json({"error": error}))
    match capability:
        case "openai-chat-completions":
            return _chat(request, requested_model, fault, thinking_tokens)
        case "openai-text-embeddings":
            return _embeddings(request, requested_model)
        case "openai-image-generation":
            return _image(request)
    return _bad_request("unknown capability")


def _chat(request: dict[str, Any], model: str, fault: str, thinking_tokens: int) -> WorkerResponse:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return _bad_request("messages is required")
    contents = [{"content": str(message.get("content", ""))} for message in messages if isinstance(message, dict)]
    max_tokens = int(request.get("max_tokens") or 256)
    answer = {"object": "chat.completion", **complete_chat(model, contents, max_tokens, fault, thinking_tokens)}
    if not request.get("stream"):
        return WorkerResponse(200, _json(answer))
    choice = answer["choices"][0]
    content_words, thought_words = (
        re.findall(r"\S+\s*", choice["message"].get(name, "")) for name in ("content", "reasoning_content")
    )
    pieces = [*({"reasoning_content": word} for word in thought_words), *({"content": word} for word in content_words)]
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


def _embeddings(request: dict[str, Any], model: str) -> WorkerResponse:
    texts_or_text = request.get("input")
    inputs = texts_or_text if isinstance(texts_or_text, list) else [texts_or_text]
    texts = [text for text in inputs if isinstance(text, str)]
    if not texts:
        return _bad_request("input is required")
    count = sum(map(count_tokens, texts))
    data = [{"object": "embedding", "index": index, "embedding": embed_text(text)} for index, text in enumerate(texts)]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return WorkerResponse(200, _json({"object": "list", "data": data, "model": model, "usage": usage}))


def _image(request: dict[str, Any]) -> WorkerResponse:
    if not request.get("prompt"):
        return _bad_request("prompt is required")
    try:
        width, height = (int(side) for side in str(request.get("size") or "512x512").split("x"))
    except ValueError:
        return _bad_request("size must look like 512x512")
    image = base64.b64encode(media.create_image(width, height)).decode()
    return WorkerResponse(
        200, _json({"created": int(time.time()), "data": [{"b64_json": image}] * int(request.get("n") or 1)})
    )


def _bad_request(message: str) -> WorkerResponse:
    return WorkerResponse(400, _json({"error": {"message": message, "type": "invalid_request_error"}}))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
