"""A corpus of answers: right ones in the shapes of several servers, and wrong ones, each with the problem it has.

Every answer is what a gateway would give back for the built-in pipeline's own request; `{file}` stands for a file that
the answer names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jobtester.checks.base import FetchedFile
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue
from jobtester.pipelines.request import Request, Requests
from tests.unit.corpus import media_factory as make

SEED = 0
MODEL = "maker/some-model"
FILE = "/stream/d0fc1fc6/8fdf5a94.bin"
S3 = "https://store.example/bucket/8fdf5a94.bin"


@dataclass(frozen=True)
class Case:
    """One answer. `problem` is what a check has to find, empty for a right one; `notes` are the expected notes."""

    pipeline: str
    name: str
    answer: Any
    problem: str = ""
    files: Mapping[str, FetchedFile] = field(default_factory=dict)
    model: str = MODEL
    notes: tuple[str, ...] = ()
    stream: bool = False

    @property
    def body(self) -> bytes:
        """Return the answer's bytes."""
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()

    def __str__(self) -> str:
        """Return the case's name in a test report."""
        return f"{self.pipeline}: {self.name}"


@cache
def requests() -> Requests:
    """Return the requests of one tick over the built-in pipelines."""
    assets = Assets()
    return Requests(load_catalogue({}, assets), assets, SEED)


@cache
def request(pipeline: str, model: str = MODEL) -> Request:
    """Return the request that is sent to a pipeline."""
    return requests().build(requests().catalogue[pipeline], model)


def expected_word(pipeline: str) -> str:
    """Return the word that a chat pipeline has to answer."""
    word: str = request(pipeline).expectation.checks[0].params.contains
    return word


def make_file(content: bytes, url: str = FILE) -> dict[str, FetchedFile]:
    """Return a file as fetched from the gateway."""
    return {url: FetchedFile(url, 200, content)}


def make_failed_file(problem: str, status: int | None = None) -> dict[str, FetchedFile]:
    """Return a file that could not be had."""
    return {FILE: FetchedFile(FILE, status, problem=problem)}


def images(**changes: Any) -> dict[str, Any]:
    """Return an image answer as the gateway writes it."""
    return {"images": [{"nsfw": False, "seed": 42, "url": FILE, **changes}]}


