"""The tables of config.toml about the people around the tester: who may read, who is notified, what is paused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, create_model, model_validator

from jobtester.settings.message_template import MessageTemplate, check_json_template
from jobtester.settings.types import (
    Cron,
    HeaderName,
    Instant,
    NetworkRange,
    PositiveDuration,
    ReadToken,
    SecretAddress,
    Section,
    Timezone,
    WebAddress,
)

_MAX_PAUSE_S = 366 * 86_400


class ServerSettings(Section):
    """Where the daemon listens, who may read its pages, and the secrets of routes that change something."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - the gateway must reach it
    port: int = Field(7934, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    public_url: WebAddress | None = Field(
        None, description="where people reach the pages, for links in notifications and feeds"
    )
    read_token: ReadToken | None = Field(
        None, description="bearer token or password for pages and API; unset: everybody may read"
    )
    metrics_token: ReadToken | None = Field(
        None, description="bearer token or password for /metrics, beside read_token; unset: everybody may read them"
    )
    trusted_proxy: list[NetworkRange] = Field(
        [], description="networks of reverse proxies whose headers are believed, as CIDR"
    )
    proxy_user_header: HeaderName = Field(
        "", description="header in which a trusted proxy names the user that it has admitted to pages and API"
    )
    admin_token: SecretStr | None = Field(None, description="bearer token for POST /api/ticks")
    results_secret: SecretStr | None = Field(None, description="HMAC key of other testers' results")
    events_token: SecretStr | None = Field(
        None, description="token that a gateway's event sink sends; empty: every sender is trusted"
    )

    @model_validator(mode="after")
    def _check_proxy(self) -> ServerSettings:
        if self.proxy_user_header and not self.trusted_proxy:
            raise ValueError("proxy_user_header needs trusted_proxy: without it anybody could send the header")
        return self


class NotifySettings(Section):
    """Where each tick's report is posted, when, and in which format; see docs/operations.md."""

    url: SecretAddress | None = Field(None, description="address that each tick's report is posted to")
    secret: SecretStr | None = Field(None, description="key that signs the report, like stats")
    when: Literal["tick", "change"] = Field(
        "tick", description="after every tick, or only where something newly fails, recovers or the tick ends otherwise"
    )
    format: Literal["json", "slack", "discord", "template"] = Field(
        "json", description="json: the tick as in the API; slack and discord: their webhooks; template: your own text"
    )
    template: MessageTemplate = Field("", description="text with $fields, for format = template")
    template_type: Literal["text", "json"] = Field(
        "text", description="what the template makes; in json, fields are escaped inside quotes"
    )

    @model_validator(mode="after")
    def _check_template(self) -> NotifySettings:
        if self.format == "template" and not self.template:
            raise ValueError('format = "template" needs a template')
        if self.template and self.template_type == "json":
            check_json_template(self.template)
        return self


class MetricsSettings(Section):
    """Which series /metrics has beside the usual ones."""

    capabilities: bool = Field(
        True, description="export jobtester_capability_up for each capability of an orchestrator"
    )
    max_capabilities: int = Field(
        3_000, ge=1, le=50_000, description="series of jobtester_capability_up; failing capabilities come first"
    )


# `from` is a keyword of Python, so a class cannot declare it.
_PauseStart = create_model(
    "_PauseStart",
    __base__=Section,
    **{"from": (Instant | None, Field(None, description="when it begins; unset: it has begun"))},  # type: ignore[call-overload]
)


class PauseSettings(_PauseStart):
    """Maintenance: a window of time in which orchestrators are not tested, once or by a cron expression."""

    until: Instant | None = Field(None, description="when it ends; unset: when the table is removed")
    cron: Cron | None = Field(None, description="when a repeated window begins, as a cron expression")
    duration: PositiveDuration | None = Field(
        None, le=_MAX_PAUSE_S, description="how long a repeated window takes; needed with cron"
    )
    timezone: Timezone = Field("UTC", description="timezone of cron, and of times without one")
    orchestrators: list[str] = Field([], description="addresses or service URIs; empty means all")
    reason: str = Field(min_length=1, max_length=200, description="why, in your words; pages and API show it")

    @model_validator(mode="after")
    def _check_window(self) -> PauseSettings:
        if any(getattr(self, name) is None for name in self.model_fields_set):
            return self  # a value was refused, which is an error already
        if (self.cron is None) != (self.duration is None):
            raise ValueError("cron and duration go together: when a repeated window begins, and how long it takes")
        if self.start is None and self.until is None and self.cron is None:
            raise ValueError(
                "set from, until or both, or cron and duration; discovery.exclude is for what is never tested"
            )
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("until has to be later than from")
        return self

    @property
    def start(self) -> datetime | None:
        """Return the instant at which it begins; None if it has always begun."""
        return self._localize(getattr(self, "from"))

    @property
    def end(self) -> datetime | None:
        """Return the instant at which it ends; None for no end."""
        return self._localize(self.until)

    def is_active(self, now: datetime) -> bool:
        """Return True if nothing is to be tested at `now`."""
        if (self.start is not None and now < self.start) or (self.end is not None and now >= self.end):
            return False
        if self.cron is None or self.duration is None:
            return True
        # Imported here because most configurations have no cron expression, and the library costs start-up time.
        from jobtester.settings.cron import CronSchedule

        began_at = CronSchedule.parse(self.cron, self.timezone).next_after(now - timedelta(seconds=self.duration))
        return began_at is not None and began_at <= now

    def _localize(self, moment: datetime | None) -> datetime | None:
        if moment is None or moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=ZoneInfo(self.timezone))
