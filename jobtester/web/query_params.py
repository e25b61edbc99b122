"""Check the parameters of API requests, and name the one that cannot be used."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from jobtester.domain.instants import INSTANT_HELP, parse_instant
from jobtester.domain.reasons import Outcome, find_reason
from jobtester.store.outbox import STATES

MAX_LIMIT = 500
DEFAULT_LIMIT = 100
_MAX_LENGTH = 1_000
_OUTCOMES = tuple(outcome.value for outcome in Outcome)
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")


class QueryError(ValueError):
    """A parameter that cannot be used; the message names it."""


class QueryParams(BaseModel):
    """The parameters of a route, each given at most once. This base is a route without any."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """Return the parameters of a request, whose query may repeat names.

        Raises QueryError for a parameter that is unknown, empty, too long, repeated or not what the route expects.
        """
        values: dict[str, str] = {}
        # Checked before pydantic sees them: a mapping hides repeated names, and a typo in a filter that is silently
        # dropped would answer with too much.
        for name, value in query.items():
            if name not in cls.model_fields:
                # The name is cut and stripped of other characters because the message is shown and logged.
                shown = name[:40].encode("ascii", "replace").decode()
                raise QueryError(f"{shown}: unknown parameter; this route has {', '.join(cls.model_fields) or 'none'}")
            if name in values:
                raise QueryError(f"{name}: given more than once")
            if not value:
                raise QueryError(f"{name}: is empty; leave it out to match all")
            if len(value) > _MAX_LENGTH:
                raise QueryError(f"{name}: longer than {_MAX_LENGTH} characters")
            try:
                value.encode()
            except UnicodeEncodeError as error:  # lone surrogates have no bytes, and SQLite refuses them
                raise QueryError(f"{name}: is not text") from error
            values[name] = value
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise QueryError(f"{first['loc'][0]}: {first['ctx']['error']}") from error


def parse_address(text: str) -> str:
    """Return an orchestrator's address in lower case. Raises ValueError if the text is none."""
    lower = text.lower()
    if not _ADDRESS.fullmatch(lower):
        raise ValueError("must be an Ethereum address, 0x and 40 hexadecimal digits")
    return lower


def _parse_moment(text: str) -> float:
    return parse_instant(text, time.time())


def _parse_limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _parse_sequence(text: str) -> int:
    # 17 digits fit into SQLite's integers; ASCII because int() also reads the digits of other scripts.
    if not (text.isascii() and text.isdecimal() and len(text) < 18):
        raise ValueError("must be the `next` of an earlier page, unchanged")
    return int(text)


def _require_choice(values: Sequence[str]) -> AfterValidator:
    """Return the validator of a parameter that has only a few values."""

    def check(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text

    return AfterValidator(check)


def _check_reason(text: str) -> str:
    try:
        find_reason(text)
    except KeyError as error:
        raise ValueError("no such reason code; docs/outcomes.md lists them") from error
    return text


# Cursors are opaque texts for clients, so that the key behind them may change; each list checks its own kind.
_CURSOR = Field(description="the `next` of the page before; results that are recorded meanwhile move no page")
SequenceCursor = Annotated[int, BeforeValidator(_parse_sequence), WithJsonSchema({"type": "string"}), _CURSOR]
AddressCursor = Annotated[str, AfterValidator(parse_address), _CURSOR]
IdCursor = Annotated[str, _CURSOR]


_Moment = Annotated[float, BeforeValidator(_parse_moment), WithJsonSchema({"type": "string"})]
Since = Annotated[_Moment, Field(description=f"only what started then or later: {INSTANT_HELP}")]
Until = Annotated[_Moment, Field(description="only what started before, written like `since`")]


class PageParams(QueryParams):
    """The parameter of every list."""

    limit: Annotated[
        int,
        BeforeValidator(_parse_limit),
        Field(ge=1, le=MAX_LIMIT, description="the maximum number of items on a page"),
    ] = DEFAULT_LIMIT


class SequencePageParams(PageParams):
    """The parameters of a list that is paged by a sequence number."""

    cursor: SequenceCursor | None = None


class TickPageParams(PageParams):
    """The parameters of the list of ticks."""

    cursor: IdCursor = ""
    since: Since | None = None
    until: Until | None = None


class OrchestratorPageParams(PageParams):
    """The parameters of the list of orchestrators."""

    cursor: AddressCursor = ""
    pipeline: str = Field("", description="only capabilities of this pipeline (slug)")


class ResultPageParams(SequencePageParams):
    """The parameters of the list of results."""

    tick: str = Field("", description="only results of this tick")
    orchestrator: Annotated[str, AfterValidator(parse_address)] = Field("", description="only results of this address")
    pipeline: str = Field("", description="only results of this pipeline (slug)")
    model: str = Field("", description="only results of this model")
    outcome: Annotated[str, _require_choice(_OUTCOMES)] = Field(
        "", description="only results with this outcome", json_schema_extra={"enum": list(_OUTCOMES)}
    )
    reason: Annotated[str, AfterValidator(_check_reason)] = Field("", description="only results with this reason code")
    since: Since | None = None
    until: Until | None = None


class OutboxPageParams(SequencePageParams):
    """The parameters of the list of outbox entries."""

    state: Annotated[str, _require_choice(STATES)] = Field(
        "",
        description="only entries in this state; without it, all that are not delivered",
        json_schema_extra={"enum": list(STATES)},
    )
