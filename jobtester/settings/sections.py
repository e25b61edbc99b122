"""The tables of config.toml: every key with its type, default and description."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from jobtester.domain.orchestrators import parse_endpoint
from jobtester.settings.live_sections import LIVE_RUNNER, LiveRunnerSettings, LiveVideoSettings
from jobtester.settings.operator_sections import MetricsSettings, NotifySettings, PauseSettings, ServerSettings
from jobtester.settings.types import (
    Cron,
    Duration,
    NetworkRange,
    PositiveDuration,
    Section,
    Size,
    Timezone,
    WebAddress,
    Wei,
)

_MAX_INTERVAL_S = 366 * 86_400


class ScheduleSettings(Section):
    """When ticks start. Exactly one of interval and cron is in force; the default is an interval of an hour."""

    interval: PositiveDuration | None = Field(
        None, le=_MAX_INTERVAL_S, description="time between ticks, aligned with the wall clock"
    )
    cron: Cron | None = Field(None, description="standard cron expression instead of an interval; 0 and 7 are Sunday")
    timezone: Timezone = Field("UTC", description="timezone in which cron is read")
    offset: Duration = Field(
        "0s", le=_MAX_INTERVAL_S, description="shifts the ticks against the wall clock, to stagger regions"
    )  # type: ignore[assignment]
    run_at_start: bool = Field(True, description="run a tick at once when the daemon starts")
    deadline: PositiveDuration = Field("50m", description="jobs that have not started by then are skipped")  # type: ignore[assignment]

    @model_validator(mode="after")
    def _check_interval_or_cron(self) -> ScheduleSettings:
        if self.interval is not None and self.cron is not None:
            raise ValueError("give interval or cron, not both")
        return self

    @property
    def period_s(self) -> float:
        """Return the interval in seconds, an hour where none is set."""
        return self.interval if self.interval is not None else 3600.0


class GatewaySettings(Section):
    """One go-livepeer gateway that jobs go through."""

    name: str = Field("gateway", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="its name in the tester")
    url: WebAddress = Field(description="where AI jobs go")
    cli_url: WebAddress | None = Field(None, description="CLI port: discovery and metrics")
    targeting: Literal["webhook", "query", "byoc"] = Field(
        "webhook",
        description="how the tester names the orchestrator to use; byoc: external capabilities only, on any gateway",
    )
    overlap: bool = Field(False, description="webhook only: release the lease early, score only on proof")
    token: SecretStr | None = Field(None, description="bearer sent with each job, for a proxy in front")
    verify_tls: bool = Field(True, description="check the gateway's certificate")
    metrics: bool = Field(True, description="read the CLI port's /metrics as evidence")
    events: bool = Field(False, description="the gateway's event sink posts to us; delivery waits evidence_wait for it")
    event_source: str = Field("", description="the gateway's name in its events; required with several gateways")
    artifact_networks: list[NetworkRange] = Field(
        [], description="private networks that result files may come from, as CIDR; public ones are always allowed"
    )
    streams: int = Field(
        2, ge=0, le=16, description="live video streams at a time through this gateway, which needs -httpIngest"
    )
    retry_window: Duration = Field("2s", description="the gateway's -aiProcessingRetryTimeout")  # type: ignore[assignment]
    settle: Duration = Field("500ms", description="overlap: silence before the lease moves on")  # type: ignore[assignment]
    first_ask: PositiveDuration = Field("10s", description="a tester gateway calls the webhook within this time")  # type: ignore[assignment]
    min_asks: int = Field(
        5,
        ge=1,
        le=5,
        description="minimum of webhook calls per answered job; a half-configured gateway makes 3",
    )
    after_disconnect: Duration = Field("7s", description="silence after a dropped job before the lease moves on")  # type: ignore[assignment]
    evidence_wait: Duration = Field("2s", description="how long delivery waits for events")  # type: ignore[assignment]

    @model_validator(mode="after")
    def _check_overlap(self) -> GatewaySettings:
        if self.overlap and self.targeting != "webhook":
            raise ValueError('overlap is for targeting = "webhook"; a query gateway runs everything in parallel anyway')
        if self.overlap and not ((self.metrics and self.cli_url) or self.events):
            raise ValueError(
                "overlap needs an evidence source: set cli_url (with metrics = true) or events = true; "
                "jobs that ran beside others are scored only on proof"
            )
        return self


class LimitSettings(Section):
    """How many jobs run at once, and how large an answer may be."""

    jobs: int = Field(16, ge=1, le=1024, description="jobs in flight over all gateways")
    per_orchestrator: int = Field(1, ge=1, le=64, description="jobs in flight on one orchestrator")
    max_response: Size = Field("64MiB", description="largest answer that is read")  # type: ignore[assignment]
    max_artifact: Size = Field("64MiB", description="largest result file that is read")  # type: ignore[assignment]
    grace: Duration = Field("20s", description="how long running jobs may continue when the daemon stops")  # type: ignore[assignment]
    busy_retries: int = Field(3, ge=0, le=20, description="how often a busy orchestrator is retried in a tick")
    busy_backoff: Duration = Field("15s", description="pause before a busy orchestrator is retried, doubled each time")  # type: ignore[assignment]
    busy_patience: Duration = Field(
        "15s", description="how long a tick continues only for busy orchestrators, shared by the remaining retries"
    )  # type: ignore[assignment]


class LeaderboardSettings(Section):
    """Where stats go."""

    url: WebAddress | None = Field(None, description="base address; /api/post_stats is appended")
    secret: SecretStr | None = Field(None, description="key that signs the stats")
    post: bool = Field(True, description="post stats to the Leaderboard")
    post_unscored: bool = Field(False, description="post unscored results too, as failures")
    post_suspect: bool = Field(False, description="post the failures of suspect ticks too")


class DeliverySettings(Section):
    """How stats get to the Leaderboard."""

    uncertain: Literal["resend", "hold"] = Field(
        "hold",
        description="what to do if reading back does not show whether a stat was stored: `hold` leaves it to you, "
        "`resend` posts it again, so it may count twice",
    )
    max_age: PositiveDuration = Field("1h", description="older stats expire and are not posted")  # type: ignore[assignment]
    parallel: int = Field(
        8, ge=1, le=32, description="posts in flight, not counting those that wait unusually long for an answer"
    )
    audit: int = Field(3, ge=0, description="delivered stats of each tick that are read back; 0: none")
    miss_after: PositiveDuration | None = Field(
        None,
        description="a missing stat counts as lost and is sent again this long after its post; longer than "
        "the server may take to store it. Unset: 90 s, on Vercel 5 min",
    )


class StoreSettings(Section):
    """Where results are stored."""

    path: str = Field("data/jobtester.db", min_length=1, description="SQLite file, relative to the working directory")
    keep: PositiveDuration = Field("30d", description="older results are deleted")  # type: ignore[assignment]
    keep_files: bool = Field(
        True, description="keep the picture or sound of each failure and of each capability's newest pass, made small"
    )
    max_file_size: Size = Field("64KiB", description="a larger kept file is made smaller or left out")  # type: ignore[assignment]
    max_files_size: Size = Field(  # type: ignore[assignment]
        "512MiB", description="of all kept files together; beyond it the oldest are deleted, once an hour"
    )


class StaticCapability(Section):
    """One (pipeline, model) of a static orchestrator."""

    pipeline: str = Field(description="the pipeline's slug; for BYOC the capability's name")
    model: str = Field(description="the model's id")
    warm: bool = Field(True, description="the model is loaded, so the shorter time limit applies")
    byoc: bool = Field(False, description="an external capability")


class StaticOrchestrator(Section):
    """One orchestrator for discovery.source = "static"."""

    address: str = Field(pattern=r"^0[xX][0-9a-fA-F]{40}$", description="its Ethereum address")
    service_uri: str = Field(min_length=1, description="where a gateway reaches it")
    capabilities: list[StaticCapability] = Field([], description="what it offers; without any, nothing is tested")


class DiscoverySettings(Section):
    """Where orchestrators come from, and which of them are tested."""

    source: Literal["auto", "network", "tester", "static"] = Field("auto", description="where orchestrators come from")
    orchestrators: list[StaticOrchestrator] = Field([], description="the orchestrators, for source = static")
    include: list[str] = Field([], description="addresses or service URIs; empty means all")
    exclude: list[str] = Field([], description="addresses or service URIs that are not tested")
    patience: Duration = Field("30s", description="how long discovery repeats a request with an empty answer")  # type: ignore[assignment]


class BudgetSettings(Section):
    """What testing may cost; unset keys set no limit."""

    per_tick: Wei | None = Field(None, description='maximum cost of one tick, as "0.001 ETH" or wei')
    per_day: Wei | None = Field(None, description="maximum cost of a UTC day")
    max_price_per_job: Wei | None = Field(None, description="jobs that cost more are skipped")


class LogSettings(Section):
    """How much the log holds, and in which format."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is written")
    format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else JSON")


