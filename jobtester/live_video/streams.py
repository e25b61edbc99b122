"""Run streams: listen while any runs, keep them apart in time, and remember which failed at which gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from weakref import WeakValueDictionary

from jobtester.crash_boundary import CrashBoundary
from jobtester.domain.orchestrators import Target
from jobtester.errors import PortInUseError
from jobtester.live_video.listener import CallbackListener
from jobtester.live_video.stream import LiveStream, StreamPlan, StreamRecording
from jobtester.live_video.stream_api import StreamApi
from jobtester.settings.live_sections import LiveVideoSettings
from jobtester.video.pattern import VideoFormat


@dataclass(slots=True)
class LiveVideo:
    """Runs the streams of all gateways; times are monotonic seconds.

    A gateway leaves an orchestrator out for some minutes after a stream to it failed. A stream that then finds nobody
    says nothing of the orchestrator, so failures are remembered here, from tick to tick.
    """

    settings: LiveVideoSettings
    listener: CallbackListener
    clock: Callable[[], float] = time.monotonic
    _running: set[LiveStream] = field(default_factory=set)
    _turns: WeakValueDictionary[Target, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _ended_at: dict[Target, float] = field(default_factory=dict)
    _failed_at: dict[tuple[str, Target], float] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, settings: LiveVideoSettings, crashes: CrashBoundary) -> Self:
        """Build what [live_video] describes; nothing listens before a stream runs."""
        password = settings.password.get_secret_value() if settings.password is not None else ""
        return cls(settings, CallbackListener(settings.host, settings.port, password, crashes))

    @asynccontextmanager
    async def take_turn(self, target: Target) -> AsyncIterator[None]:
        """Wait until no other stream runs on the orchestrator and the last one is over for long enough."""
        turn = self._turns.get(target) or asyncio.Lock()
        self._turns[target] = turn
        async with turn:
            if target in self._ended_at:
                await asyncio.sleep(max(0.0, self._ended_at[target] + self.settings.spacing - self.clock()))
            try:
                yield
            finally:
                # Orchestrators come and go, and anybody may be one: what matters no longer is forgotten.
                self._ended_at[target] = now = self.clock()
                for other in [key for key, at in self._ended_at.items() if now - at > self.settings.spacing]:
                    del self._ended_at[other]

    async def run(self, make_plan: Callable[[str], StreamPlan], form: VideoFormat, api: StreamApi) -> StreamRecording:
        """Run one stream to its end, inside its turn; `make_plan` is called with the tester's own address."""
        started_at = time.time()
        try:
            async with self.listener.listening():
                stream = LiveStream(make_plan(self._base_url), api, self.listener)
                self._running.add(stream)
                try:
                    return await stream.run()
                finally:
                    self._running.discard(stream)
        except PortInUseError as error:
            return StreamRecording.not_begun(form, started_at, str(error))

    def abort(self) -> None:
        """End every stream now, because the tester stops."""
        for stream in self._running:
            stream.abort()

    def on_failed(self, gateway: str, target: Target) -> None:
        """Remember that a stream failed, so that the gateway may leave the orchestrator out for a while."""
        self._failed_at[gateway, target] = now = self.clock()
        for other in [key for key, at in self._failed_at.items() if now - at >= self.settings.pool_refresh]:
            del self._failed_at[other]

    def seconds_since_failure(self, gateway: str, target: Target) -> float | None:
        """Return the age of a failure after which the gateway may still leave the orchestrator out; else None."""
        failed_at = self._failed_at.get((gateway, target))
        if failed_at is None:
            return None
        age_s = self.clock() - failed_at
        return age_s if age_s < self.settings.pool_refresh else None

    @property
    def _base_url(self) -> str:
        """How gateways reach the tester while a stream runs."""
        host = f"[{self.settings.callback_host}]" if ":" in self.settings.callback_host else self.settings.callback_host
        return f"http://{host}:{self.listener.bound_port}"
