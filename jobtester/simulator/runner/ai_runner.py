"""A simulated ai-runner: the result of a batch job, good or spoiled by a fault."""

from __future__ import annotations

import io
import random
import re
import time
import zlib
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from jobtester.simulator.runner import media
from jobtester.simulator.runner.known_inputs import KnownInputs
from jobtester.simulator.runner.segmentation import segment

_REQUESTED_WORD = re.compile(r"only the (?:number|word) (\w+)", re.IGNORECASE)
DURATION_ERROR = "audio duration calculation failed"
_TOKEN = re.compile(r"\w+|[^\w\s]")
_THOUGHT = "okay the user wants one thing from me so let me think about what that may be and how to put it"
_WRONG_TEXT = "seven green elephants whisper loudly about yesterday's weather report"


class RunnerRefusedError(Exception):
    """The runner responds 400 with this text: it cannot use the job's content."""


class UndecodableUploadError(Exception):
    """The upload cannot be measured before the runner gets it. go-livepeer blames the orchestrator for this."""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One decoded batch job. `upload` is its file, empty if it has none or the part is missing.

    `is_llm_form`: an llm job as the form that versions before 0.8.3 take.
    """

    pipeline: str
    model: str
    values: dict[str, Any] = field(default_factory=dict)
    upload: bytes = b""
    is_llm_form: bool = False

    def number(self, name: str, default: int) -> int:
        """Return an integer field."""
        value = self.values.get(name)
        return default if value is None else int(value)

    def text(self, name: str) -> str:
        """Return a text field, empty if it was not sent."""
        return str(self.values.get(name) or "")


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file for the gateway's object store. `is_unreachable`: the result names its URL, which is not served."""

    suffix: str
    content: bytes
    is_unreachable: bool = False


@dataclass(frozen=True, slots=True)
class RunnerResult:
    """A runner's result. If there are files, the gateway builds the payload around their URLs."""

    payload: Any = None
    files: tuple[ResultFile, ...] = ()
    seed: int | None = None


def run_job(job: BatchRequest, fault: str, known_inputs: KnownInputs, thinking_tokens: int = 0) -> RunnerResult:
    """Return the result of a job, its content spoiled by `fault` where it applies. Blocks: call in a thread.

    A language model spends `thinking_tokens` on thoughts before its answer.
    """
    if job.pipeline in ("text-to-image", "image-to-image", "upscale"):
        return _create_images(job, fault)
    if job.pipeline == "image-to-video":
        return _create_video(job, fault)
    if job.pipeline == "text-to-speech":
        return _create_speech(job, fault)
    if job.pipeline == "llm":
        limit = job.number("max_tokens", 256)
        return RunnerResult(complete_chat(job.model, job.values["messages"], limit, fault, thinking_tokens))
    if job.pipeline == "audio-to-text":
        return RunnerResult(_transcribe(job, fault, known_inputs))
    if job.pipeline == "image-to-text":
        caption = f"{job.text('prompt')} {known_inputs.describe(job.upload)}".strip()
        return RunnerResult({"text": _apply_text_fault(caption, fault)})
    return RunnerResult(_segment(job, fault))


def answer_prompt(prompt: str, fault: str = "") -> str:
    """Return what a good language model answers to a tester's prompt, spoiled by `fault` where it applies."""
    match = _REQUESTED_WORD.search(prompt)
    return _apply_text_fault(match[1] if match else "A bear is a large mammal that lives in forests.", fault)


