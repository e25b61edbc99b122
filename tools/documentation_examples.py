"""Examples of the documentation: requests and stats in full, made by the program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.pipelines.assets import Assets
from jobtester.pipelines.catalogue import load_catalogue
from jobtester.pipelines.request import Request, Requests

_SEED = 7
_JOB = "427df645b5fb10d6"
_ADDRESS = "0xd00354656922168815fcd1e51cbddb9e359e3c7f"
_MODEL = "ByteDance/SDXL-Lightning"
_ANSWER = '{"images":[{"url":"/stream/ff013435/75f0516f.png","seed":42,"nsfw":false}]}'


def example_requests() -> str:
    """Return one request as JSON and one as form data, as a gateway gets them."""
    return "\n".join(
        f"{introduction}\n\n```http\n{_as_http(_build(slug, model))}\n```\n"
        for introduction, slug, model in (
            ("A request as JSON:", "text-to-image", _MODEL),
            ("A request as form data:", "upscale", "stabilityai/stable-diffusion-x4-upscaler"),
        )
    )


def example_stats() -> str:
    """Return the stat of a passed job, and that of a failed one."""
    passed = _stat(Verdict.from_code("ok"))
    failed = _stat(Verdict.from_code("check:image", "picture 1 is 64x64, asked for was 512x512"))
    return (
        f"The stat of a passed job, which is one line when it is sent:\n\n```json\n{_indented(passed)}\n```\n\n"
        f"Of a failed one these fields differ:\n\n```json\n"
        + _indented({key: value for key, value in failed.items() if value != passed[key]})
        + "\n```\n"
    )


def _build(slug: str, model: str) -> Request:
    catalogue, assets = load_catalogue({}, Assets()), Assets()
    return Requests(catalogue, assets, _SEED).build(catalogue[slug], model)


def _stat(verdict: Verdict) -> dict[str, Any]:
    capability = Capability("text-to-image", _MODEL, warm=True)
    job = Job(
        _JOB, "t", Orchestrator(_ADDRESS, "https://orchestrator.example:8935"), capability, "Text to image", 60.0, 1.0
    )
    request = orjson.dumps(_build("text-to-image", _MODEL).parameters).decode()
    result = Result(
        job, verdict, Attribution(AttributionKind.PROVEN), "tester", "webhook", 1796094883.77, 3.4176839839989156, 200,
        request=request, response=_ANSWER,
    )  # fmt: skip
    fields: dict[str, Any] = orjson.loads(Stat.from_result(result, "FRA").body)
    return fields


def _as_http(request: Request) -> str:
    head = [
        f"{request.method} {request.path} HTTP/1.1",
        f"Content-Type: {request.content_type}",
        f"X-Request-ID: {_JOB}",
    ]
    if request.content_type.startswith("multipart/"):
        # The file's bytes are no text: what stands between its head and the next boundary is named instead.
        text = re.sub(
            r'(filename="([^"]+)"\r\nContent-Type: \S+\r\n\r\n).*?(?=\r\n--)',
            r"\1<the bytes of \2>",
            request.body.decode("latin-1"),
            flags=re.DOTALL,
        )
        body = text.replace("\r\n", "\n").rstrip("\n")
    else:
        body = _indented(orjson.loads(request.body))
    return "\n".join([*head, "", body])


def _indented(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def join_alike(items: Sequence[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Return each text with all names that have it, in the order of the first."""
    examples: dict[str, list[str]] = {}
    for name, text in items:
        examples.setdefault(text, []).append(name)
    return [(names, text) for text, names in examples.items()]
