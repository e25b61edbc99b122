"""The registry: which checks there are, and running them so that none can do harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobtester.checks import audio, caption, chat, embedding, image, json_field, masks, transcript, video
from jobtester.checks.base import Check, CheckFailedError, CheckInput, Expectation, NoteCollector
from jobtester.checks.json_path import shorten
from jobtester.domain.reasons import Fault, Finding

MAX_FILES = 8


@dataclass(frozen=True, slots=True)
class CheckType:
    """One check: its parameters, the function, the files it wants fetched, and what it has to load before.

    `light` tells whether it takes microseconds with a small answer, so that it may run where nothing must wait.
    `needs` says what it would have to know and is not told, empty if nothing.
    """

    params: type
    check: Callable[[CheckInput, Any], None]
    urls: Callable[[Any, Any], list[str]] = lambda _answer, _params: []
    prepare: Callable[[Any], None] = lambda _params: None
    light: Callable[[Any], bool] = lambda _params: True
    needs: Callable[[Any, Expectation], str] = lambda _params, _expectation: ""


def _heavy(_params: Any) -> bool:
    return False


CHECK_TYPES: Mapping[str, CheckType] = {
    "image": CheckType(image.Params, image.check, image.urls, lambda _params: image.prepare(), _heavy, image.needs),
    "video": CheckType(video.Params, video.check, video.urls, lambda _params: video.prepare(), _heavy),
    "audio": CheckType(audio.Params, audio.check, audio.urls, lambda _params: audio.prepare(), _heavy),
    "transcript": CheckType(transcript.Params, transcript.check, needs=transcript.needs),
    "caption": CheckType(caption.Params, caption.check, needs=caption.needs),
    "masks": CheckType(masks.Params, masks.check, light=_heavy, needs=masks.needs),
    "chat": CheckType(chat.Params, chat.check),
    "embedding": CheckType(embedding.Params, embedding.check),
    "json": CheckType(json_field.Params, json_field.check, json_field.urls, json_field.prepare, json_field.light),
}


def file_urls(checks: Iterable[Check], answer: Any) -> list[str]:
    """Give the addresses that have to be fetched before the checks can run, each once, at most MAX_ARTIFACTS."""
    found = dict.fromkeys(url for check in checks for url in CHECK_TYPES[check.name].urls(answer, check.params))
    return list(found)[:MAX_FILES]


def is_inline(checks: Iterable[Check]) -> bool:
    """Tell whether all of the checks take microseconds with a small answer."""
    return all(CHECK_TYPES[check.name].light(check.params) for check in checks)


def load_decoders(checks: Iterable[Check]) -> None:
    """Load what the checks need, so that loading does not count as looking."""
    for check in checks:
        CHECK_TYPES[check.name].prepare(check.params)


def missing_inputs(check: Check, expectation: Expectation) -> str:
    """Say in plain words what a check would have to know of the request and is not told, empty if nothing."""
    return CHECK_TYPES[check.name].needs(check.params, expectation)


def run_check(check: Check, sample: CheckInput) -> Finding:
    """Run one check. Never raises: what breaks a check is a finding too, and a defect of a check is the tester's."""
    notes = NoteCollector()
    try:
        CHECK_TYPES[check.name].check(replace(sample, notes=notes), check.params)
    except CheckFailedError as wrong:
        return Finding(check.name, wrong.problem, wrong.message, wrong.fault, notes.for_check(check.name))
    except MemoryError:
        message = "the answer needs more memory to look at than the tester grants"
        return Finding(check.name, "too_heavy", message, Fault.TESTER)
    except Exception as error:
        shown = f"{type(error).__name__}: {shorten(str(error))}"
        return Finding(check.name, "defect", f"the check {check.name} broke off: {shown}", Fault.TESTER)
    return Finding(check.name, notes=notes.for_check(check.name))