class Tables(Section):
    """The tables of config.toml, and the rules that tie them together; a field for each table."""

    region: str = Field("", description='must exist at the Leaderboard with type "ai"')
    assets: str = Field(
        "", description="folder of test inputs, relative to the working directory; empty: the shipped ones"
    )
    schedule: ScheduleSettings = ScheduleSettings()
    server: ServerSettings = ServerSettings()
    gateways: list[GatewaySettings] = Field([], description="the gateways that jobs go through")
    live_runner: LiveRunnerSettings = LiveRunnerSettings()
    live_video: LiveVideoSettings = LiveVideoSettings()
    limits: LimitSettings = LimitSettings()
    leaderboard: LeaderboardSettings = LeaderboardSettings()
    delivery: DeliverySettings = DeliverySettings()
    store: StoreSettings = StoreSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    budget: BudgetSettings = BudgetSettings()
    pause: list[PauseSettings] = Field([], description="windows of maintenance, in which orchestrators are not tested")
    notify: NotifySettings = NotifySettings()
    metrics: MetricsSettings = MetricsSettings()
    logs: LogSettings = LogSettings()
    pipelines: dict[str, dict[str, Any]] = Field({}, description="overrides of built-in pipelines, and new ones")

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        problems = []
        if not self.gateways:
            problems.append("gateways: at least one [[gateways]] table is needed")
        problems += self._indistinct_gateways()
        if self.live_runner.enabled and any(gateway.name.lower() == LIVE_RUNNER for gateway in self.gateways):
            problems.append(f"gateways: the name {LIVE_RUNNER!r} stands for the orchestrators themselves; use another")
        if any(gateway.events for gateway in self.gateways) and self.server.events_token is None:
            problems.append(
                "server.events_token: needed with gateways.events = true, since events prove and refute results; set "
                'JOBTESTER_SERVER__EVENTS_TOKEN or a file, or server.events_token = "" to believe every sender'
            )
        if self.leaderboard.post and self.leaderboard.url:
            if not self.region:
                problems.append('region: needed to post stats, e.g. "FRA"')
            if self.region == "GLOBAL":
                problems.append("region: GLOBAL stands for all regions at the Leaderboard; use your own")
            if self.leaderboard.secret is None:
                problems.append("leaderboard.secret: needed to post stats; set JOBTESTER_LEADERBOARD__SECRET or a file")
        if self.leaderboard.post and not self.leaderboard.url:
            problems.append("leaderboard.url: needed to post stats; or set leaderboard.post = false")
        if self.discovery.source == "static" and not self.discovery.orchestrators:
            problems.append('discovery.orchestrators: needed for source = "static"')
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _indistinct_gateways(self) -> list[str]:
        """Return a problem for each two gateways that could be taken for one another.

        Leases and evidence are kept per gateway; two that are one, or call themselves the same, would mix them up.
        """
        names = [(gateway.name.lower(), gateway.name) for gateway in self.gateways]
        # The same place can be written in many ways: with or without its port, a dot or a slash at its end.
        places = [
            ((parse_endpoint(gateway.url), urlsplit(gateway.url).path.rstrip("/")), gateway.url)
            for gateway in self.gateways
        ]
        sources = [gateway.event_source or gateway.name for gateway in self.gateways if gateway.events]
        return [
            *(f"gateways: two are called {name!r}; give each its own name" for name in _duplicates(names)),
            *(
                f"gateways: {url} is given twice; one gateway has one list, so it can only be one gateway"
                for url in _duplicates(places)
            ),
            *(
                f"gateways: two call themselves {source!r} in events; give each its own event_source"
                for source in _duplicates((source.lower(), source) for source in sources)
            ),
        ]


def _duplicates(entries: Iterable[tuple[Hashable, str]]) -> list[str]:
    """Return the texts whose key an earlier entry has, one for each key, sorted."""
    seen: set[Hashable] = set()
    duplicates: dict[Hashable, str] = {}
    for key, text in entries:
        if key in seen:
            duplicates.setdefault(key, text)
        seen.add(key)
    return sorted(duplicates.values())
