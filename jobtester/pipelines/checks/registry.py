"""The registry: which checks there are, and running them so that none can do harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobtester.domain.outcome import Fault, Finding
from jobtester.pipelines.checks import audio, caption, chat, embedding, field, image, masks, paths, transcript, video
from jobtester.pipelines.checks.sample import Check, Expectation, Notes, Sample, Wrong

MAX_ARTEFACTS = 8


@dataclass(frozen=True, slots=True)
class Kind:
    """One check: its parameters, the function, the files it wants fetched, and what it has to load before.

    `light` tells whether it takes microseconds with a small answer, so that it may run where nothing must wait.
    `needs` says what it would have to know and is not told, empty if nothing.
    """

    params: type
    check: Callable[[Sample, Any], None]
    urls: Callable[[Any, Any], list[str]] = lambda _answer, _params: []
    prepare: Callable[[Any], None] = lambda _params: None
    light: Callable[[Any], bool] = lambda _params: True
    needs: Callable[[Any, Expectation], str] = lambda _params, _expectation: ""


def _heavy(_params: Any) -> bool:
    return False


KINDS: Mapping[str, Kind] = {
    "image": Kind(image.Params, image.check, image.urls, lambda _params: image.prepare(), _heavy, image.needs),
    "video": Kind(video.Params, video.check, video.urls, lambda _params: video.prepare(), _heavy),
    "audio": Kind(audio.Params, audio.check, audio.urls, lambda _params: audio.prepare(), _heavy),
    "transcript": Kind(transcript.Params, transcript.check, needs=transcript.needs),
    "caption": Kind(caption.Params, caption.check, needs=caption.needs),
    "masks": Kind(masks.Params, masks.check, light=_heavy, needs=masks.needs),
    "chat": Kind(chat.Params, chat.check),
    "embedding": Kind(embedding.Params, embedding.check),
    "json": Kind(field.Params, field.check, field.urls, field.prepare, field.light),
}


def urls(checks: Iterable[Check], answer: Any) -> list[str]:
    """Give the addresses that have to be fetched before the checks can run, each once, at most MAX_ARTEFACTS."""
    found = dict.fromkeys(url for check in checks for url in KINDS[check.name].urls(answer, check.params))
    return list(found)[:MAX_ARTEFACTS]


def light(checks: Iterable[Check]) -> bool:
    """Tell whether all of the checks take microseconds with a small answer."""
    return all(KINDS[check.name].light(check.params) for check in checks)


def prepare(checks: Iterable[Check]) -> None:
    """Load what the checks need, so that loading does not count as looking."""
    for check in checks:
        KINDS[check.name].prepare(check.params)


def needs(check: Check, expectation: Expectation) -> str:
    """Say in plain words what a check would have to know of the request and is not told, empty if nothing."""
    return KINDS[check.name].needs(check.params, expectation)


def run(check: Check, sample: Sample) -> Finding:
    """Run one check. Never raises: what breaks a check is a finding too, and a defect of a check is the tester's."""
    notes = Notes()
    try:
        KINDS[check.name].check(replace(sample, notes=notes), check.params)
    except Wrong as wrong:
        return Finding(check.name, wrong.problem, wrong.message, wrong.fault, notes.of(check.name))
    except MemoryError:
        message = "the answer needs more memory to look at than the tester grants"
        return Finding(check.name, "too_heavy", message, Fault.TESTER)
    except Exception as error:
        shown = f"{type(error).__name__}: {paths.show(str(error))}"
        return Finding(check.name, "defect", f"the check {check.name} broke off: {shown}", Fault.TESTER)
    return Finding(check.name, notes=notes.of(check.name))
