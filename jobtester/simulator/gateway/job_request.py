"""Decodes batch jobs as go-livepeer does, and refuses them with its texts."""

from __future__ import annotations

import json
from email.message import Message
from typing import Any

from jobtester.simulator.runner.ai_runner import BatchRequest

_BINDING_ERROR = "error binding string parameter: strconv."

# Field types by slug: i integer, f float, b bool, s text, m messages. "*" marks what the gateway itself requires.
_FIELDS: dict[str, dict[str, str]] = {
    "text-to-image": {
        "model_id": "s", "prompt": "s", "height": "i", "width": "i", "guidance_scale": "f", "negative_prompt": "s",
        "safety_check": "b", "seed": "i", "num_inference_steps": "i", "num_images_per_prompt": "i", "loras": "s",
    },
    "image-to-image": {
        "model_id": "s", "prompt": "s", "image": "file", "strength": "f", "guidance_scale": "f",
        "image_guidance_scale": "f", "negative_prompt": "s", "safety_check": "b", "seed": "i",
        "num_inference_steps": "i", "num_images_per_prompt": "i", "loras": "s",
    },
    "image-to-video": {
        "model_id": "s", "image": "file", "height": "i", "width": "i", "fps": "i", "motion_bucket_id": "i",
        "noise_aug_strength": "f", "safety_check": "b", "seed": "i", "num_inference_steps": "i",
    },
    "upscale": {
        "model_id": "s", "prompt": "s", "image": "file", "safety_check": "b", "seed": "i", "num_inference_steps": "i",
    },
    "audio-to-text": {"model_id": "s", "audio": "file", "return_timestamps": "s", "metadata": "s"},
    "segment-anything-2": {
        "model_id": "s", "image": "file", "point_coords": "s", "point_labels": "s", "box": "s", "mask_input": "s",
        "multimask_output": "b", "return_logits": "b", "normalize_coords": "b",
    },
    "llm": {
        "model": "s*", "messages": "m*", "stream": "b*", "max_tokens": "i*", "temperature": "f", "top_p": "f",
        "top_k": "i",
    },
    "llm form": {
        "model_id": "s", "prompt": "s", "system_msg": "s", "stream": "b", "max_tokens": "i", "temperature": "f",
        "history": "s",
    },
    "image-to-text": {"model_id": "s", "image": "file", "prompt": "s"},
    "text-to-speech": {"model_id": "s", "text": "s", "description": "s"},
}  # fmt: skip
JSON_PIPELINES = ("text-to-image", "llm", "text-to-speech")
_GO_STRUCTS = {"text-to-image": "TextToImageParams", "llm": "LLMRequest", "text-to-speech": "TextToSpeechParams"}
_GO_TYPES = {"i": "int", "f": "float32", "b": "bool", "s": "string"}
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


class BadRequestError(Exception):
    """The gateway responds 400 with this text, and no orchestrator is involved."""


def decode_job(pipeline: str, content_type: str, body: bytes, *, is_llm_form: bool = False) -> BatchRequest:
    """Decode a job as the gateway does: drop unknown fields, raise BadRequestError for wrong types.

    `is_llm_form`: the gateway takes llm jobs as forms, not as JSON.
    """
    if pipeline == "llm" and is_llm_form:
        return _convert_llm_form(_decode_form("llm form", content_type, body))
    is_json = pipeline in JSON_PIPELINES
    request = _decode_json(pipeline, body) if is_json else _decode_form(pipeline, content_type, body)
    if pipeline == "text-to-speech" and not request.text("text"):
        raise BadRequestError("text field is required")
    return request


def _convert_llm_form(form: BatchRequest) -> BatchRequest:
    """Return the chat request that an llm form stands for."""
    if any(form.values.get(name) in (None, "") for name in ("prompt", "model_id")):
        raise BadRequestError("missing required fields")
    messages = [{"role": "user", "content": form.text("prompt")}]
    if form.text("system_msg"):
        messages.insert(0, {"role": "system", "content": form.text("system_msg")})
    values: dict[str, Any] = {"messages": messages}
    values |= {name: form.values[name] for name in ("max_tokens", "temperature") if name in form.values}
    return BatchRequest("llm", form.model, values, is_llm_form=True)


