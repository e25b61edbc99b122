"""Query: reads an API request's parameters, and refuses what it does not know by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobtester.domain import reasons

MAX_LIMIT = 500
DEFAULT_LIMIT = 100
_LONGEST = 1_000
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")


class QueryError(ValueError):
    """A parameter that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of one request, each given at most once and known to the route."""

    values: Mapping[str, str]

    def text(self, name: str) -> str:
        """Give a parameter as it is, empty where it is not given."""
        return self.values.get(name, "")

    def limit(self) -> int:
        """Give how many items a page may have."""
        given = self.values.get("limit", str(DEFAULT_LIMIT))
        if not (given.isascii() and given.isdecimal() and len(given) <= 4 and 1 <= int(given) <= MAX_LIMIT):
            raise QueryError(f"limit: a whole number from 1 to {MAX_LIMIT}")
        return int(given)

    def cursor(self) -> int | None:
        """Give where a page begins, as an earlier page's `next` said; None for the first page."""
        given = self.values.get("cursor")
        if given is None:
            return None
        if not (given.isascii() and given.isdecimal() and len(given) < 18):
            raise QueryError("cursor: give the `next` of an earlier answer, unchanged")
        return int(given)

    def address(self, name: str) -> str:
        """Give an orchestrator's address in lower case."""
        return parse_address(self.text(name), name) if name in self.values else ""

    def outcome(self) -> str:
        """Give an outcome."""
        return self.one_of("outcome", [one.value for one in reasons.Outcome])

    def reason(self) -> str:
        """Give a reason code."""
        given = self.text("reason")
        if given:
            try:
                reasons.find_reason(given)
            except KeyError as error:
                raise QueryError("reason: no such reason code") from error
        return given

    def one_of(self, name: str, known: Iterable[str]) -> str:
        """Give a parameter that has only a few values."""
        given = self.text(name)
        if name in self.values and given not in known:
            raise QueryError(f"{name}: one of {', '.join(known)}")
        return given


def parse_query(given: Mapping[str, str], known: Iterable[str]) -> Query:
    """Take a request's parameters, which may repeat names.

    Raises QueryError for one that is unknown, empty, overlong or given twice.
    """
    names = tuple(known)
    values: dict[str, str] = {}
    for name, value in given.items():
        if name not in names:
            shown = name[:40].encode("ascii", "replace").decode()
            raise QueryError(f"{shown}: no such parameter; there are {', '.join(names) or 'none'}")
        if name in values:
            raise QueryError(f"{name}: given more than once")
        if not value:
            raise QueryError(f"{name}: is empty; leave it out for any")
        if len(value) > _LONGEST:
            raise QueryError(f"{name}: longer than {_LONGEST} characters")
        if not _storable(value):
            raise QueryError(f"{name}: is not text")
        values[name] = value
    return Query(values)


def parse_address(given: str, name: str) -> str:
    """Bring an orchestrator's address to lower case. Raises QueryError if it is none."""
    lower = given.lower()
    if not _ADDRESS.fullmatch(lower):
        raise QueryError(f"{name}: an Ethereum address, 0x and 40 hexadecimal digits")
    return lower


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
