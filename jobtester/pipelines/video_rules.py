"""Video rules: what picture is sent for live video, for how long, and what an output has to reach."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from jobtester.domain.units import parse_duration

STREAM_END_S = 15.0  # a stream's channels are closed so soon after its time at the latest
_MIN_PAID_PIXELS = 60 * 30 * 1280 * 720  # a gateway pays for a minute of 720p at 30 fps when a stream starts


def _check_seconds(value: float) -> float:
    if not 0 < value <= 600:
        raise ValueError("has to be longer than 0 and at most 10 minutes")
    return value


def _check_even(value: int) -> int:
    if value % 2:
        raise ValueError("has to be even")
    return value


Seconds = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_check_seconds)]
Side = Annotated[int, Field(ge=128, le=1920), AfterValidator(_check_even)]


class VideoRules(BaseModel):
    """What is sent as live video, and the bar that the output has to pass.

    The start limit is the pipeline's timeout: the first frame has to come within it, `cold_timeout` where the model may
    have to be loaded first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Side = Field(512, description="width of the input in pixels, even")
    height: Side = Field(512, description="height of the input in pixels, even")
    fps: int = Field(24, ge=5, le=60, description="frames per second of the input")
    duration: Seconds = Field(30.0, description="how long the output is watched, from its first frame on")
    min_fps: float = Field(8.0, gt=0, le=60, description="an output with fewer frames per second fails")
    max_gap: Seconds = Field(5.0, description="an output without a frame for longer fails")
    max_reaction: Seconds = Field(
        12.0, description="an output that shows no change so long after `update` fails; runners report every 10 s"
    )
    update: dict[str, Any] = Field(
        {}, description="parameters that change once, in the middle; the output has to react. Empty: no change"
    )
    passes_through: bool = Field(False, description="the model sends the input back, so an output equal to it is right")

    @model_validator(mode="after")
    def _check_bar(self) -> Self:
        if self.min_fps > self.fps:
            raise ValueError("min_fps is above fps, so that nothing could pass")
        if self.max_gap >= self.duration:
            raise ValueError("max_gap has to be shorter than duration")
        return self

    def count_pixels(self, start_limit_s: float) -> int:
        """Return how many pixels are paid for at most, with a start that takes as long as it may."""
        whole = round(self.width * self.height * self.fps * (start_limit_s + self.duration))
        return max(whole, _MIN_PAID_PIXELS)
