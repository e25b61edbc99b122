"""Settings: config.toml, the environment and secret files, checked as a whole before anything starts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from jobtester.domain.orchestrators import parse_endpoint
from jobtester.errors import ConfigError
from jobtester.settings import schema
from jobtester.settings.environment import merge_entries, merge_tables
from jobtester.settings.placeholders import fill_placeholders
from jobtester.settings.sources import SecretsAndEnvironment, read_file, read_outside
from jobtester.settings.types import (
    Cron,
    Duration,
    NetworkRange,
    PositiveDuration,
    SecretAddress,
    Size,
    Timezone,
    WebAddress,
    Wei,
)

_MOST_ROUNDS = 10
_LONGEST_INTERVAL_S = 366 * 86_400


class Section(BaseModel):
    """A table of config.toml: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ScheduleSettings(Section):
    """When ticks start. Exactly one of interval and cron is in force; the default is an interval of an hour."""

    interval: PositiveDuration | None = Field(
        None, le=_LONGEST_INTERVAL_S, description="time between ticks, aligned with the wall clock"
    )
    cron: Cron | None = Field(None, description="standard cron expression instead of an interval; 0 and 7 are Sunday")
    timezone: Timezone = Field("UTC", description="timezone in which cron is read")
    offset: Duration = Field(
        "0s", le=_LONGEST_INTERVAL_S, description="shifts the ticks against the wall clock, to stagger regions"
    )  # type: ignore[assignment]
    run_at_start: bool = Field(True, description="run a tick at once when the daemon starts")
    deadline: PositiveDuration = Field("50m", description="jobs not begun by then are skipped")  # type: ignore[assignment]

    @model_validator(mode="after")
    def _one_of_both(self) -> ScheduleSettings:
        if self.interval is not None and self.cron is not None:
            raise ValueError("give interval or cron, not both")
        return self

    @property
    def period_s(self) -> float:
        """Give the interval in seconds, an hour where none is set."""
        return self.interval if self.interval is not None else 3600.0


