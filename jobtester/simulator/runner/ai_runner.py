"""What a runner answers to a job, well or badly: a payload and the artefact it points at."""

from __future__ import annotations

import io
import random
import re
import time
import zlib
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from jobtester.simulator.runner import known_inputs, media, segmentation

_ASKED = re.compile(r"only the (?:number|word) (\w+)", re.IGNORECASE)
UNMEASURED = "audio duration calculation failed"
_TOKEN = re.compile(r"\w+|[^\w\s]")
_THOUGHT = "okay the user wants one thing from me so let me think about what that may be and how to put it"
_OLD_WORDS = "seven green elephants whisper loudly about yesterday's weather report"


class RunnerRefused(Exception):
    """The runner answers 400 with this text: the job's content is no good."""


class Undecodable(Exception):
    """The upload cannot be measured before the runner sees it; the orchestrator is blamed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One decoded batch job. `upload` is its file, empty where it has none or the part was missing.

    `is_llm_form`: an llm job in the form that builds before v0.8.3 take.
    """

    pipeline: str
    model: str
    values: dict[str, Any] = field(default_factory=dict)
    upload: bytes = b""
    is_llm_form: bool = False

    def number(self, name: str, default: int) -> int:
        """Read an integer field."""
        value = self.values.get(name)
        return default if value is None else int(value)

    def text(self, name: str) -> str:
        """Read a text field, empty if it was not sent."""
        return str(self.values.get(name) or "")


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file for the gateway's store. `unreachable`: its URL is given out but not served."""

    suffix: str
    content: bytes
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A runner's result. Where there are artefacts, `payload` is made by the gateway around their URLs."""

    payload: Any = None
    files: tuple[Artefact, ...] = ()
    seed: int | None = None


def answer(job: Job, fault: str, known: known_inputs.Truth, thinking_tokens: int = 0) -> Answer:
    """Do the job; `fault` spoils the content where it can. Blocks for a while: call in a thread.

    A language model thinks for `thinking_tokens` before it says anything.
    """
    if job.pipeline in ("text-to-image", "image-to-image", "upscale"):
        return _images(job, fault)
    if job.pipeline == "image-to-video":
        return _video(job, fault)
    if job.pipeline == "text-to-speech":
        return _speech(job, fault)
    if job.pipeline == "llm":
        limit = job.number("max_tokens", 256)
        return Answer(chat(job.model, job.values["messages"], limit, fault, thinking_tokens))
    if job.pipeline == "audio-to-text":
        return Answer(_transcript(job, fault, known))
    if job.pipeline == "image-to-text":
        return Answer({"text": _spoilt(f"{job.text('prompt')} {known.caption(job.upload)}".strip(), fault)})
    return Answer(_masks(job, fault))


def reply(prompt: str, fault: str = "") -> str:
    """Say what a language model would to the prompts a tester asks."""
    asked = _ASKED.search(prompt)
    return _spoilt(asked[1] if asked else "A bear is a large mammal that lives in forests.", fault)


def chat(
    model: str, messages: list[dict[str, str]], max_tokens: int, fault: str = "", thinking_tokens: int = 0
) -> dict[str, Any]:
    """Answer a conversation in the shape of ai-runner, with at most `max_tokens` tokens, thoughts included."""
    thoughts = min(thinking_tokens, max_tokens)
    whole = reply(messages[-1]["content"], fault)
    text = _cut(whole, max_tokens - thoughts)
    asked = sum(tokens(message["content"]) + 4 for message in messages)
    said = min(thoughts + max(1, tokens(text)), max_tokens)
    message = {"content": text, "role": "assistant"}
    if thoughts:
        message["reasoning_content"] = " ".join(islice(cycle(_THOUGHT.split()), thoughts))
    finish = "stop" if text == whole and thoughts == thinking_tokens else "length"
    return {
        "choices": [{"finish_reason": finish, "index": 0, "message": message}],
        "created": int(time.time()),
        "id": f"chatcmpl-{random.getrandbits(48):012x}",
        "model": model,
        "usage": {"completion_tokens": said, "prompt_tokens": asked, "total_tokens": asked + said},
    }


def tokens(text: str) -> int:
    """Count the tokens of a text, roughly."""
    return len(_TOKEN.findall(text))


