"""Live configuration: notices that config.toml has changed, says what is different, and hands over what is usable."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from jobtester.configuration import Configuration
from jobtester.errors import ConfigError, CrashBoundary
from jobtester.metrics import Metrics
from jobtester.settings.model import Settings
from jobtester.settings.sources import list_secret_files

log = structlog.get_logger()

_LOOK_EVERY_S = 2.0
_FIXED = ("server.host", "server.port", "store.path", "leaderboard.post", "leaderboard.url", "leaderboard.secret")


@dataclass(slots=True)
class ConfigWatcher:
    """Follows the file that a configuration came from, by its content and that of the secret files.

    `adopt` is called with each usable change. A file that is not usable is refused with one log line, and the
    configuration in force stays; `problem` says why until the file is fixed.
    """

    current: Configuration
    on_change: Callable[[Configuration], Awaitable[None]]
    metrics: Metrics
    every_s: float = _LOOK_EVERY_S
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str = ""
    _digest: bytes = b""

    def request_reload(self) -> None:
        """Read the file again now, even if it is the same."""
        self._asked.set()

    async def run(self) -> None:
        """Look at the file every few seconds, and whenever somebody asks; it may have changed since it was loaded."""
        while True:
            try:
                async with asyncio.timeout(self.every_s):
                    await self._asked.wait()
            except TimeoutError:
                pass
            asked = self._asked.is_set()
            self._asked.clear()
            with CrashBoundary(self.metrics.count_internal_error).unit("reload", path=self.current.origin) as crash:
                digest = await asyncio.to_thread(_digest, self.current.origin)
                if asked or digest != self._digest:
                    self._digest = digest
                    await self._read(asked)
            if crash.error is not None:
                self.problem = crash.message
                self.metrics.config_reload_successful.set(0)

    async def _read(self, asked: bool) -> None:
        try:
            found = await asyncio.to_thread(Configuration.load, self.current.origin, self.current.overrides)
        except ConfigError as error:
            self.problem = str(error)
            self.metrics.config_reload_successful.set(0)
            log.error("config_refused", path=self.current.origin, problem=str(error), in_force="the one before")
            return
        self.problem = ""
        self.metrics.config_reload_successful.set(1)
        changes = differences(self.current.settings, found.settings)
        fixed = {key: change for key, change in changes.items() if key in _FIXED}
        if changes or self.current.catalogue != found.catalogue:
            log.info("config_changed", path=self.current.origin, changes=changes)
        elif asked:
            log.info("config_unchanged", path=self.current.origin)
        if fixed:
            log.warning("config_needs_restart", keys=sorted(fixed), problem="these stay as they are until a restart")
        self.current = found
        await self.on_change(found)


def differences(before: Settings, after: Settings) -> dict[str, str]:
    """Say which keys differ and how, secrets masked; `-` stands for a key that is not there."""
    old, new = (dict(_leaves("", one.as_tables())) for one in (before, after))
    return {
        key: f"{old.get(key, '-')} → {new.get(key, '-')}" for key in sorted(old | new) if old.get(key) != new.get(key)
    }


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Give every key path with its value; lists of tables by index."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for at, inner in enumerate(value):
            yield from _leaves(f"{path}[{at}]", inner)
    else:
        yield path, value


def _digest(origin: str) -> bytes:
    """Give a digest of the file and of the secret files; what cannot be read counts as empty."""
    digest = hashlib.sha256()
    for path in (Path(origin), *list_secret_files()):
        try:
            digest.update(path.read_bytes())
        except OSError:
            digest.update(b"\0unreadable")
        digest.update(b"\0")
    return digest.digest()