class ServerSettings(Section):
    """Where the daemon listens, and who may do more than read."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - the gateway must reach it
    port: int = Field(7934, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    admin_token: SecretStr | None = Field(None, description="bearer token for POST /api/ticks")
    results_secret: SecretStr | None = Field(None, description="HMAC key of other testers' results")
    events_token: SecretStr | None = Field(
        None, description="token that a gateway's event sink sends; empty: every sender is believed"
    )


class GatewaySettings(Section):
    """One go-livepeer gateway that sends jobs on."""

    name: str = Field("gateway", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="how we call it")
    url: WebAddress = Field(description="where AI jobs go")
    cli_url: WebAddress | None = Field(None, description="CLI port: discovery and metrics")
    targeting: Literal["webhook", "query", "byoc"] = Field(
        "webhook",
        description="how it is made to use one orchestrator; byoc: external capabilities only, on any gateway",
    )
    overlap: bool = Field(False, description="webhook only: hand the lease over early, score only on proof")
    token: SecretStr | None = Field(None, description="bearer sent with each job, for a proxy in front")
    verify_tls: bool = Field(True, description="check the gateway's certificate")
    metrics: bool = Field(True, description="read the CLI port's /metrics as evidence")
    events: bool = Field(False, description="the gateway's event sink posts to us; delivery waits evidence_wait for it")
    event_source: str = Field("", description="what the gateway calls itself in events; needed with several gateways")
    artifact_networks: list[NetworkRange] = Field(
        [], description="private networks that result files may be fetched from, as CIDR; public ones need no mention"
    )
    retry_window: Duration = Field("2s", description="the gateway's -aiProcessingRetryTimeout")  # type: ignore[assignment]
    settle: Duration = Field("500ms", description="overlap: silence before the lease moves on")  # type: ignore[assignment]
    first_ask: PositiveDuration = Field("10s", description="a tester gateway asks whom to use within this time")  # type: ignore[assignment]
    min_asks: int = Field(
        5,
        ge=1,
        le=5,
        description="webhook calls that an answered job causes at least; a half-configured gateway asks 3 times",
    )
    after_disconnect: Duration = Field("7s", description="silence after a dropped job before the lease moves on")  # type: ignore[assignment]
    evidence_wait: Duration = Field("2s", description="how long delivery waits for events")  # type: ignore[assignment]

    @model_validator(mode="after")
    def _overlap_needs_evidence(self) -> GatewaySettings:
        if self.overlap and self.targeting != "webhook":
            raise ValueError('overlap is for targeting = "webhook"; a query gateway runs everything in parallel anyway')
        if self.overlap and not ((self.metrics and self.cli_url) or self.events):
            raise ValueError(
                "overlap needs an evidence source: set cli_url (with metrics = true) or events = true; "
                "jobs that ran beside others are scored only on proof"
            )
        return self


class LimitSettings(Section):
    """How much at once."""

    jobs: int = Field(16, ge=1, le=1024, description="jobs in flight over all gateways")
    per_orchestrator: int = Field(1, ge=1, le=64, description="jobs in flight on one orchestrator")
    max_response: Size = Field("64MiB", description="longest answer that is read")  # type: ignore[assignment]
    max_artifact: Size = Field("64MiB", description="longest result file that is read")  # type: ignore[assignment]
    grace: Duration = Field("20s", description="how long running jobs may go on when the daemon is stopped")  # type: ignore[assignment]
    busy_retries: int = Field(3, ge=0, le=20, description="how often a busy orchestrator is tried again in a tick")
    busy_backoff: Duration = Field(
        "15s", description="pause before a busy orchestrator is tried again, doubled each time"
    )  # type: ignore[assignment]
    busy_patience: Duration = Field(
        "15s", description="how long a tick goes on for busy orchestrators alone, shared by the tries that are left"
    )  # type: ignore[assignment]


class LeaderboardSettings(Section):
    """Where stats go."""

    url: WebAddress | None = Field(None, description="base address; /api/post_stats is appended")
    secret: SecretStr | None = Field(None, description="key that signs the stats")
    post: bool = Field(True, description="post stats at all")
    post_unscored: bool = Field(False, description="post unscored results too, as failures")
    post_suspect: bool = Field(False, description="do not hold the failures of a tick in which nearly all failed alike")


class DeliverySettings(Section):
    """How stats get to the Leaderboard."""

    uncertain: Literal["resend", "hold"] = Field(
        "hold",
        description="a stat of which reading back cannot tell whether it was stored: `hold` keeps it for a person, "
        "`resend` posts it again, so that it may count twice",
    )
    max_age: PositiveDuration = Field("1h", description="older stats are kept but not posted any more")  # type: ignore[assignment]
    parallel: int = Field(
        8, ge=1, le=32, description="posts in flight, besides those that wait unusually long for their answer"
    )
    audit: int = Field(3, ge=0, description="delivered stats of each tick that are read back; 0: none")
    miss_after: PositiveDuration | None = Field(
        None,
        description="a stat that is not found is believed lost, and sent again, this long after it was sent; "
        "longer than the server may still be storing it. Unset: 90 s, on Vercel 5 min",
    )


class StoreSettings(Section):
    """Where results are kept."""

    path: str = Field("data/jobtester.db", min_length=1, description="SQLite file, relative to the working directory")
    keep: PositiveDuration = Field("30d", description="older results are deleted")  # type: ignore[assignment]


class StaticCapability(Section):
    """One (pipeline, model) of a static orchestrator."""

    pipeline: str = Field(description="the pipeline's slug; for BYOC the capability's name")
    model: str = Field(description="the model's id")
    warm: bool = Field(True, description="it is loaded, so the shorter time limit holds")
    byoc: bool = Field(False, description="an external capability")


class StaticOrchestrator(Section):
    """One orchestrator for discovery.source = "static"."""

    address: str = Field(pattern=r"^0[xX][0-9a-fA-F]{40}$", description="its Ethereum address")
    service_uri: str = Field(min_length=1, description="where a gateway reaches it")
    capabilities: list[StaticCapability] = Field([], description="what it offers; nothing is tested without")


class DiscoverySettings(Section):
    """Where orchestrators come from, and which of them are tested."""

    source: Literal["auto", "network", "tester", "static"] = Field("auto", description="where orchestrators come from")
    orchestrators: list[StaticOrchestrator] = Field([], description="the orchestrators, for source = static")
    include: list[str] = Field([], description="addresses or service URIs; empty means all")
    exclude: list[str] = Field([], description="addresses or service URIs that are left out")
    patience: Duration = Field("30s", description="how long an empty answer is asked for again")  # type: ignore[assignment]


class BudgetSettings(Section):
    """What testing may cost; absent keys set no bound."""

    per_tick: Wei | None = Field(None, description='most that one tick may cost, as "0.001 ETH" or wei')
    per_day: Wei | None = Field(None, description="most that a UTC day may cost")
    max_price_per_job: Wei | None = Field(None, description="dearer jobs are skipped")


class NotifySettings(Section):
    """Who is told of each tick."""

    url: SecretAddress | None = Field(None, description="address that each tick's job report is posted to, as JSON")
    secret: SecretStr | None = Field(None, description="key that signs the report, as stats are signed")


class LogSettings(Section):
    """What the log looks like."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is written")
    format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else JSON")