def _decode_json(pipeline: str, body: bytes) -> BatchRequest:
    text = body.decode("utf-8", "replace").lstrip()
    if not text:
        raise BadRequestError("EOF")
    try:
        data, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        raise BadRequestError(_json_error_text(text, error)) from error
    if not isinstance(data, dict):
        raise BadRequestError(
            f"json: cannot unmarshal {_go_type_name(data)} into Go value of type worker.{_GO_STRUCTS[pipeline]}"
        )
    values = {}
    for name, kind in _FIELDS[pipeline].items():
        value = data.get(name)
        if value is None:
            continue
        if not _has_type(kind[0], value):
            go_type = _GO_TYPES.get(kind[0], "[]worker.LLMMessage")
            field = f"Go struct field {_GO_STRUCTS[pipeline]}.{name} of type {go_type}"
            raise BadRequestError(f"json: cannot unmarshal {_go_type_name(value)} into {field}")
        values[name] = value
    required = [name for name, kind in _FIELDS[pipeline].items() if kind.endswith("*")]
    if any(name not in values or (values[name] in ("", [], 0) and name != "stream") for name in required):
        raise BadRequestError("missing required fields")
    return BatchRequest(pipeline, str(values.get("model_id") or values.get("model") or ""), values)


def _json_error_text(text: str, error: json.JSONDecodeError) -> str:
    if text.startswith("-"):
        return "invalid character '-' in numeric literal"
    if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg:
        return "unexpected EOF"
    return f"invalid character {text[error.pos]!r} looking for beginning of value"


def _has_type(kind: str, value: object) -> bool:
    match kind:
        case "i":
            return isinstance(value, int) and not isinstance(value, bool)
        case "f":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "b":
            return isinstance(value, bool)
        case "s":
            return isinstance(value, str)
    return isinstance(value, list) and all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in value
    )


def _go_type_name(value: object) -> str:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    if isinstance(value, float):
        return f"number {value}"
    return kinds.get(type(value), "null")


def _decode_form(pipeline: str, content_type: str, body: bytes) -> BatchRequest:
    header = Message()
    header["Content-Type"] = content_type or "text/plain"
    if header.get_content_type() != "multipart/form-data":
        raise BadRequestError("request Content-Type isn't multipart/form-data")
    boundary = header.get_boundary()
    if not boundary:
        raise BadRequestError("no multipart boundary param in Content-Type")
    if not body:
        raise BadRequestError("multipart: NextPart: EOF")
    values: dict[str, Any] = {}
    upload = b""
    for name, filename, content in _split_parts(body, boundary.encode()):
        kind = _FIELDS[pipeline].get(name)
        if kind is None or name in values:
            continue
        if kind == "file":
            if filename is not None:
                upload = upload or content
            continue
        values[name] = _parse_scalar(kind, content.decode("utf-8", "replace"))
    return BatchRequest(pipeline, str(values.get("model_id") or ""), values, upload)


def _split_parts(body: bytes, boundary: bytes) -> list[tuple[str, str | None, bytes]]:
    if b"--" + boundary + b"--" not in body:
        raise BadRequestError("multipart: NextPart: EOF")
    parts = []
    for chunk in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
        head, _, content = chunk.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        part = Message()
        for line in head.decode("utf-8", "replace").split("\r\n"):
            key, _, value = line.partition(":")
            part[key] = value.strip()
        name = part.get_param("name", header="Content-Disposition")
        filename = part.get_filename()
        if isinstance(name, str):
            parts.append((name, filename, content))
    return parts


def _parse_scalar(kind: str, text: str) -> object:
    match kind:
        case "i":
            try:
                return int(text, 10)
            except ValueError:
                raise BadRequestError(f'{_BINDING_ERROR}ParseInt: parsing "{text}": invalid syntax') from None
        case "f":
            try:
                return float(text)
            except ValueError:
                raise BadRequestError(f'{_BINDING_ERROR}ParseFloat: parsing "{text}": invalid syntax') from None
        case "b":
            if text in _TRUE or text in _FALSE:
                return text in _TRUE
            raise BadRequestError(f'{_BINDING_ERROR}ParseBool: parsing "{text}": invalid syntax')
    return text
