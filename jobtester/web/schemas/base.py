"""Define what all JSON models share: their base, pages of lists, errors, and the types of common fields."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field

from jobtester.domain.orchestrators import Capability, CapabilityKind
from jobtester.domain.reasons import Outcome

ItemT = TypeVar("ItemT")

Count = Annotated[int, Field(ge=0)]
Counts = dict[str, Count]
Instant = Annotated[float, Field(description="Unix seconds, UTC")]
Seconds = Annotated[float, Field(ge=0, description="seconds")]
Address = Annotated[str, Field(description="Ethereum address, lower-case")]
Wei = Annotated[
    str, Field(coerce_numbers_to_str=True, pattern="^[0-9]+$", description="wei as decimal text: it outgrows numbers")
]
# The store may hold values that another version wrote, so the lists of values are documented but not enforced.
KindText = Annotated[
    str,
    Field(
        description="how the orchestrator serves it",
        json_schema_extra={"enum": [kind.value for kind in CapabilityKind]},
    ),
]
OutcomeText = Annotated[str, Field(json_schema_extra={"enum": [outcome.value for outcome in Outcome]})]


class Schema(BaseModel):
    """Base of all models: built from attributes of the domain's objects, complete in its JSON Schema."""

    # A field with a default is always written, so the document lists it as required; nothing else is ever written.
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra={"additionalProperties": False},
    )

    @classmethod
    def read_fields(cls, row: Any) -> dict[str, Any]:
        """Return the model's fields as `row` has them, ready for orjson or for validation.

        Lists of hundreds of rows are written from these values: the store has just read what this program wrote, and
        validating it once more takes three times as long as writing it.
        """
        names, read = _get_field_reader(cls, row.__class__)
        return dict(zip(names, read(row), strict=False))

    def to_json(self, *, indent: bool = False) -> bytes:
        """Return the model as JSON in UTF-8, in one line unless `indent` is set."""
        return pydantic_core.to_json(self, indent=2 if indent else None, inf_nan_mode="null")


# An attrgetter reads twenty fields in a third of the time that getattr takes for each.
@cache
def _get_field_reader(model: type[Schema], row_type: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    names = tuple(name for name in model.model_fields if hasattr(row_type, name))
    return names, attrgetter(*names)


class RunnerSchema(Schema):
    """How an orchestrator listed a live runner."""

    mode: str = Field(description="single-shot or persistent")
    price_wei: Wei | None = Field(description="for each `unit`; null without a price")
    unit: str = Field(description="fixed (a request or session), seconds, 720p-pixel-seconds; empty without a price")
    gpu: str
    schema_url: str = Field(description="where the app says that its description is; never fetched")

    @classmethod
    def from_capability(cls, capability: Capability | None) -> Self | None:
        """Return how a capability was listed, None where it is not the app of a live runner."""
        if capability is None or capability.runner is None:
            return None
        runner, price = capability.runner, capability.price
        return cls(
            mode=runner.mode,
            price_wei=None if price is None else str(price.wei_per_unit),
            unit=runner.unit,
            gpu=runner.gpu,
            schema_url=runner.schema_url,
        )


class PageSchema(Schema, Generic[ItemT]):
    """A page of a list."""

    items: list[ItemT]
    next: str | None = Field(None, description="the cursor of the next page, null on the last")


class ErrorSchema(Schema):
    """A refusal or failure of a request."""

    error: str = Field(min_length=1, description="what to change")


class AcceptedSchema(Schema):
    """The answer to an order that is carried out later."""

    state: Literal["accepted"] = "accepted"


class OpenApiSchema(Schema):
    """The description of the API."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})
