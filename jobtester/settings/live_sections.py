"""The tables of config.toml about live runners, which orchestrators serve themselves, and about live video."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from jobtester.settings.types import Duration, NetworkRange, PositiveDuration, SecretAddress, Section, WebAddress, Wei

LIVE_RUNNER = "live-runner"  # what results call the orchestrators themselves, where others name a gateway
CALLBACK_PORT = 9997  # fixed in go-livepeer, which expects a MediaMTX server there


class LiveRunnerPaymentSettings(Section):
    """How jobs of live runners are paid for; see docs/live-runner.md."""

    signer_url: SecretAddress | None = Field(
        None, description="remote signer that makes the payments; unset: apps with a price are not tested"
    )
    max_price_per_job: Wei | None = Field(
        None, description="jobs of live runners that may cost more are skipped; unset: budget.max_price_per_job alone"
    )


class LiveRunnerSettings(Section):
    """Apps that orchestrators serve themselves, without a gateway; see docs/live-runner.md."""

    enabled: bool = Field(False, description="find live runners, and test those that have a definition")
    timeout: PositiveDuration = Field("5s", le=60, description="how long an orchestrator may take to list its runners")  # type: ignore[assignment]
    max_runners: int = Field(200, ge=1, le=10_000, description="most runners of one orchestrator that are read")
    parallel: int = Field(32, ge=1, le=256, description="orchestrators that are asked for their runners at once")
    urls: list[WebAddress] = Field(
        [],
        max_length=1_000,
        description="further service URIs to ask; one that discovery does not name needs an address in "
        "`discovery.orchestrators` to be tested",
    )
    directories: list[WebAddress] = Field(
        [],
        max_length=20,
        description="addresses that list the runners of several orchestrators, complete with `/v1/discovery/raw`; used "
        "for orchestrators that do not answer themselves",
    )
    networks: list[NetworkRange] = Field(
        [], description="private networks that orchestrators may be in, as CIDR; public ones are always allowed"
    )
    probe: Literal["off", "reserve"] = Field(
        "off",
        description="what tests a persistent app without a definition: `reserve` reserves a session and stops it",
    )
    max_session: PositiveDuration = Field(
        "5m", le=86_400, description="longest time that a session stays reserved; a job that takes longer ends with it"
    )  # type: ignore[assignment]
    streams: int = Field(
        2, ge=1, le=64, description="video streams at a time; each takes about a tenth of a core and 100 MB"
    )
    payment: LiveRunnerPaymentSettings = LiveRunnerPaymentSettings()


class LiveVideoSettings(Section):
    """Live video through a gateway; see docs/live-video.md."""

    callback_host: str = Field(
        "",
        pattern=r"^[A-Za-z0-9.:_-]*$",
        description="name or address by which gateways reach the tester; unset, live video is not tested",
    )
    host: str = Field("0.0.0.0", description="address to listen on while live video is tested")  # noqa: S104 - gateways must reach it
    port: int = Field(CALLBACK_PORT, ge=0, le=65535, description="port to listen on; a real gateway uses 9997 only")
    password: SecretStr | None = Field(
        None, description="the gateways' -mediaMTXApiPassword; unset: a running stream's id is enough to get an answer"
    )
    spacing: Duration = Field("10s", description="pause between two streams to one orchestrator")  # type: ignore[assignment]
    pool_refresh: Duration = Field(
        "6m", description="how long a gateway may leave out an orchestrator after a failed stream"
    )  # type: ignore[assignment]
