"""List every check with its parameters, as written in config.toml, and how to run it safely."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jobtester.checks import audio, caption, chat, embedding, image, json_field, masks, transcript, video
from jobtester.checks.base import Check, CheckFailedError, CheckInput, Expectation, NoteCollector
from jobtester.checks.untrusted_json import shorten
from jobtester.domain.reasons import Fault, Finding

MAX_FILES = 8


@dataclass(frozen=True, slots=True)
class CheckType:
    """One kind of check. `check` raises CheckFailedError; the other functions have defaults for checks of plain JSON.

    `file_urls` returns the addresses of the files to fetch, `load_decoders` loads what `check` needs. `is_inline` is
    true if a small answer takes microseconds to check, so that it may run on the event loop. `missing_inputs` says
    what the check would have to know of the request and does not, empty if nothing.
    """

    params: type
    check: Callable[[CheckInput, Any], None]
    file_urls: Callable[[Any, Any], list[str]] = lambda _answer, _params: []
    load_decoders: Callable[[Any], None] = lambda _params: None
    is_inline: Callable[[Any], bool] = lambda _params: True
    missing_inputs: Callable[[Any, Expectation], str] = lambda _params, _expectation: ""


CHECK_TYPES: Mapping[str, CheckType] = {
    "image": CheckType(
        image.Params,
        image.check,
        image.file_urls,
        load_decoders=lambda _params: image.load_decoders(),
        is_inline=lambda _params: False,
        missing_inputs=image.missing_inputs,
    ),
    "video": CheckType(
        video.Params,
        video.check,
        video.file_urls,
        load_decoders=lambda _params: video.load_decoders(),
        is_inline=lambda _params: False,
    ),
    "audio": CheckType(
        audio.Params,
        audio.check,
        audio.file_urls,
        load_decoders=lambda _params: audio.load_decoders(),
        is_inline=lambda _params: False,
    ),
    "transcript": CheckType(transcript.Params, transcript.check, missing_inputs=transcript.missing_inputs),
    "caption": CheckType(caption.Params, caption.check, missing_inputs=caption.missing_inputs),
    # Masks are plain JSON as well, but hundreds of thousands of numbers of it.
    "masks": CheckType(masks.Params, masks.check, is_inline=lambda _params: False, missing_inputs=masks.missing_inputs),
    "chat": CheckType(chat.Params, chat.check),
    "embedding": CheckType(embedding.Params, embedding.check),
    "json": CheckType(
        json_field.Params,
        json_field.check,
        json_field.file_urls,
        load_decoders=json_field.load_decoders,
        is_inline=json_field.is_inline,
    ),
}


def file_urls(checks: Iterable[Check], answer: Any) -> list[str]:
    """Return the addresses to fetch before the checks can run, each once, at most MAX_FILES."""
    urls = dict.fromkeys(url for check in checks for url in CHECK_TYPES[check.name].file_urls(answer, check.params))
    return list(urls)[:MAX_FILES]


def is_inline(checks: Iterable[Check]) -> bool:
    """Return True if all of the checks take microseconds with a small answer."""
    return all(CHECK_TYPES[check.name].is_inline(check.params) for check in checks)


def load_decoders(checks: Iterable[Check]) -> None:
    """Load what the checks need, so that loading does not count as checking."""
    for check in checks:
        CHECK_TYPES[check.name].load_decoders(check.params)


def missing_inputs(check: Check, expectation: Expectation) -> str:
    """Return in plain words what a check would have to know of the request and does not, empty if nothing."""
    return CHECK_TYPES[check.name].missing_inputs(check.params, expectation)


def run_check(check: Check, sample: CheckInput) -> Finding:
    """Return the finding of one check. Never raises: a check that breaks is a finding too, and the tester's fault."""
    notes = NoteCollector()
    try:
        CHECK_TYPES[check.name].check(replace(sample, notes=notes), check.params)
    except CheckFailedError as error:
        return Finding(check.name, error.problem, error.message, error.fault, notes.for_check(check.name))
    except MemoryError:
        message = "the answer needs more memory to check than the tester grants"
        return Finding(check.name, "too_heavy", message, Fault.TESTER)
    except Exception as error:
        # Strangers choose the answers. A defect of ours that one of them brings out must not cost an orchestrator its
        # score, nor end the tick.
        shown = f"{type(error).__name__}: {shorten(str(error))}"
        return Finding(check.name, "defect", f"the check {check.name} broke off: {shown}", Fault.TESTER)
    return Finding(check.name, notes=notes.for_check(check.name))


def default_parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a check that have a default, as details write them; none for an unknown check."""
    if name not in CHECK_TYPES:
        return {}
    return {
        field.name.rstrip("_"): field.default
        for field in fields(CHECK_TYPES[name].params)
        if field.default is not MISSING
    }


def parameter_problems(table: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a check's table, `{ check = "image", size = "asked" }`, empty if nothing.

    Each problem begins with where it is: `.key: `, or `: ` for the table as a whole.
    """
    name = table.get("check")
    if name is None:
        return [f".check: is missing; there are {', '.join(CHECK_TYPES)}"]
    if not isinstance(name, str) or name not in CHECK_TYPES:
        return [f".check: there is no check {name!r}; there are {', '.join(CHECK_TYPES)}"]
    field_names = _field_names(name)
    problems = [
        f".{key}: the check {name} has no such parameter; it has {', '.join(field_names)}"
        for key in table
        if key not in field_names and key != "check"
    ]
    try:
        make_check(table)
    except ValidationError as invalid:
        for error in invalid.errors():
            key = str(error["loc"][0]).rstrip("_") if error["loc"] else ""
            message = error["msg"].removeprefix("Value error, ")
            if error["type"] == "missing":
                problems.append(f".{key}: is missing")
            else:
                problems.append(f".{key}: {message} (given: {error['input']!r})" if key else f": {message}")
    return problems


def make_check(table: Mapping[str, Any]) -> Check:
    """Return the check that a table describes, one in which `parameter_problems` finds nothing."""
    field_names = _field_names(table["check"])
    params = {field_names[key]: value for key, value in table.items() if key in field_names}
    return Check(table["check"], _params_adapter(table["check"]).validate_python(params))


@cache
def _params_adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(CHECK_TYPES[name].params)


@cache
def _field_names(name: str) -> dict[str, str]:
    """Return the fields of a check's `Params` by configuration key: keywords of Python end in an underscore there."""
    return {field.name.rstrip("_"): field.name for field in fields(CHECK_TYPES[name].params)}
