"""Watch config.toml and the secret files, and hand over each usable change."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from jobtester.configuration import Configuration
from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import ConfigError
from jobtester.metrics import Metrics
from jobtester.settings.model import Settings
from jobtester.settings.sources import list_secret_files

log = structlog.get_logger()

_INTERVAL_S = 2.0
_RESTART_KEYS = (
    "server.host", "server.port", "store.path", "leaderboard.post", "leaderboard.url", "leaderboard.secret",
)  # fmt: skip


@dataclass(slots=True)
class ConfigWatcher:
    """Watches the content of the file that a configuration was loaded from, and of the secret files.

    `on_change` is called with each usable change. A file that is not usable is rejected with one log line, and the
    configuration in force stays; `problem` says why until the file is fixed.
    """

    latest: Configuration
    on_change: Callable[[Configuration], Awaitable[None]]
    metrics: Metrics
    interval_s: float = _INTERVAL_S
    problem: str = ""
    _reload_requested: asyncio.Event = field(default_factory=asyncio.Event)
    _digest: bytes = b""

    def request_reload(self) -> None:
        """Request that the file is read again now, even if it is the same."""
        self._reload_requested.set()

    async def run(self) -> None:
        """Compare the files every few seconds and at each request, until canceled."""
        # The first round always reads: the file may have changed between its loading and the start of this watch.
        while True:
            try:
                async with asyncio.timeout(self.interval_s):
                    await self._reload_requested.wait()
            except TimeoutError:
                pass
            is_requested = self._reload_requested.is_set()
            self._reload_requested.clear()
            with CrashBoundary(self.metrics.count_internal_error).unit("reload", path=self.latest.origin) as crash:
                # Content and not modification times: mounted files keep theirs, or get another without a change.
                digest = await asyncio.to_thread(_digest_files, self.latest.origin)
                if is_requested or digest != self._digest:
                    self._digest = digest
                    await self._reload(is_requested)
            if crash.error is not None:
                self.problem = crash.message
                self.metrics.config_reload_successful.set(0)

    async def _reload(self, is_requested: bool) -> None:
        try:
            changed = await asyncio.to_thread(Configuration.load, self.latest.origin, self.latest.overrides)
        except ConfigError as error:
            self.problem = str(error)
            self.metrics.config_reload_successful.set(0)
            log.error(
                "config_rejected", path=self.latest.origin, problem=str(error), in_force="the previous configuration"
            )
            return
        self.problem = ""
        self.metrics.config_reload_successful.set(1)
        changes = diff_settings(self.latest.settings, changed.settings)
        if changes or self.latest.catalogue != changed.catalogue:
            log.info("config_changed", path=self.latest.origin, changes=changes)
        elif is_requested:
            log.info("config_unchanged", path=self.latest.origin)
        if restart_keys := sorted(key for key in changes if key in _RESTART_KEYS):
            log.warning("config_restart_required", keys=restart_keys, problem="restart the daemon to apply these keys")
        self.latest = changed
        await self.on_change(changed)


def diff_settings(before: Settings, after: Settings) -> dict[str, str]:
    """Return `old → new` by key for each key that differs, secrets masked; `-` stands for an absent key."""
    old, new = dict(_flatten("", before.as_tables())), dict(_flatten("", after.as_tables()))
    return {
        key: f"{old.get(key, '-')} → {new.get(key, '-')}" for key in sorted(old | new) if old.get(key) != new.get(key)
    }


def _flatten(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each key; tables in a list are counted from 0, as in `gateways[0].url`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flatten(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from _flatten(f"{path}[{index}]", inner)
    else:
        yield path, value


def _digest_files(origin: str) -> bytes:
    digest = hashlib.sha256()
    for path in (Path(origin), *list_secret_files()):
        try:
            digest.update(path.read_bytes())
        except OSError:
            digest.update(b"\0unreadable")  # differs from an empty file, so that becoming readable is a change
        digest.update(b"\0")
    return digest.digest()