def _cut(text: str, most: int) -> str:
    """Return what of a text fits into so many tokens."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    if len(ends) <= most:
        return text
    return text[: ends[most - 1]] if most > 0 else ""


def _spoilt(text: str, fault: str) -> str:
    return {"empty_text": "", "wrong_answer": _OLD_WORDS, "wrong_transcript": _OLD_WORDS}.get(fault, text)


def _images(job: Job, fault: str) -> Answer:
    if not job.text("prompt"):
        raise RunnerRefused("Prompt must be provided.")
    width, height = _size(job)
    seed = job.number("seed", random.getrandbits(31))
    if fault == "no_seed_echo":
        seed += 1
    if fault == "empty_images":
        return Answer(seed=seed)
    if fault == "wrong_size":
        width, height = width // 2, height // 2
    if fault == "bomb_image":
        content = media.bomb()
    elif fault == "not_an_image":
        content = b"<html><body>404 not found</body></html>"
    else:
        content = media.picture(width, height, blank=fault == "blank_image")
    if fault == "truncated_image":
        content = content[: len(content) // 2]
    count = max(1, job.number("num_images_per_prompt", 1))
    file = Artefact("png", content, unreachable=fault == "unreachable_artefact")
    return Answer(files=(file,) * count, seed=seed)


def _size(job: Job) -> tuple[int, int]:
    if job.pipeline == "text-to-image":
        return job.number("width", 512), job.number("height", 512)
    width, height = _uploaded_size(job)
    if job.pipeline == "upscale":
        return 4 * width, 4 * height
    return width // 8 * 8, height // 8 * 8


def _uploaded_size(job: Job) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(job.upload)) as image:
            if image.format in ("PNG", "JPEG", "GIF") or job.pipeline == "image-to-video":
                return image.size
    except UnidentifiedImageError as error:
        if job.pipeline == "image-to-video":
            raise RunnerRefused("Error during model execution: cannot identify image file.") from error
    raise Undecodable("image: unknown format")


def _video(job: Job, fault: str) -> Answer:
    _uploaded_size(job)
    width, height = job.number("width", 1024), job.number("height", 576)
    if width % 8 or height % 8:
        raise RunnerRefused(f"`height` and `width` have to be divisible by 8 but are {height} and {width}.")
    seed = job.number("seed", random.getrandbits(31))
    if fault == "empty_images":
        return Answer(seed=seed)
    if fault == "wrong_size":
        width, height = width // 2, height // 2
    frames = 25 if "xt" in job.model.lower() else 14
    content = media.film(width, height, fps=job.number("fps", 7), frames=frames, flat=fault == "flat_video")
    return Answer(files=(Artefact("mp4", content, unreachable=fault == "unreachable_artefact"),), seed=seed)


def _speech(job: Job, fault: str) -> Answer:
    tenths = max(5, round(len(job.text("text")) / 1.5))
    content = media.sound(tenths, silent=fault == "silent_audio")
    return Answer(files=(Artefact("wav", content, unreachable=fault == "unreachable_artefact"),))


def _transcript(job: Job, fault: str, known: known_inputs.Truth) -> dict[str, Any]:
    duration = _duration(job.upload)
    text = _spoilt(known.transcript(job.upload), fault)
    words = text.split()
    if not words or job.text("return_timestamps") in ("false", "0"):
        return {"chunks": [], "text": f" {text}"}
    half = (len(words) + 1) // 2
    middle = round(duration / 2, 2)
    chunks = [{"text": " " + " ".join(words[:half]), "timestamp": [0, middle]}]
    if words[half:]:
        chunks.append({"text": " " + " ".join(words[half:]), "timestamp": [middle, round(duration, 2)]})
    return {"chunks": chunks, "text": f" {text}"}


def _duration(upload: bytes) -> float:
    import av

    try:
        with av.open(io.BytesIO(upload), "r") as container:
            seconds = (container.duration or 0) / av.time_base
    except (av.FFmpegError, ValueError) as error:
        raise RunnerRefused(UNMEASURED) from error
    if seconds < 1:
        raise RunnerRefused(UNMEASURED)
    return seconds


def _masks(job: Job, fault: str) -> dict[str, str]:
    _uploaded_size(job)
    try:
        return segmentation.answer(
            job.upload,
            points=job.text("point_coords"),
            box=job.text("box"),
            multimask=bool(job.values.get("multimask_output", True)),
            logits=bool(job.values.get("return_logits", True)),
            wrong=fault == "wrong_mask",
            nan=fault == "nan_mask",
        )
    except ValueError as error:
        raise RunnerRefused(f"Error parsing JSON for point_coords: {error}") from error


def embedding(text: str, width: int = 64) -> list[float]:
    """Embed a text: the same text gives the same numbers, another one others."""
    source = random.Random(zlib.crc32(text.encode()))
    return [round(source.uniform(-1, 1), 6) for _ in range(width)]