class Tables(Section):
    """The tables of config.toml, and the rules that tie them together."""

    region: str = Field("", description='must exist at the Leaderboard with type "ai"')
    assets: str = Field(
        "", description="folder of test inputs, relative to the working directory; empty: the shipped ones"
    )
    schedule: ScheduleSettings = ScheduleSettings()
    server: ServerSettings = ServerSettings()
    gateways: list[GatewaySettings] = Field([], description="the gateways that jobs go through")
    limits: LimitSettings = LimitSettings()
    leaderboard: LeaderboardSettings = LeaderboardSettings()
    delivery: DeliverySettings = DeliverySettings()
    store: StoreSettings = StoreSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    budget: BudgetSettings = BudgetSettings()
    notify: NotifySettings = NotifySettings()
    logs: LogSettings = LogSettings()
    pipelines: dict[str, dict[str, Any]] = Field({}, description="overrides of built-in pipelines, and new ones")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        if not self.gateways:
            problems.append("gateways: at least one [[gateways]] table is needed")
        problems.extend(
            f"gateways: two are called {name!r}; give each its own name"
            for name in _doubled((one.name.lower(), one.name) for one in self.gateways)
        )
        problems.extend(
            f"gateways: {url} is given twice; one gateway has one list, so it can only be one gateway"
            for url in _doubled((_place(one.url), one.url) for one in self.gateways)
        )
        problems.extend(
            f"gateways: two call themselves {name!r} in events; give each its own event_source"
            for name in _doubled(
                ((one.event_source or one.name).lower(), one.event_source or one.name)
                for one in self.gateways
                if one.events
            )
        )
        if any(one.events for one in self.gateways) and self.server.events_token is None:
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


class Settings(Tables, BaseSettings):
    """Everything a person can tune; see docs/configuration.md."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read secret files and the environment over what is given, which is the file's content."""
        return (SecretsAndEnvironment(settings_cls, init_settings()), init_settings)


def _doubled(named: Iterable[tuple[Hashable, str]]) -> list[str]:
    """Give what is there again under a key that was there before, as it is written, each once."""
    seen: set[Hashable] = set()
    again: dict[Hashable, str] = {}
    for key, shown in named:
        if key in seen:
            again.setdefault(key, shown)
        seen.add(key)
    return sorted(again.values())


