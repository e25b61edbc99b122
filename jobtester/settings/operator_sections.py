"""The tables of config.toml about the people around the tester: who may read, who is notified, what is paused."""

from __future__ import annotations

from pydantic import Field, SecretStr, model_validator

from jobtester.settings.types import HeaderName, NetworkRange, ReadToken, SecretAddress, Section


class ServerSettings(Section):
    """Where the daemon listens, who may read its pages, and the secrets of routes that change something."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - the gateway must reach it
    port: int = Field(7934, ge=0, le=65535, description="port to listen on; 0 picks a free one")
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
    """Where each tick's report is posted."""

    url: SecretAddress | None = Field(None, description="address that each tick's job report is posted to, as JSON")
    secret: SecretStr | None = Field(None, description="key that signs the report, like stats")
