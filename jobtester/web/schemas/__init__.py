"""Define the one JSON shape of results, ticks, plans and outbox entries.

The API, its OpenAPI document, `--json` of the commands, server-sent events and the notification all use these models.
Instants are Unix seconds (UTC), durations are seconds, prices are wei as decimal text because they outgrow the numbers
of JSON readers.
"""

from __future__ import annotations

from jobtester.web.schemas.base import AcceptedSchema, ErrorSchema, OpenApiSchema, PageSchema, Schema
from jobtester.web.schemas.commands import PlannedJobSchema, PlanSchema, RunSchema, SkipSchema
from jobtester.web.schemas.full_results import FullResultSchema
from jobtester.web.schemas.outbox import (
    ExternalResultPageSchema,
    ExternalResultSchema,
    OutboxEntrySchema,
    OutboxPageSchema,
)
from jobtester.web.schemas.results import (
    CapabilitySchema,
    NoteSchema,
    OrchestratorPageSchema,
    OrchestratorSchema,
    PointSchema,
    ResultDetailSchema,
    ResultPageSchema,
    ResultSchema,
    explain_reason,
)
from jobtester.web.schemas.ticks import (
    InFlightSchema,
    LiveSchema,
    NotificationSchema,
    PeerSchema,
    ProgressSchema,
    SlowResultSchema,
    StatusSchema,
    TickDetailSchema,
    TickPageSchema,
    TickReportSchema,
    TickSchema,
)

__all__ = [
    "AcceptedSchema",
    "CapabilitySchema",
    "ErrorSchema",
    "ExternalResultPageSchema",
    "ExternalResultSchema",
    "FullResultSchema",
    "InFlightSchema",
    "LiveSchema",
    "NoteSchema",
    "NotificationSchema",
    "OpenApiSchema",
    "OrchestratorPageSchema",
    "OrchestratorSchema",
    "OutboxEntrySchema",
    "OutboxPageSchema",
    "PageSchema",
    "PeerSchema",
    "PlanSchema",
    "PlannedJobSchema",
    "PointSchema",
    "ProgressSchema",
    "ResultDetailSchema",
    "ResultPageSchema",
    "ResultSchema",
    "RunSchema",
    "Schema",
    "SkipSchema",
    "SlowResultSchema",
    "StatusSchema",
    "TickDetailSchema",
    "TickPageSchema",
    "TickReportSchema",
    "TickSchema",
    "explain_reason",
]