def _place(url: str) -> Hashable:
    """Give where an address leads, in whichever way it is written."""
    return parse_endpoint(url), urlsplit(url).path.rstrip("/")


@dataclass(frozen=True, slots=True)
class CheckedSettings:
    """What came of a check: settings only if there are no problems, and all tables with what is wrong replaced."""

    settings: Settings | None
    tables: Mapping[str, Any]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def load_settings(path: Path, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read and check the whole configuration. Raises ConfigError with every problem and its key path."""
    return check_settings(read_file(path), origin=str(path), overrides=overrides)


def check_settings(
    content: Mapping[str, Any], *, origin: str = "configuration", overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Check a configuration given as tables. Raises ConfigError with every problem and its key path."""
    examined = examine(content, overrides)
    if examined.settings is None:
        raise ConfigError.of(f"{origin} is not usable", examined.problems)
    return examined.settings


def examine(content: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> CheckedSettings:
    """Check tables with the secret files and the environment over them, and return every problem at once."""
    outside = read_outside(Settings)
    tables, misplaced = merge_entries(merge_tables(content, overrides or {}), outside.entries, Settings)
    problems = [*outside.problems, *misplaced]
    repaired, refused = _validate(tables, {entry.path: entry.source for entry in outside.entries})
    problems += refused
    warnings = []
    if outside.service_links:
        warnings.append(
            f"{outside.service_links[0]} and {len(outside.service_links) - 1} more variables are ignored: they are "
            "service links of Kubernetes; enableServiceLinks: false in the pod turns them off"
            if len(outside.service_links) > 1
            else f"{outside.service_links[0]} is ignored: it is a service link of Kubernetes; "
            "enableServiceLinks: false in the pod turns them off"
        )
    settings = None
    if not problems:
        try:
            settings = Settings(**tables)
        except ValidationError as error:  # a secret file has changed since it was read above
            problems += [line for item in error.errors() for line in _lines(dict(item), {})]
    return CheckedSettings(settings, repaired, tuple(problems), tuple(warnings))


def _validate(tables: dict[str, Any], origins: Mapping[schema.Path, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the tables, with placeholders for what is wrong, and every problem.

    pydantic applies the rules that tie keys together only where all keys are well-formed. So each finding is replaced
    by a usable value and the rest is checked again, from single keys over tables to the whole.
    """
    lines: dict[str, None] = {}
    blamed: set[str] = set()
    for _ in range(_MOST_ROUNDS):
        try:
            Tables.model_validate(tables)
            break
        except ValidationError as error:
            errors = [dict(item) for item in error.errors()]
        new = [line for item in errors for line in _lines(item, origins)]
        lines |= {line: None for line in new if line.split(":")[0] not in blamed}
        blamed |= {line.split(":")[0] for line in new}
        if any(not item["loc"] for item in errors):
            break
        tables = fill_placeholders(tables, errors, Settings)
    return tables, list(lines)


def _lines(item: Mapping[str, Any], origins: Mapping[schema.Path, str]) -> list[str]:
    """Put one of pydantic's findings into plain words, with the key path first and the variable it came from last."""
    path = schema.format_path(item["loc"])
    above = [item["loc"][:length] for length in range(len(item["loc"]), 0, -1)]
    origin = next((origins[one] for one in above if one in origins), "")
    source = f" (in {origin})" if origin else ""
    if item["type"] == "extra_forbidden":
        model = schema.strip_optional(schema.type_at(Settings, item["loc"][:-1]))
        return [f"{path}: no such key{schema.did_you_mean(item['loc'][-1], model.model_fields)}{source}"]
    if item["type"] == "missing":
        return [f"{path}: is missing{source}"]
    message = str(item["msg"]).removeprefix("Value error, ")
    if not path:
        return message.split("\n")
    given = item.get("input")
    private = "secret" in path or "token" in path or path == "notify.url" or "@" in str(given)
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) and not private else ""
    return [f"{path}: {message}{shown}{source}"]
