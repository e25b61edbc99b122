"""Definitions: what to send for a pipeline and what to expect, as data. The built-in ones are in builtin.toml."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property, reduce
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from jobtester.checks.base import AssetMetadata
from jobtester.domain.orchestrators import SINGLE_SHOT, Capability, display_name
from jobtester.domain.runner_prices import estimate_runner_price_wei
from jobtester.domain.units import parse_duration
from jobtester.pipelines.parameter_choices import all_choices
from jobtester.pipelines.video_rules import STREAM_END_S, VideoRules
from jobtester.settings.schema import deep_merge

MULTIPART = "multipart/form-data"


def _check_limit(value: float) -> float:
    if not 0 < value <= 86_400:
        raise ValueError("has to be longer than 0 and at most a day")
    return value


def _check_path(value: str) -> str:
    if (
        not value.startswith("/")
        or (value.endswith("/") and value != "/")
        or "//" in value
        or ".." in value.split("/")
        or set(value) & set(" ?#%\\")
    ):
        raise ValueError('has to be a path such as "/text-to-image", without query, blanks or a slash at its end')
    return value


def _check_factor(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, int | float) and value < 0):
        raise ValueError("has to be a number, or the name of one")
    return value


Limit = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_check_limit)]
UriPath = Annotated[str, AfterValidator(_check_path)]
Factor = Annotated[int | float | str, BeforeValidator(_check_factor)]


class Table(BaseModel):
    """A table of config.toml: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Override(Table):
    """What differs for some models or in one variant: parameters, files, parameters of checks, and keys of `video`."""

    parameters: dict[str, Any] = Field({}, description="values that override or extend the pipeline's")
    files: dict[str, str] = Field({}, description="test inputs that override the pipeline's, by form field")
    expect: dict[str, dict[str, Any]] = Field({}, description="parameters of checks, by the check's name")
    video: dict[str, Any] = Field({}, description="live video: keys that override the pipeline's `video`")


