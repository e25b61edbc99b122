"""The table [live_video]: how gateways reach the tester while a stream runs, and how far apart streams are."""

from __future__ import annotations

from pydantic import Field, SecretStr

from jobtester.settings.types import Duration, Section

CALLBACK_PORT = 9997  # fixed in go-livepeer, which expects a MediaMTX server there


class LiveVideoSettings(Section):
    """Live video through a gateway; see docs/live-video.md."""

    callback_host: str = Field(
        "",
        pattern=r"^[A-Za-z0-9.:_-]*$",
        description="name or address by which gateways reach the tester; unset, live video is not tested",
    )
    host: str = Field("0.0.0.0", description="address to listen on while live video is tested")  # noqa: S104 - gateways must reach it
    port: int = Field(
        CALLBACK_PORT, ge=0, le=65535, description="port to listen on; a real gateway asks at 9997 and nowhere else"
    )
    password: SecretStr | None = Field(
        None, description="the gateways' -mediaMTXApiPassword; unset: whoever knows a running stream's id is answered"
    )
    spacing: Duration = Field("10s", description="pause between two streams to one orchestrator")  # type: ignore[assignment]
    pool_refresh: Duration = Field(
        "6m", description="how long a gateway may leave out an orchestrator after a failed stream"
    )  # type: ignore[assignment]
