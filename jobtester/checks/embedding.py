"""`embedding`: the answer has a vector of finite numbers for each text of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobtester.checks.base import CheckFailedError, CheckInput
from jobtester.checks.untrusted_json import find_value, is_number, shorten

_MAX_LENGTH = 65_536
_USUAL_PATHS = ("data", "embeddings", "embedding")


@dataclass(frozen=True, slots=True)
class Params:
    """`length` is the length of a vector, 0 for any. `path` is the path of the vector or the list of vectors.

    By default the formats of OpenAI and Ollama are read.
    """

    path: str = ""
    length: int = 0


def check(sample: CheckInput, params: Params) -> None:
    """Check every vector. Raises CheckFailedError for the first thing that is wrong."""
    vectors = _find_vectors(sample.answer, params.path)
    texts = sample.expectation.parameters.get("input")
    count = len(texts) if isinstance(texts, list) else 1
    if len(vectors) != count:
        raise CheckFailedError("count", f"the answer has {len(vectors)} vectors, {count} requested")
    for vector in vectors:
        if not isinstance(vector, list) or not 1 <= len(vector) <= _MAX_LENGTH:
            raise CheckFailedError(
                "length", f"an embedding is not a list of 1 to {_MAX_LENGTH} numbers: it is {shorten(vector)}"
            )
        if params.length and len(vector) != params.length:
            raise CheckFailedError("length", f"an embedding has {len(vector)} numbers, {params.length} expected")
        if not all(map(is_number, vector)):
            value = next(value for value in vector if not is_number(value))
            raise CheckFailedError("not_a_number", f"an embedding has a value that is not a number: {shorten(value)}")
        if min(vector) == max(vector):
            raise CheckFailedError("constant", f"an embedding is the same number throughout: {vector[0]}")
    if len({len(vector) for vector in vectors}) > 1:
        raise CheckFailedError("length", "the vectors are not all of one length")
    # A worker that answers without a model can answer everything with one vector. Equal texts may have equal vectors.
    if isinstance(texts, list) and len(set(map(tuple, vectors))) < len(set(map(repr, texts))):
        raise CheckFailedError("same", "different texts have the same vector")


def _find_vectors(answer: Any, path: str) -> list[Any]:
    """Return the vectors in any of the usual shapes."""
    if not path:
        keys = answer if isinstance(answer, dict) else {}
        path = next((usual for usual in _USUAL_PATHS if usual in keys), _USUAL_PATHS[0])
    vectors = find_value(answer, path)
    if not isinstance(vectors, list):
        raise CheckFailedError("not_a_list", f"{path} is not a list: it is {shorten(vectors)}")
    if vectors and not isinstance(vectors[0], list | dict):
        return [vectors]
    return [find_value(entry, "embedding") if isinstance(entry, dict) else entry for entry in vectors]