def complete_chat(
    model: str, messages: list[dict[str, str]], max_tokens: int, fault: str = "", thinking_tokens: int = 0
) -> dict[str, Any]:
    """Return a completion as ai-runner does, with at most `max_tokens` tokens, thoughts included."""
    thought_tokens = min(thinking_tokens, max_tokens)
    full_text = answer_prompt(messages[-1]["content"], fault)
    text = _truncate(full_text, max_tokens - thought_tokens)
    prompt_tokens = sum(count_tokens(message["content"]) + 4 for message in messages)
    completion_tokens = min(thought_tokens + max(1, count_tokens(text)), max_tokens)
    message = {"content": text, "role": "assistant"}
    if thought_tokens:
        message["reasoning_content"] = " ".join(islice(cycle(_THOUGHT.split()), thought_tokens))
    is_complete = text == full_text and thought_tokens == thinking_tokens
    return {
        "choices": [{"finish_reason": "stop" if is_complete else "length", "index": 0, "message": message}],
        "created": int(time.time()),
        "id": f"chatcmpl-{random.getrandbits(48):012x}",
        "model": model,
        "usage": {
            "completion_tokens": completion_tokens,
            "prompt_tokens": prompt_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def count_tokens(text: str) -> int:
    """Return roughly how many tokens a text has."""
    return len(_TOKEN.findall(text))


def _truncate(text: str, max_tokens: int) -> str:
    """Return the beginning of a text that fits into `max_tokens`."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    if len(ends) <= max_tokens:
        return text
    return text[: ends[max_tokens - 1]] if max_tokens > 0 else ""


def _apply_text_fault(text: str, fault: str) -> str:
    return {"empty_text": "", "wrong_answer": _WRONG_TEXT, "wrong_transcript": _WRONG_TEXT}.get(fault, text)


def _create_images(job: BatchRequest, fault: str) -> RunnerResult:
    if not job.text("prompt"):
        raise RunnerRefusedError("Prompt must be provided.")
    width, height = _image_size(job)
    seed = job.number("seed", random.getrandbits(31))
    if fault == "no_seed_echo":
        seed += 1
    if fault == "empty_images":
        return RunnerResult(seed=seed)
    if fault == "wrong_size":
        width, height = width // 2, height // 2
    if fault == "bomb_image":
        content = media.create_decompression_bomb()
    elif fault == "not_an_image":
        content = b"<html><body>404 not found</body></html>"
    else:
        content = media.create_image(width, height, blank=fault == "blank_image")
    if fault == "truncated_image":
        content = content[: len(content) // 2]
    count = max(1, job.number("num_images_per_prompt", 1))
    file = ResultFile("png", content, is_unreachable=fault == "unreachable_artifact")
    return RunnerResult(files=(file,) * count, seed=seed)


def _image_size(job: BatchRequest) -> tuple[int, int]:
    if job.pipeline == "text-to-image":
        return job.number("width", 512), job.number("height", 512)
    width, height = _measure_upload(job)
    if job.pipeline == "upscale":
        return 4 * width, 4 * height
    return width // 8 * 8, height // 8 * 8


def _measure_upload(job: BatchRequest) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(job.upload)) as image:
            if image.format in ("PNG", "JPEG", "GIF") or job.pipeline == "image-to-video":
                return image.size
    except UnidentifiedImageError as error:
        if job.pipeline == "image-to-video":
            raise RunnerRefusedError("Error during model execution: cannot identify image file.") from error
    raise UndecodableUploadError("image: unknown format")


def _create_video(job: BatchRequest, fault: str) -> RunnerResult:
    _measure_upload(job)
    width, height = job.number("width", 1024), job.number("height", 576)
    if width % 8 or height % 8:
        raise RunnerRefusedError(f"`height` and `width` have to be divisible by 8 but are {height} and {width}.")
    seed = job.number("seed", random.getrandbits(31))
    if fault == "empty_images":
        return RunnerResult(seed=seed)
    if fault == "wrong_size":
        width, height = width // 2, height // 2
    frames = 25 if "xt" in job.model.lower() else 14
    content = media.create_video(width, height, fps=job.number("fps", 7), frames=frames, flat=fault == "flat_video")
    return RunnerResult(files=(ResultFile("mp4", content, is_unreachable=fault == "unreachable_artifact"),), seed=seed)


def _create_speech(job: BatchRequest, fault: str) -> RunnerResult:
    tenths = max(5, round(len(job.text("text")) / 1.5))
    content = media.create_audio(tenths, silent=fault == "silent_audio")
    return RunnerResult(files=(ResultFile("wav", content, is_unreachable=fault == "unreachable_artifact"),))


def _transcribe(job: BatchRequest, fault: str, known_inputs: KnownInputs) -> dict[str, Any]:
    duration = _measure_duration(job.upload)
    text = _apply_text_fault(known_inputs.transcribe(job.upload), fault)
    words = text.split()
    if not words or job.text("return_timestamps") in ("false", "0"):
        return {"chunks": [], "text": f" {text}"}
    half = (len(words) + 1) // 2
    middle = round(duration / 2, 2)
    chunks = [{"text": " " + " ".join(words[:half]), "timestamp": [0, middle]}]
    if words[half:]:
        chunks.append({"text": " " + " ".join(words[half:]), "timestamp": [middle, round(duration, 2)]})
    return {"chunks": chunks, "text": f" {text}"}


def _measure_duration(upload: bytes) -> float:
    import av

    try:
        with av.open(io.BytesIO(upload), "r") as container:
            seconds = (container.duration or 0) / av.time_base
    except (av.FFmpegError, ValueError) as error:
        raise RunnerRefusedError(DURATION_ERROR) from error
    if seconds < 1:
        raise RunnerRefusedError(DURATION_ERROR)
    return seconds


def _segment(job: BatchRequest, fault: str) -> dict[str, str]:
    _measure_upload(job)
    try:
        return segment(
            job.upload,
            points=job.text("point_coords"),
            box=job.text("box"),
            multimask=bool(job.values.get("multimask_output", True)),
            logits=bool(job.values.get("return_logits", True)),
            wrong=fault == "wrong_mask",
            nan=fault == "nan_mask",
        )
    except ValueError as error:
        raise RunnerRefusedError(f"Error parsing JSON for point_coords: {error}") from error


def embed_text(text: str, width: int = 64) -> list[float]:
    """Return an embedding: the same numbers for the same text, others for any other text."""
    source = random.Random(zlib.crc32(text.encode()))
    return [round(source.uniform(-1, 1), 6) for _ in range(width)]
