"""Define the JSON of stats on their way to the Leaderboard, and of results that other testers sent."""

from __future__ import annotations

from typing import Any, Self

import orjson
from pydantic import Field

from jobtester.store.outbox import STATES, OutboxEntry
from jobtester.store.queries import ExternalResultRow
from jobtester.web.schemas.base import Count, Counts, Instant, PageSchema, Schema


class OutboxEntrySchema(Schema):
    """A stat on its way to the Leaderboard. Its fields are those of the public JSON."""

    number: Count = Field(description="names the entry for `jobtester outbox retry` and `drop`")
    result: str
    tick: str
    gateway: str
    state: str = Field(json_schema_extra={"enum": list(STATES)})
    orchestrator: str
    pipeline_name: str
    model: str
    created_at: Instant
    due_at: Instant
    attempts: Count
    first_sent_at: Instant | None
    last_sent_at: Instant | None
    settled_at: Instant | None
    problem: str
    maybe_double: bool
    stat: dict[str, Any] = Field(description="exactly what the Leaderboard gets")

    @classmethod
    def read_fields(cls, row: OutboxEntry) -> dict[str, Any]:
        """Return the model's fields as an outbox entry has them."""
        values = super().read_fields(row)
        # The stat is JSON already, written by this program, so lists pass its bytes on as they are.
        values.update(number=row.seq, pipeline_name=row.pipeline, stat=orjson.Fragment(row.body))
        return values

    @classmethod
    def from_entry(cls, entry: OutboxEntry) -> Self:
        """Return the schema of an outbox entry."""
        return cls.model_validate(cls.read_fields(entry) | {"stat": orjson.loads(entry.body)})


class OutboxPageSchema(PageSchema[OutboxEntrySchema]):
    """A page of outbox entries, with the number of stats by state."""

    counts: Counts


class ExternalResultSchema(Schema):
    """A result of another tester."""

    id: str
    received_at: Instant
    source: str
    kind: str
    state: str = Field(description="how far its stat got; empty where that has been forgotten")
    stat: dict[str, Any]

    @classmethod
    def from_row(cls, row: ExternalResultRow) -> Self:
        """Return the schema of a stored result of another tester."""
        return cls.model_validate(cls.read_fields(row) | {"stat": orjson.loads(row.stat)})

    @classmethod
    def read_fields(cls, row: ExternalResultRow) -> dict[str, Any]:
        """Return the model's fields as a stored result of another tester has them."""
        return super().read_fields(row) | {"stat": orjson.Fragment(row.stat)}


class ExternalResultPageSchema(PageSchema[ExternalResultSchema]):
    """A page of results of other testers."""