def _image_cases(pipeline: str, size: tuple[int, int], others: dict[str, tuple[int, int]]) -> list[Case]:
    """Return the cases that hold for every pipeline that makes a picture of a size."""
    width, height = size
    right = make.picture(width, height)

    def good(name: str, answer: Any, content: bytes | None = None, url: str = FILE) -> Case:
        return Case(pipeline, name, answer, files=make_file(content or right, url))

    def bad(name: str, problem: str, answer: Any, content: bytes | None = None) -> Case:
        return Case(pipeline, name, answer, problem, make_file(right if content is None else content))

    return [
        good("ai-runner's", images()),
        good("flagged as unsafe", images(nsfw=True)),
        good("JPEG", images(), make.picture(width, height, "JPEG")),
        good("WebP", images(), make.picture(width, height, "WEBP")),
        good("with transparency", images(), make.picture(width, height, "PNG", "RGBA")),
        good("gray", images(), make.picture(width, height, "PNG", "L")),
        good("gray of 16 bits", images(), make.deep_picture(width, height)),
        good("with a palette", images(), make.picture(width, height, "PNG", "P")),
        good("on an object store", images(url=S3), url=S3),
        good("the seed as a text", images(seed="42")),
        bad("another seed as a text", "seed", images(seed="43")),
        good("fields of its own", {"images": [{"seed": 42, "url": FILE, "id": 7, "took": 1.5}], "model": "x"}),
        good("carried in the answer", images(url="data:image/png;base64," + base64.b64encode(right).decode())),
        bad("not JSON", "bad_json", b"Internal error"),
        bad("cut off", "bad_json", b'{"images":[{"url":"/stream'),
        bad("NaN", "bad_json", b'{"images":[{"url":"/x","seed":NaN}]}'),
        bad("nested for ever", "bad_json", b'{"images":' + b"[" * 100_000),
        bad("a list", "missing", [1, 2]),
        bad("another shape", "missing", {"frames": []}),
        bad("no picture", "none", {"images": []}),
        bad("null for pictures", "none", {"images": None}),
        bad("a picture too many", "count", {"images": images()["images"] * 2}),
        bad("a thousand pictures", "count", {"images": images()["images"] * 1000}),
        bad("no address", "no_file", images(url="")),
        bad("a number for an address", "no_file", images(url=17)),
        bad("an address nobody can fetch", "no_file", images(url="ipfs://abc")),
        bad("broken base64", "no_file", images(url="data:image/png;base64,@@@@")),
        bad("another seed", "seed", images(seed=43)),
        bad("no seed", "seed", images(seed=None)),
        bad("an empty file", "empty", images(), b""),
        bad("HTML for a picture", "not_an_image", images(), b"<html><body>502</body></html>"),
        bad("a video for a picture", "not_an_image", images(), make.video(64, 64, 3)),
        bad("a picture cut off", "undecodable", images(), right[: len(right) // 2]),
        bad("a damaged picture", "undecodable", images(), right[:60] + bytes(40) + right[100:]),
        bad("nothing but a signature", "undecodable", images(), b"\x89PNG\r\n\x1a\n"),
        bad("black", "flat", images(), make.flat_picture(width, height)),
        bad("gray of 16 bits, all the same", "flat", images(), make.deep_picture(width, height, flat=True)),
        bad("white JPEG", "flat", images(), make.flat_picture(width, height, "white", "JPEG")),
        bad("10⁹ pixels in a header", "undecodable", images(), make.huge_png(100_000, 10_000)),
        bad("a bomb", "undecodable", images(), make.png_bomb(10_000)),
        *(bad(name, "size", images(), make.picture(*other)) for name, other in others.items()),
    ]


def _unavailable_file_cases(pipeline: str, answer: Any) -> list[Case]:
    """Return the cases of a file that cannot be had, for any pipeline that makes one."""
    return [
        Case(pipeline, "the gateway lost the file", answer, "unreachable", make_failed_file("GET answered 404", 404)),
        Case(
            pipeline, "the file takes too long", answer, "unreachable", make_failed_file("GET did not end within 30 s")
        ),
        Case(pipeline, "an endless file", answer, "too_large", make_failed_file("larger than 67108864 bytes", 200)),
    ]


def _text_to_image() -> list[Case]:
    return [
        *_image_cases(
            "text-to-image",
            (512, 512),
            {"half the size": (256, 256), "a pixel less": (512, 511), "the default of SDXL": (1024, 1024)},
        ),
        *_unavailable_file_cases("text-to-image", images()),
    ]


def _image_to_image() -> list[Case]:
    lightning = "ByteDance/SDXL-Lightning"
    return [
        *_image_cases("image-to-image", (512, 512), {"not the input's size": (768, 512), "larger": (1024, 1024)}),
        *_unavailable_file_cases("image-to-image", images()),
        Case(
            "image-to-image",
            "Lightning may ignore the input's size",
            images(),
            files=make_file(make.picture(1024, 1024)),
            model=lightning,
        ),
        Case(
            "image-to-image",
            "Lightning's is black",
            images(),
            "flat",
            make_file(make.flat_picture(1024, 1024)),
            model=lightning,
        ),
        Case(
            "image-to-image",
            "Lightning's is enormous",
            images(),
            "too_large",
            make_file(make.png_bomb(5000)),
            model=lightning,
        ),
    ]


def _upscale() -> list[Case]:
    return [
        *_image_cases(
            "upscale",
            (1024, 1024),
            {"not upscaled": (256, 256), "only twice as large": (512, 512), "one side": (1024, 256)},
        ),
        *_unavailable_file_cases("upscale", images()),
    ]


def _image_to_video() -> list[Case]:
    right = make.video()
    half = len(right) // 2
    png = make.picture(1024, 576)

    def good(name: str, content: bytes, model: str = MODEL, url: str = FILE) -> Case:
        return Case("image-to-video", name, images(url=url), files=make_file(content, url), model=model)

    def bad(name: str, problem: str, content: bytes, answer: Any = None) -> Case:
        return Case("image-to-video", name, answer or images(), problem, make_file(content))

    return [
        good("ai-runner's", right),
        good("a frame less", make.video(frames=24)),
        good("two frames more", make.video(frames=27)),
        good("on an object store", right, url=S3),
        good("14 frames of the small model", make.video(frames=14), "stabilityai/stable-video-diffusion-img2vid"),
        good("25 frames of xt-1-1", right, "stabilityai/stable-video-diffusion-img2vid-xt-1-1"),
        bad("not JSON", "bad_json", right, b"Bad gateway"),
        bad("frames as OpenAPI has them", "missing", right, {"frames": [[{"url": FILE}]]}),
        bad("no video", "none", right, {"images": []}),
        bad("null", "no_file", right, {"images": [None]}),
        bad("a bad address", "no_file", right, images(url="file:///etc/passwd")),
        bad("an empty file", "empty", b""),
        bad("a picture", "not_a_video", png),
        bad("HTML", "not_a_video", b"<html>"),
        bad("Matroska", "not_a_video", make.video(form="matroska")),
        bad("MPEG-4 part 2", "codec", make.video(codec="mpeg4")),
        bad("only sound", "no_stream", make.sound(4.0, "mp4")),
        bad("half the size", "size", make.video(512, 288)),
        bad("upright", "size", make.video(576, 1024)),
        bad("one frame", "frames", make.video(frames=1)),
        bad("14 frames", "frames", make.video(frames=14)),
        bad("a long video", "frames", make.video(frames=200)),
        bad("twice as fast", "duration", make.video(fps=12)),
        bad("slow motion", "duration", make.video(fps=3)),
        bad("black", "flat", make.video(flat=True)),
        bad("a still", "still", make.video(moving=False)),
        bad("cut off", "undecodable", right[: len(right) // 2]),
        bad("nothing but a signature", "undecodable", right[:12]),
        bad("damaged in its middle", "undecodable", right[:half] + bytes(200) + right[half + 200 :]),
        bad("damaged", "undecodable", right[:300] + bytes(len(right) - 300)),
        *_unavailable_file_cases("image-to-video", images()),
    ]


def _audio_to_text() -> list[Case]:
    speech = request("audio-to-text").expectation.inputs["audio"]
    text = speech.transcript
    first, second = text[: text.index(".") + 1], text[text.index(".") + 1 :]
    chunks = [{"text": f" {first}", "timestamp": [0.0, 3.2]}, {"text": second, "timestamp": [3.2, 6.5]}]

    def good(name: str, answer: Any, *notes: str) -> Case:
        return Case("audio-to-text", name, answer, notes=notes)

    def bad(name: str, problem: str, answer: Any) -> Case:
        return Case("audio-to-text", name, answer, problem)

    def with_times(*times: Any) -> dict[str, Any]:
        return {"text": text, "chunks": [{**chunk, "timestamp": time} for chunk, time in zip(chunks, times)]}  # noqa: B905

    word, at = [], 0.3
    for each in text.split():
        word.append({"text": f" {each}", "timestamp": [round(at, 2), round(at + 0.25, 2)]})
        at += 0.3
    return [
        good("ai-runner's", {"text": f" {text}", "chunks": chunks}),
        good("without chunks", {"text": text, "chunks": []}),
        good("chunks left out", {"text": text}),
        good("chunks null", {"text": text, "chunks": None}),
        good("an open end", {"text": text, "chunks": [chunks[0], {**chunks[1], "timestamp": [3.2, None]}]}),
        good("by words", {"text": text, "chunks": word}),
        good("small letters, no punctuation", {"text": text.lower().replace(".", "")}),
        good("one word misheard", {"text": text.replace("lies", "lays")}),
        good(
            "with Whisper's marks",
            {"text": f"<|startoftranscript|><|en|><|transcribe|><|0.00|>{first}<|3.20|><|3.20|>{second}<|6.50|>"},
        ),
        good(
            "with the marks in its chunks",
            {"text": text, "chunks": [{"text": f"<|0.00|>{text}<|6.50|>", "timestamp": [0, 6]}]},
        ),
        good("ends at the padding", with_times([0, 3.2], [3.2, 7.6])),
        bad("chunks of another text", "chunks", {"text": text, "chunks": [{"text": "no", "timestamp": [0, 1]}]}),
        bad("half of the chunks", "chunks", {"text": text, "chunks": chunks[:1]}),
        good(
            "a chunk of silence", {"text": text, "chunks": [{"text": None, "timestamp": [0, 1]}, *chunks]}, "chunk_text"
        ),
        good("chunks of text alone", {"text": text, "chunks": [first, second]}, "timestamps"),
        bad("chunks of another text alone", "chunks", {"text": text, "chunks": ["something", "else"]}),
        bad("a chunk that is a number", "chunks", {"text": text, "chunks": [7]}),
        bad("chunks a text", "chunks", {"text": text, "chunks": "all of it"}),
        bad("chunks without text", "chunks", {"text": text, "chunks": [{"timestamp": [0, 1]}]}),
        bad("too many chunks", "chunks", {"text": text, "chunks": chunks * 2000}),
        good("no timestamp", {"text": text, "chunks": [{"text": text}]}, "timestamps"),
        good("timestamp of one", with_times([0], [1]), "timestamps"),
        good("timestamps as text", with_times(["0:00", "0:03"], [3, 6]), "timestamps"),
        good("true for a time", with_times([True, 3], [3, 6]), "timestamps"),
        good("backwards", with_times([3, 6], [0, 3]), "order"),
        good("end before begin", with_times([3, 1], [3, 6]), "order"),
        good("before the beginning", with_times([-4, 3], [3, 6]), "order"),
        good("after the end", with_times([0, 3], [3, 29.98]), "end"),
        good("a null begin", with_times([None, 3], [3, 6]), "timestamps"),
        good(
            "jitter of a tenth",
            with_times([0, 3.3], [3.2, 3.15]),
        ),
        good("at the end of Whisper's window", with_times([0, 3], [3, 30.0]), "end"),
        good("overlapping", with_times([0, 5], [3, 6])),
        good("segments of OpenAI", {"text": text, "segments": [{"id": 0, "start": 0.0, "end": 6.5, "text": text}]}),
        good(
            "whisper.cpp's",
            {"text": text, "transcription": [{"timestamps": {"from": "0"}, "text": text}]},
            "timestamps",
        ),
        bad("half of it again and again", "words", {"text": f"{first} " * 2}),
        bad("an error for a text", "words", {"text": "Internal server error"}),
        bad("a number for a text", "not_text", {"text": 7}),
        bad("not JSON", "bad_json", text.encode()),
        bad("no text", "missing", {"chunks": chunks}),
        bad("empty", "empty", {"text": " "}),
        bad("null for a text", "not_text", {"text": None}),
        bad("a list for a text", "not_text", {"text": [text]}),
        bad("what a silent sound gives", "words", {"text": " Thank you."}),
        bad("another text", "words", {"text": "You are listening to the shipping forecast issued by the office."}),
        bad("half of it", "words", {"text": first}),
        bad("the same word for ever", "too_long", {"text": "the " * 5000}),
        bad("words turned round", "words", {"text": " ".join(reversed(text.split()))}),
        bad("only punctuation", "words", {"text": "…!?…"}),
    ]


@cache
def mask(side: int = 256, box: tuple[int, ...] = (60, 112, 156, 208), *, disc: bool = True) -> list[list[float]]:
    """Return a mask with a disc, or a box, in it."""
    left, top, right, bottom = box
    x0, y0, radius = (left + right) / 2, (top + bottom) / 2, (right - left) / 2

    def inside(x: int, y: int) -> bool:
        if disc:
            return (x - x0) ** 2 + (y - y0) ** 2 < radius**2
        return left <= x < right and top <= y < bottom

    return [[1.0 if inside(x, y) else 0.0 for x in range(side)] for y in range(side)]


def masks(**changes: Any) -> dict[str, str]:
    """Return an answer of segment-anything-2: three lists as text."""
    right: dict[str, Any] = {"logits": [_logits()], "masks": [mask()], "scores": [0.95]}
    whole = {**right, **changes}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in whole.items()}


@cache
def _logits(side: int = 256) -> list[list[float]]:
    return [[9.5 if value else -11.25 for value in row] for row in mask(side)]


def _segment_anything() -> list[Case]:
    def good(name: str, answer: Any) -> Case:
        return Case("segment-anything-2", name, answer)

    def bad(name: str, problem: str, answer: Any) -> Case:
        return Case("segment-anything-2", name, answer, problem)

    right = masks()
    ragged = [*mask()[:-1], mask()[-1][:-1]]
    texts = [*mask()[:-1], ["1.0"] * 256]
    return [
        good("ai-runner's", right),
        good("a box for a disc", masks(masks=[mask(disc=False)])),
        good("whole numbers", masks(masks=[[[int(value) for value in row] for row in mask()]])),
        good("with logits in the mask", masks(masks=[_logits()])),
        good("lists as such", {key: json.loads(value) for key, value in right.items()}),
        good("a score a bit above one", masks(scores=[1.01])),
        good("a little smaller", masks(masks=[mask(box=(66, 118, 150, 202))])),
        bad("not JSON", "bad_json", b"[[[0.0"),
        bad("no scores", "missing", {key: right[key] for key in ("logits", "masks")}),
        bad("no masks", "missing", {key: right[key] for key in ("logits", "scores")}),
        bad("no logits", "missing", {key: right[key] for key in ("masks", "scores")}),
        bad("no scores in the list", "count", masks(scores=[])),
        bad("three masks", "count", masks(scores=[0.9, 0.5, 0.1], masks=[mask()] * 3, logits=[_logits()] * 3)),
        bad("nine scores", "count", masks(scores=[0.9] * 9)),
        bad("score null", "not_a_number", masks(scores=[None])),
        bad("score above one", "scores", masks(scores=[97.0])),
        bad("score below nothing", "scores", masks(scores=[-0.5])),
        bad("nan in the scores", "not_finite", masks(scores="[nan]")),
        bad("nan in the mask", "not_finite", masks(masks=right["masks"].replace("1.0", "nan", 1))),
        bad("infinite logits", "not_finite", masks(logits=right["logits"].replace("9.5", "Infinity", 1))),
        bad("unreadable mask", "unreadable", masks(masks=right["masks"][:-10])),
        bad("a printed array", "unreadable", masks(masks="[[[0. 0. 0. ... 0.]]]")),
        bad("mask of another size", "shape", masks(masks=[mask(128)])),
        bad("two masks, one score", "shape", masks(masks=[mask()] * 2)),
        bad("mask without depth", "shape", masks(masks=mask())),
        bad("a short row", "shape", masks(masks=[ragged])),
        bad("text in a row", "shape", masks(masks=[texts])),
        bad("small logits", "shape", masks(logits=[_logits(64)])),
        bad("everything", "flat", masks(masks=[[[1.0] * 256] * 256])),
        bad("nothing", "flat", masks(masks=[[[0.0] * 256] * 256])),
        bad("the sky instead of the ball", "object", masks(masks=[mask(box=(120, 10, 220, 110))])),
        bad("a dot on the ball", "object", masks(masks=[mask(box=(100, 150, 116, 166))])),
        bad("nearly everything", "object", masks(masks=[[[1.0] * 256] * 255 + [[0.0] * 256]])),
        bad("the mask turned round", "object", masks(masks=[[[1 - value for value in row] for row in mask()]])),
        bad("megabytes of text", "too_large", masks(scores="[" + "0.9, " * 100_000 + "0.9]")),
    ]


def completion(content: Any, **changes: Any) -> dict[str, Any]:
    """Return a chat completion as ai-runner writes it."""
    return {
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": content, "role": "assistant"}}],
        "created": 1738000000,
        "id": "chatcmpl-1",
        "model": MODEL,
        "usage": {"completion_tokens": 3, "prompt_tokens": 40, "total_tokens": 43},
        **changes,
    }


def _usage(prompt: Any, completed: Any, total: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completed, "total_tokens": total}}


def _chat(pipeline: str) -> list[Case]:
    word = expected_word(pipeline)
    question = request(pipeline).expectation.parameters["messages"][-1]["content"]
    limit = request(pipeline).expectation.parameters["max_tokens"]
    long = "Okay, the user wants me to reply with one thing and nothing else. " * (limit // 8)

    def good(name: str, answer: Any, *notes: str) -> Case:
        return Case(pipeline, name, answer, notes=notes)

    def bad(name: str, problem: str, answer: Any) -> Case:
        return Case(pipeline, name, answer, problem)

    def with_finish(reason: Any) -> dict[str, Any]:
        return {"choices": [{**completion(word)["choices"][0], "finish_reason": reason}]}

    def message(finish: Any = "stop", **fields: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", **fields}}]}

    def parts(*items: Any) -> dict[str, Any]:
        return completion(list(items))

    text = {"type": "text", "text": word}
    plain = json.dumps(completion(word)).encode()
    return [
        good("ai-runner's", completion(word)),
        good("OpenAI's", completion(word, object="chat.completion", system_fingerprint=None)),
        good("with blanks", completion(f"\n\n  {word} ")),
        good("with a full stop", completion(f"{word}.")),
        good("in a sentence", completion(f"Sure! The answer is **{word}**.")),
        good("in italics", completion(f"_{word}_")),
        good("in bold underscores", completion(f"__{word}__")),
        good("in backticks", completion(f"```\n{word}\n```")),
        good("boxed", completion(f"$\\boxed{{{word}}}$")),
        good("as JSON", completion(json.dumps({"answer": word}))),
        good("full-width", completion("".join(chr(ord(char) + 0xFEE0) for char in word))),
        good("with a mark in front", completion(f"\ufeff{word}\u200b")),
        good("other case", completion(word.upper())),
        good("twice", completion(f"{word}\n{word}")),
        good("after thinking", completion(f"<think>They want {word[:1]}…</think>\n{word}")),
        good("after quoting the question", completion(f"<think>They say: {question.upper()}</think>\n{word}")),
        good("after a thought that the template opened", completion(f"They say: {question}\n</think>\n\n{word}")),
        good("escaped twice", completion(f"\\n\\n{word}\\n")),
        good("with a number sign", completion(f"№{word}")),
        good("in Chinese", completion(f"答案是{word}。")),
        good("in Chinese, with courtesy", completion(f"好的，没问题，答案如下，{word}，谢谢！")),
        good("in Japanese", completion(f"答えは「{word}」です。")),
        good("in Korean", completion(f"정답은 {word}입니다.")),
        good("in Russian", completion(f"Правильный ответ такой {word}")),
        good("in Arabic", completion(f"الجواب الصحيح هو {word}")),
        good("in Thai", completion(f"คำตอบคือ{word}ครับ")),
        good("in Hindi", completion(f"सही उत्तर यहाँ {word} है")),
        good("in German", completion(f"Die richtige Antwort lautet {word}.")),
        good("in Polish", completion(f"Prawidłowa odpowiedź to {word}.")),
        good("in digits of Arabic", completion(word.translate({48 + digit: 0x660 + digit for digit in range(10)}))),
        good("in Turkish", completion(f"Doğru cevap elbette {word} olur.")),
        good("after Magistral's thought", completion(f"[THINK]1, 2, 3, 4, 5[/THINK]{word}")),
        good(
            "after raw channels",
            completion(
                f"<|channel|>analysis<|message|>{question}<|end|><|start|>assistant<|channel|>final<|message|>{word}"
            ),
        ),
        good("thoughts beside it", message(content=word, reasoning_content=long)),
        good("thoughts in a list", message(content=word, reasoning_details=[{"type": "reasoning.text", "text": long}])),
        good("ended by length", completion(word, **with_finish("length"))),
        good("without a finish reason", message(None, content=word)),
        *(
            good(f"finish reason {reason}", completion(word, **with_finish(reason)), "finish")
            for reason in (
                "end",
                "STOP",
                "max_tokens",
                "unknown",
                "COMPLETE",
                "tool_calls",
                "error",
                "content_filter",
                "abort",
                7,
            )
        ),
        good("without usage", completion(word, usage=None)),
        good("usage of nothing", completion(word, usage={})),
        good("usage of zeros", completion(word, **_usage(0, 0, 0))),
        good("a few tokens more", completion(word, **_usage(10, limit + 2, limit + 12)), "token_count"),
        good("details of usage", completion(word, usage={**completion("")["usage"], "prompt_tokens_details": None})),
        good("usage off by one", completion(word, **_usage(40, 3, 44)), "usage"),
        good("thought tokens besides", completion(word, **_usage(40, 3, 543)), "usage"),
        good("usage of floats", completion(word, **_usage(40.0, 3.0, 43.0)), "usage"),
        good("usage below nothing", completion(word, **_usage(-40, 43, 3)), "usage", "token_count"),
        good("usage as text", completion(word, **_usage("40", "3", "43")), "usage"),
        good("half a usage", completion(word, usage={"total_tokens": 43}), "usage"),
        good("null in the usage", completion(word, **_usage(40, None, 43)), "usage"),
        good("usage a number", completion(word, usage=43), "usage"),
        good("more tokens than asked for", completion(word, **_usage(40, 4000, 4040)), "tokens", "token_count"),
        good("tokens counted twice", completion(word, **_usage(40, 2, 42))),
        good("an error beside it", completion(word, error={"message": "late"}), "error"),
        good("a list of parts", parts(text), "content_parts"),
        good(
            "parts in halves",
            parts({"type": "text", "text": word[:1]}, {"type": "text", "text": word[1:]}),
            "content_parts",
        ),
        good("parts of texts", parts(word), "content_parts"),
        good(
            "Mistral's parts",
            parts({"type": "thinking", "thinking": [{"type": "text", "text": long}]}, text),
            "content_parts",
        ),
        good("parts of other kinds", parts({"type": "image_url", "image_url": {}}, text), "content_parts"),
        good("one part", completion(text), "content_parts"),
        good("another index", {"choices": [{"index": 3, "message": {"content": word}}]}, "choices"),
        good(
            "an empty choice first", {"choices": [{"index": 0}, {"index": 1, "message": {"content": word}}]}, "choices"
        ),
        good("the old completions", {"choices": [{"index": 0, "text": word, "finish_reason": "stop"}]}),
        good("Ollama's own", {"model": "llama3.1", "message": {"role": "assistant", "content": word}, "done": True}),
        good("Ollama's generate", {"model": "llama3.1", "response": word, "done": True, "done_reason": "stop"}),
        good("TGI's", {"generated_text": word}),
        good("llama.cpp's", {"content": word, "stop": True}),
        good("Anthropic's", {"type": "message", "content": [text], "stop_reason": "end_turn"}, "content_parts"),
        good(
            "Gemini's",
            {"candidates": [{"content": {"parts": [{"text": word}]}, "finishReason": "STOP"}]},
            "content_parts",
            "finish",
        ),
        good(
            "OpenAI's responses",
            {
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "message", "content": [{"type": "output_text", "text": word}]},
                ]
            },
            "content_parts",
        ),
        good("a byte order mark", b"\xef\xbb\xbf" + plain, "byte_order_mark"),
        good("zeros behind it", plain + b"\n" + bytes(64), "padding"),
        good("comments before it", b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + plain),
        good(
            "streamed unasked",
            b'data: {"choices":[{"index":0,"delta":{"content":"' + word.encode() + b'"}}]}\n\n',
            "streamed",
            "unfinished",
        ),
        bad("thinks until the limit", "token_limit", message("length", content="", reasoning_content=long)),
        bad("null after thinking until the limit", "token_limit", message("length", content=None, reasoning=long)),
        bad("no content after thinking", "token_limit", message("length", reasoning_content=long, tool_calls=[])),
        bad("a thought without end", "token_limit", completion(f"<think>{long}", **_usage(9, limit, limit + 9))),
        bad("a thought without end or usage", "token_limit", completion(f"<think>{long}!", usage=None)),
        bad(
            "hidden thoughts until the limit",
            "token_limit",
            {**message("length", content=""), "usage": {"completion_tokens_details": {"reasoning_tokens": limit}}},
        ),
        bad(
            "uncounted thoughts until the limit",
            "token_limit",
            {**message("MAX_TOKENS", content=""), **_usage(10, 0, limit + 10)},
        ),
        bad("a short thought and the limit", "empty", message("length", content="", reasoning_content="Hm.")),
        bad(
            "only thoughts, and stops",
            "empty",
            {**message("stop", content="", reasoning_content=long), **_usage(10, 12, 22)},
        ),
        bad("only the limit", "empty", message("length", content="")),
        bad("not JSON", "bad_json", word.encode() + b" is it"),
        bad("the old shape", "contains", {"response": "An answer", "tokens_used": 12}),
        bad("no choices", "missing", {"choices": [], "usage": None}),
        bad("a list", "missing", []),
        bad("an error with 200", "missing", {"error": {"message": "model not loaded"}}),
        bad("empty", "empty", completion("  ")),
        bad("null and an error", "empty", completion(None, error={"message": "out of memory"})),
        bad(
            "calls a tool", "empty", message("tool_calls", content=None, tool_calls=[{"id": "x"}], reasoning="I call.")
        ),
        bad("parts without text", "empty", parts({"type": "image_url"}, {"type": "thinking", "thinking": "no"})),
        bad("a number", "not_text", completion(42)),
        bad("parts that are none", "not_text", completion([42])),
        bad("refuses", "contains", completion("I cannot help with that.")),
        bad("part of a longer word", "contains", completion(f"9{word}7")),
        bad("glued together", "contains", completion(f"{word}{word}")),
        bad("only thought of", "contains", completion(f"<think>{word}</think>I do not know.")),
        bad("repeats the question", "echo", completion(question)),
        bad("repeats it with markup", "echo", completion(question.replace(word, f'**"{word}"**'))),
        bad("an echo of the messages", "echo", completion(f"user: {question}\nassistant:")),
        bad(
            "an echo of the request",
            "echo",
            completion(json.dumps({"messages": [{"role": "user", "content": question}]})),
        ),
        bad("quotes the question and is wrong", "echo", completion(f"They say: {question}! 41")),
        bad("an error message", "error", completion(f"Error: {word} is not loaded")),
        bad("a runtime error", "error", completion(f"RuntimeError: CUDA out of memory, {word} MiB")),
        bad("every number", "list", completion(" ".join(map(str, range(1, 3000))) + f" {word}")),
        bad("numbers with commas", "list", completion(f"7, 8, 9, {word}, 43, 44")),
        bad("numbers in lines", "list", completion(f"1\n2\n{word}\n3")),
        bad(
            "all the words that may be asked for",
            "list",
            completion(f"42 1789 365 2048 orange lighthouse November {word}"),
        ),
        bad("a list of words", "list", completion(f"apple, {word}, table, moon")),
        bad("a list of Chinese words", "list", completion(f"苹果、{word}、桌子、月亮")),
        bad("a list of Russian words", "list", completion(f"яблоко, {word}, стол, луна")),
        bad("words without a sentence", "list", completion(f"apple {word} table moon")),
        bad("a book", "too_long", completion("tick " * 50_000)),
        bad("a book with the word", "too_long", completion(f"{word}. " + "it is so. " * 5_000)),
    ]


def _image_to_text() -> list[Case]:
    def good(name: str, answer: Any) -> Case:
        return Case("image-to-text", name, answer)

    def bad(name: str, problem: str, answer: Any) -> Case:
        return Case("image-to-text", name, answer, problem)

    return [
        good("BLIP's", {"text": "a red ball sitting on top of a lush green field"}),
        good("with a blank", {"text": " there is a red ball that is sitting in the grass"}),
        good("capital letters", {"text": "A Red Sphere."}),
        good("more of them", {"text": "two red apples on a hill"}),
        good("a long description", {"text": "The image shows a landscape. " * 20 + "In it lies a ball."}),
        good("with other fields", {"text": "an orb on the lawn", "score": 0.7}),
        good("more of them, otherwise spelled", {"text": "ripe cherries on a lawn"}),
        good("tomatoes", {"text": "tomatoes lying in a meadow"}),
        bad("all the words that may be there", "list", {"text": "ball red sphere orb circle apple tomato cherry sun"}),
        good("an English word among Chinese", {"text": "草地上的red ball，天空很蓝。"}),
        bad("Chinese", "language", {"text": "草地上有一个红色的球，天空是蓝色的。"}),
        bad("Japanese", "language", {"text": "青い空の下、緑の草の上に赤いボールが置いてあります。"}),
        bad("Chinese without a stop", "language", {"text": "红球"}),
        bad("Korean", "language", {"text": "푸른 잔디 위에 빨간 공이 놓여 있다"}),
        bad("Thai", "language", {"text": "ลูกบอลสีแดงวางอยู่บนพื้นหญ้าสีเขียว"}),
        bad("Russian", "language", {"text": "красный мяч лежит на зелёной траве"}),
        bad("Hindi", "language", {"text": "हरी घास पर एक लाल गेंद रखी है"}),
        bad("Arabic", "language", {"text": "كرة حمراء على العشب الأخضر"}),
        bad("Greek", "language", {"text": "μια κόκκινη μπάλα στο γρασίδι"}),
        bad("Spanish", "language", {"text": "una pelota roja sobre la hierba verde"}),
        bad("French", "language", {"text": "un ballon rouge posé sur une pelouse verte"}),
        bad("Portuguese", "language", {"text": "uma bola vermelha em um campo de grama"}),
        bad("Italian", "language", {"text": "una palla rossa sul prato verde con il cielo"}),
        bad("Dutch", "language", {"text": "een rode bal op het gras"}),
        bad("Polish", "language", {"text": "czerwona piłka na zielonej trawie i niebo"}),
        bad("one Chinese character again and again", "repeats", {"text": "球" * 40}),
        bad("one Russian word again and again", "repeats", {"text": "мяч " * 20}),
        bad("a list of Chinese words", "list", {"text": "红球、猫、狗、汽车、房子、树、天空、人、船"}),
        bad("one foreign word among English", "words", {"text": "a brown bear der walking in a field"}),
        bad("a bear in Chinese and English", "words", {"text": "a brown bear walking in a field, 熊"}),
        bad("not JSON", "bad_json", b"a red ball"),
        bad("a text", "missing", "a red ball"),
        bad("a list", "missing", ["a red ball"]),
        bad("another field", "missing", {"caption": "a red ball"}),
        bad("an error with 200", "missing", {"detail": {"msg": "Out of memory"}}),
        bad("null", "not_text", {"text": None}),
        bad("a number", "not_text", {"text": 7}),
        bad("true", "not_text", {"text": True}),
        bad("words as a list", "not_text", {"text": ["a", "red", "ball"]}),
        bad("empty", "empty", {"text": ""}),
        bad("blanks", "empty", {"text": " \n\t "}),
        bad("only signs", "empty", {"text": "…… !!"}),
        bad("something else", "words", {"text": "a brown bear walking in a field"}),
        bad("nothing to do with it", "words", {"text": "a man riding a wave on a surfboard"}),
        bad("part of another word", "words", {"text": "a football stadium, bored people"}),
        bad("one word again and again", "repeats", {"text": "ball " * 30}),
        bad("two words in turn", "repeats", {"text": "ball red " * 12}),
        bad("one word twice", "repeats", {"text": "ball ball"}),
        bad(
            "a list of everything",
            "list",
            {"text": ", ".join(["ball", "car", "dog", "cat", "tree", "man", "boat"] * 1 + ["house", "sky"])},
        ),
        bad("an error that names it", "error", {"text": "Error: no ball in the picture"}),
        bad("the beginning again and again", "words", {"text": "araffe " * 20}),
        bad("without end", "too_long", {"text": "a red ball " * 1000}),
    ]


def _text_to_speech() -> list[Case]:
    text = request("text-to-speech").expectation.parameters["text"]
    usual = len(text) / 15
    right = make.sound(usual)

    def audio(**changes: Any) -> dict[str, Any]:
        return {"audio": {"url": FILE, **changes}}

    def good(name: str, content: bytes, answer: Any = None, url: str = FILE) -> Case:
        return Case("text-to-speech", name, answer or audio(url=url), files=make_file(content, url))

    def bad(name: str, problem: str, content: bytes, answer: Any = None) -> Case:
        return Case("text-to-speech", name, audio() if answer is None else answer, problem, make_file(content))

    return [
        good("parler's", right),
        good("at 24 kHz", make.sound(usual, rate=24_000)),
        good("slow", make.sound(usual * 2.5)),
        good("fast", make.sound(usual * 0.5)),
        good("low", make.sound(usual, loud=0.02)),
        good("FLAC", make.sound(usual, "flac")),
        good("MP3", make.sound(usual, "mp3")),
        good("on an object store", right, url=S3),
        good("an address alone", right, {"audio": FILE}),
        bad("not JSON", "bad_json", right, right[:2000]),
        bad("another shape", "missing", right, {"url": FILE}),
        bad("null", "none", right, {"audio": None}),
        bad("no address", "no_file", right, audio(url=None)),
        bad("an empty list", "none", right, {"audio": []}),
        bad("an address nobody can fetch", "no_file", right, audio(url="s3://bucket/x.wav")),
        bad("an empty file", "empty", b""),
        bad("HTML", "not_audio", b"<!DOCTYPE html><html></html>"),
        bad("a picture", "not_audio", make.picture(64, 64)),
        bad("a video for a sound", "no_stream", make.video(64, 64, 3)),
        bad("a header alone", "empty", right[:44]),
        bad("half a header", "undecodable", right[:20]),
        bad("silence", "silent", make.sound(usual, loud=0.0)),
        bad("nearly silence", "silent", make.sound(usual, loud=0.0005)),
        bad("a click", "duration", make.sound(0.1)),
        bad("cut off", "duration", right[: len(right) // 5]),
        bad("a minute", "duration", make.sound(60.0, rate=8000)),
        bad("MP3 of noise", "undecodable", b"ID3\x04\0\0\0\0\0\0" + bytes(range(1, 120)) * 50),
        bad("FLAC of nothing", "undecodable", b"fLaC" + bytes(500)),
        *_unavailable_file_cases("text-to-speech", audio()),
    ]


def _embeddings() -> list[Case]:
    vector = [0.01 * index - 0.5 for index in range(384)]

    def embedding(value: Any, **changes: Any) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": value}],
            "model": MODEL,
            "usage": {"prompt_tokens": 12, "total_tokens": 12},
            **changes,
        }

    def good(name: str, answer: Any) -> Case:
        return Case("openai-text-embeddings", name, answer)

    def bad(name: str, problem: str, answer: Any) -> Case:
        return Case("openai-text-embeddings", name, answer, problem)

    return [
        good("OpenAI's", embedding(vector)),
        good("whole numbers", embedding([1, 0, -1])),
        good("Ollama's", {"embedding": vector}),
        good("Ollama's of many", {"model": "nomic", "embeddings": [vector]}),
        good("long", embedding([value / 7 for value in range(8192)])),
        bad("not JSON", "bad_json", b"[0.1, 0.2"),
        bad("NaN", "bad_json", b'{"data":[{"embedding":[NaN]}]}'),
        bad("another shape", "missing", {"vectors": [vector]}),
        bad("no data", "count", embedding(vector, data=[])),
        bad("two for one", "count", embedding(vector, data=embedding(vector)["data"] * 2)),
        bad("data null", "not_a_list", embedding(vector, data=None)),
        bad("no embedding", "missing", embedding(vector, data=[{"index": 0}])),
        bad("empty", "length", embedding([])),
        bad("null", "length", embedding(None)),
        bad("as text", "length", embedding("AACAPwAAAEA=")),
        bad("too long", "length", embedding([0.1] * 70_000)),
        bad("null within", "not_a_number", embedding([*vector, None])),
        bad("text within", "not_a_number", embedding([*vector, "0.1"])),
        bad("true within", "not_a_number", embedding([*vector, True])),
        bad("a list within", "not_a_number", embedding([*vector, [0.1]])),
        bad("true", "length", embedding(True)),
        bad("zeros", "constant", embedding([0.0] * 384)),
        bad("one number", "constant", embedding([0.5])),
        bad("the same throughout", "constant", embedding([0.25] * 384)),
    ]


def _image_generation() -> list[Case]:
    pipeline = "openai-image-generation"
    right = make.picture(1024, 1024)

    def inline(content: bytes) -> dict[str, Any]:
        return {"created": 1, "data": [{"b64_json": base64.b64encode(content).decode()}]}

    def good(name: str, answer: Any, files: Mapping[str, FetchedFile] | None = None) -> Case:
        return Case(pipeline, name, answer, files=files or {})

    def bad(name: str, problem: str, answer: Any) -> Case:
        return Case(pipeline, name, answer, problem, make_file(right))

    def single(**entry: Any) -> dict[str, Any]:
        return {"data": [entry]}

    return [
        good("OpenAI's", inline(right)),
        good("with a revised prompt", single(b64_json=inline(right)["data"][0]["b64_json"], revised_prompt="a fox")),
        good("an address", single(url=S3), make_file(right, S3)),
        good("both", single(url=S3, b64_json=""), make_file(right, S3)),
        good("a data: URI", single(url="data:image/png;base64," + base64.b64encode(right).decode())),
        good("JPEG", inline(make.picture(1024, 1024, "JPEG"))),
        good("JPEG alone", {"data": [base64.b64encode(make.picture(1024, 1024, "JPEG")).decode()]}),
        good("base64 in lines", single(b64_json=base64.encodebytes(right).decode())),
        bad("not JSON", "bad_json", right[:500]),
        bad("an error with 200", "missing", {"error": {"message": "out of memory"}}),
        bad("no picture", "none", {"data": []}),
        bad("two pictures", "count", {"data": inline(right)["data"] * 2}),
        bad("nothing in it", "no_file", single(b64_json="")),
        bad("null in it", "no_file", single(b64_json=None, url=None)),
        bad("broken base64", "no_file", single(b64_json="@@@")),
        bad("a number", "no_file", single(b64_json=5)),
        bad("data: without base64", "no_file", single(url="data:image/png,abc")),
        bad("a text in base64", "not_an_image", inline(b"no picture at all")),
        bad("half the size", "size", inline(make.picture(512, 512))),
        bad("wide", "size", inline(make.picture(1792, 1024))),
        bad("cut off", "undecodable", inline(right[: len(right) // 2])),
        bad("black", "flat", inline(make.flat_picture(1024, 1024))),
        bad("nearly black", "flat", inline(make.flat_picture(1024, 1024, "#010101", "JPEG"))),
        bad("10⁹ pixels in a header", "undecodable", inline(make.huge_png(50_000, 20_000))),
    ]


def _all() -> list[Case]:
    makers: list[Callable[[], list[Case]]] = [
        _text_to_image,
        _image_to_image,
        _image_to_video,
        _upscale,
        _audio_to_text,
        _segment_anything,
        lambda: _chat("llm"),
        lambda: _chat("openai-chat-completions"),
        _image_to_text,
        _text_to_speech,
        _embeddings,
        _image_generation,
    ]
    return [case for maker in makers for case in maker()]


ALL = _all()
GOOD = [case for case in ALL if not case.problem]
BAD = [case for case in ALL if case.problem]