class PipelineDefinition(Table):
    """One pipeline, with a field for each key of its table in config.toml.

    `slug` is the table's name, `inputs` the metadata of its files; both are filled in and no keys of the table.

    `units` are the factors whose product is how many priced units one job has: a number, a parameter's name,
    `input.pixels`, `input.seconds` (whole ones), `<parameter>.length` (characters), or `timeout` (seconds).
    """

    slug: str
    inputs: Mapping[str, AssetMetadata] = {}

    name: str = Field("", description="name at the Leaderboard: go-livepeer's display name, for BYOC the capability's")
    enabled: bool = Field(True, description="test this pipeline")
    byoc: bool = Field(False, description="an external capability, named like the table")
    runner: bool = Field(False, description="an app of live runners: the job goes to the orchestrator itself")
    apps: tuple[str, ...] = Field(
        (), description="live runners: patterns of app names; unset, the table's name after any owner's"
    )
    method: Literal["POST", "GET"] = Field("POST", description="live runners: GET sends parameters as the query")
    models: tuple[str, ...] = Field(
        ("*",), description="which models are tested, of an app which versions: ids or patterns with `*` and `?`"
    )
    uri: UriPath = Field(
        description="path of the job at the gateway; for BYOC after /process/request, for a live runner after its URL"
    )
    content_type: Literal["application/json", "multipart/form-data"] = Field(
        "application/json", description="format of the request; only form data can contain files"
    )
    timeout: Limit = Field(60.0, description="time limit of a job for a warm model, at most a day")
    cold_timeout: Limit = Field(360.0, description="time limit for a model that may have to be loaded first")
    model_field: str = Field(
        "model_id", pattern=r"^\w+$", description="the parameter that names the model; live runners get none"
    )
    stream: bool | None = Field(None, description="the parameter `stream`; unset: not sent")
    capture_response: bool = Field(
        True, description="record and post the answers of passed jobs; other answers are always recorded"
    )
    parameters: dict[str, Any] = Field(
        {}, description="what is sent; of a list each tick uses one value, the same for all orchestrators"
    )
    files: dict[str, str] = Field({}, description="test inputs to send, by form field")
    checks: tuple[dict[str, Any], ...] = Field((), description="checks of the answer, in this order")
    units: tuple[Factor, ...] = Field((), description="factors whose product is the number of priced units")
    video: VideoRules | None = Field(None, description="live video: what is sent, and what the output has to reach")
    per_model: dict[str, Override] = Field({}, description="overrides for models that match a pattern")
    variants: tuple[Override, ...] = Field((), description="alternatives, of which each tick uses one")

    def model_post_init(self, _context: object) -> None:
        """Set what is missing: the name, go-livepeer's display name for its own pipelines, and the apps' patterns."""
        if not self.name:
            name = self.slug if self.byoc or self.runner else display_name(self.slug)
            object.__setattr__(self, "name", name)
        if self.runner and not self.apps:
            object.__setattr__(self, "apps", (self.slug, f"*/{self.slug}"))

    @property
    def timeout_s(self) -> float:
        """Return the time limit for a warm model, in seconds."""
        return self.timeout

    @property
    def cold_timeout_s(self) -> float:
        """Return the time limit for a model that may have to be loaded, in seconds, at least that of a warm one."""
        return max(self.timeout, self.cold_timeout)

    @property
    def is_video(self) -> bool:
        """Return True if each job is a video stream."""
        return self.video is not None

    @property
    def is_multipart(self) -> bool:
        """Return True if the request is form data."""
        return self.content_type == MULTIPART

    @property
    def longest_session_s(self) -> float:
        """Return how long a job keeps a session of a live runner at most, in seconds."""
        # To reserve one takes less than a second and may take ten.
        longest_s = max(self.timeout_s, self.cold_timeout_s if self.is_video else 0.0) + 10.0
        if not self.is_video:
            return longest_s
        durations = (self.video_for(pattern).duration for pattern in ("", *self.per_model))
        return longest_s + max(durations) + STREAM_END_S

    def for_model(self, model: str, variant: Override | None = None) -> Override:
        """Return parameters, files and expectations: the pipeline's own, the variant's over them, then the model's."""
        matching = [
            override for pattern, override in self.per_model.items() if fnmatchcase(model.lower(), pattern.lower())
        ]
        layers = [Override(parameters=self.parameters, files=self.files), *([variant] if variant else []), *matching]
        return Override.model_validate(reduce(deep_merge, (layer.model_dump() for layer in layers)))

    def video_for(self, model: str) -> VideoRules:
        """Return the rules of live video for a model. Raises pydantic's ValidationError if they do not fit together."""
        assert self.video is not None, "only live video has such rules"
        return VideoRules.model_validate(deep_merge(self.video.model_dump(), self.for_model(model).video))

    def check_tables(self, expect: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the tables of the checks with the parameters that `expect` has for them."""
        return [{**table, **expect.get(str(table.get("check")), {})} for table in self.checks]

    def estimate_price_wei(self, capability: Capability) -> int | None:
        """Return what one job costs in wei, rounded up; None where the price or the units are not known."""
        price = capability.price
        if capability.runner is not None:
            longest_s = self.timeout_s if capability.runner.mode == SINGLE_SHOT else self.longest_session_s
            return estimate_runner_price_wei(price, capability.runner.unit, longest_s)
        if price is None or price.units <= 0:
            return None
        if capability.model not in self.units_by_model:  # thousands of orchestrators offer the same few models
            self.units_by_model[capability.model] = self.count_units(capability.model)
        units = self.units_by_model[capability.model]
        if units is None:
            return None
        return -(-units * price.wei_per_unit // price.units)

    @cached_property
    def units_by_model(self) -> dict[str, int | None]:
        """Return the units of models that were priced before; no part of what makes two definitions equal."""
        return {}

    def count_units(self, model: str) -> int | None:
        """Return how many priced units a job for a model has at most, over all choices; None where unknown."""
        if self.video is not None:
            return self.video_for(model).count_pixels(self.cold_timeout_s)
        if not self.units:
            return None
        counts = []
        for variant in self.variants or (None,):
            count = self._count_units_with(self.for_model(model, variant).parameters)
            if count is None:
                return None
            counts.append(count)
        return max(counts)

    def _count_units_with(self, parameters: Mapping[str, Any]) -> int | None:
        product = 1.0
        for factor in self.units:
            value = factor if isinstance(factor, int | float) else self._factor_value(factor, parameters)
            if value is None:
                return None
            product *= value
        return round(product)

    def _factor_value(self, factor: str, parameters: Mapping[str, Any]) -> float | None:
        match factor:
            case "timeout":
                return self.timeout_s
            case "input.pixels":
                return next((file.width * file.height for file in self.inputs.values() if file.width), None)
            case "input.seconds":
                return next((int(file.duration_s) for file in self.inputs.values() if file.duration_s), None)
        # Of a list one value is chosen in each tick; the dearest one makes the estimate safe.
        name, _, kind = factor.partition(".")
        values = list(all_choices(parameters.get(name)))
        if kind == "length":
            return max((len(value) for value in values if isinstance(value, str)), default=None)
        return max((value for value in values if isinstance(value, int | float)), default=None)
