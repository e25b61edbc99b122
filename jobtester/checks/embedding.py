"""`embedding`: the answer carries a vector of finite numbers for each text that was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput
from jobtester.checks.untrusted_json import find_value, is_number, shorten

_MAX_LENGTH = 65_536
_SHAPES = ("data", "embeddings", "embedding")


@dataclass(frozen=True, slots=True)
class Params:
    """`length` is how many numbers a vector has, 0 for any. `path` leads to the vector or the list of vectors.

    Without a path the usual shapes are understood: OpenAI's and Ollama's.
    """

    path: str = ""
    length: int = 0


def check(sample: CheckInput, params: Params) -> None:
    """Look at every vector. Raises CheckFailedError for the first thing that is not right."""
    vectors = _vectors(sample.answer, params.path)
    asked = sample.expectation.parameters.get("input")
    count = len(asked) if isinstance(asked, list) else 1
    if len(vectors) != count:
        raise CheckFailedError("count", f"{len(vectors)} vectors came, {count} asked for")
    for vector in vectors:
        _check_vector(vector, params.length)
    if len({len(vector) for vector in vectors}) > 1:
        raise CheckFailedError("length", "the vectors are not all of one length")
    if isinstance(asked, list) and len(set(map(tuple, vectors))) < len(set(map(repr, asked))):
        raise CheckFailedError("same", "different texts have the same vector")


def _vectors(answer: Any, path: str) -> list[Any]:
    """Give the vectors, whichever of the usual shapes they come in."""
    if not path:
        keys = answer if isinstance(answer, dict) else {}
        path = next((shape for shape in _SHAPES if shape in keys), _SHAPES[0])
    found = find_value(answer, path)
    if isinstance(found, list) and found and not isinstance(found[0], list | dict):
        return [found]
    if not isinstance(found, list):
        raise CheckFailedError("not_a_list", f"{path} is no list: it is {shorten(found)}")
    return [find_value(entry, "embedding") if isinstance(entry, dict) else entry for entry in found]


def _check_vector(vector: Any, length: int) -> None:
    if not isinstance(vector, list) or not 1 <= len(vector) <= _MAX_LENGTH:
        raise CheckFailedError(
            "length", f"an embedding is no list of 1 to {_MAX_LENGTH} numbers: it is {shorten(vector)}"
        )
    if length and len(vector) != length:
        raise CheckFailedError("length", f"an embedding has {len(vector)} numbers, {length} expected")
    if not all(map(is_number, vector)):
        wrong = next(value for value in vector if not is_number(value))
        raise CheckFailedError("not_a_number", f"an embedding has something that is no number: {shorten(wrong)}")
    if min(vector) == max(vector):
        raise CheckFailedError("constant", f"an embedding is the same number throughout: {vector[0]}")
