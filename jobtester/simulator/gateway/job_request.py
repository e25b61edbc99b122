"""A batch job as the gateway understands it, or its refusal in the gateway's own words."""

from __future__ import annotations

import json
from email.message import Message
from typing import Any

from jobtester.simulator.runner.ai_runner import Job

_PREFIX = "error binding string parameter: strconv."

# Field kinds by slug: i integer, f float, b bool, s text, m messages. "*" marks what the gateway itself insists on.
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
_STRUCT = {"text-to-image": "TextToImageParams", "llm": "LLMRequest", "text-to-speech": "TextToSpeechParams"}
_GO = {"i": "int", "f": "float32", "b": "bool", "s": "string"}
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


class BadRequest(Exception):
    """The gateway answers 400 with this text, and no orchestrator is involved."""


def decode(pipeline: str, content_type: str, body: bytes, *, llm_form: bool = False) -> Job:
    """Decode a job as the gateway does: unknown fields dropped, wrong types refused. BadRequest otherwise.

    `llm_form`: the gateway takes llm jobs as forms, not as JSON.
    """
    if pipeline == "llm" and llm_form:
        return _chat(_from_form("llm form", content_type, body))
    job = _from_json(pipeline, body) if pipeline in JSON_PIPELINES else _from_form(pipeline, content_type, body)
    if pipeline == "text-to-speech" and not job.text("text"):
        raise BadRequest("text field is required")
    return job


def _chat(form: Job) -> Job:
    """Turn an old llm form into the chat that it stands for."""
    if any(form.values.get(name) in (None, "") for name in ("prompt", "model_id")):
        raise BadRequest("missing required fields")
    messages = [{"role": "user", "content": form.text("prompt")}]
    if form.text("system_msg"):
        messages.insert(0, {"role": "system", "content": form.text("system_msg")})
    values: dict[str, Any] = {"messages": messages}
    values |= {name: form.values[name] for name in ("max_tokens", "temperature") if name in form.values}
    return Job("llm", form.model, values, is_llm_form=True)


def _from_json(pipeline: str, body: bytes) -> Job:
    text = body.decode("utf-8", "replace").lstrip()
    if not text:
        raise BadRequest("EOF")
    try:
        data, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        raise BadRequest(_decoder_text(text, error)) from error
    if not isinstance(data, dict):
        raise BadRequest(f"json: cannot unmarshal {_go(data)} into Go value of type worker.{_STRUCT[pipeline]}")
    values = {}
    for name, kind in _FIELDS[pipeline].items():
        value = data.get(name)
        if value is None:
            continue
        if not _fits(kind[0], value):
            where = f"Go struct field {_STRUCT[pipeline]}.{name} of type {_GO.get(kind[0], '[]worker.LLMMessage')}"
            raise BadRequest(f"json: cannot unmarshal {_go(value)} into {where}")
        values[name] = value
    required = [name for name, kind in _FIELDS[pipeline].items() if kind.endswith("*")]
    if any(name not in values or (values[name] in ("", [], 0) and name != "stream") for name in required):
        raise BadRequest("missing required fields")
    return Job(pipeline, str(values.get("model_id") or values.get("model") or ""), values)


def _decoder_text(text: str, error: json.JSONDecodeError) -> str:
    if text.startswith("-"):
        return "invalid character '-' in numeric literal"
    if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg:
        return "unexpected EOF"
    return f"invalid character {text[error.pos]!r} looking for beginning of value"


def _fits(kind: str, value: object) -> bool:
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
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in value
    )


def _go(value: object) -> str:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    if isinstance(value, float):
        return f"number {value}"
    return kinds.get(type(value), "null")


def _from_form(pipeline: str, content_type: str, body: bytes) -> Job:
    header = Message()
    header["Content-Type"] = content_type or "text/plain"
    if header.get_content_type() != "multipart/form-data":
        raise BadRequest("request Content-Type isn't multipart/form-data")
    boundary = header.get_boundary()
    if not boundary:
        raise BadRequest("no multipart boundary param in Content-Type")
    if not body:
        raise BadRequest("multipart: NextPart: EOF")
    values: dict[str, Any] = {}
    upload = b""
    for name, filename, content in _parts(body, boundary.encode()):
        kind = _FIELDS[pipeline].get(name)
        if kind is None or name in values:
            continue
        if kind == "file":
            if filename is not None:
                upload = upload or content
            continue
        values[name] = _scalar(kind, content.decode("utf-8", "replace"))
    return Job(pipeline, str(values.get("model_id") or ""), values, upload)


def _parts(body: bytes, boundary: bytes) -> list[tuple[str, str | None, bytes]]:
    if b"--" + boundary + b"--" not in body:
        raise BadRequest("multipart: NextPart: EOF")
    found = []
    for chunk in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
        head, _, content = chunk.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        part = Message()
        for line in head.decode("utf-8", "replace").split("\r\n"):
            key, _, value = line.partition(":")
            part[key] = value.strip()
        name = part.get_param("name", header="Content-Disposition")
        filename = part.get_filename()
        if isinstance(name, str):
            found.append((name, filename, content))
    return found


def _scalar(kind: str, text: str) -> object:
    match kind:
        case "i":
            try:
                return int(text, 10)
            except ValueError:
                raise BadRequest(f'{_PREFIX}ParseInt: parsing "{text}": invalid syntax') from None
        case "f":
            try:
                return float(text)
            except ValueError:
                raise BadRequest(f'{_PREFIX}ParseFloat: parsing "{text}": invalid syntax') from None
        case "b":
            if text in _TRUE or text in _FALSE:
                return text in _TRUE
            raise BadRequest(f'{_PREFIX}ParseBool: parsing "{text}": invalid syntax')
    return text
