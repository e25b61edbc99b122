"""Post each job report to the operator's URL, such as a chat bot's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import structlog

from jobtester import __version__
from jobtester.domain.tick_report import TickReport
from jobtester.errors import CrashBoundary
from jobtester.http import Proxies, sign_body
from jobtester.settings.operator_sections import NotifySettings
from jobtester.web.schemas import TickSchema

log = structlog.get_logger()

_TIMEOUT_S = 15.0
_MAX_QUEUED = 50


@dataclass(slots=True)
class Notifier:
    """Posts reports one after the other. `settings` is called for each; without a URL reports are dropped."""

    settings: Callable[[], NotifySettings]
    first_pause_s: float = 1.0
    max_attempts: int = 5
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    _reports: asyncio.Queue[TickReport] = field(default_factory=lambda: asyncio.Queue(_MAX_QUEUED))

    def enqueue(self, report: TickReport) -> None:
        """Queue a report without waiting. When the queue is full, the oldest report is dropped."""
        if self.settings().url is None:
            return
        if self._reports.full():
            self._reports.get_nowait()
            log.warning("notification_dropped", problem=f"{_MAX_QUEUED} reports wait already")
        self._reports.put_nowait(report)

    async def run(self) -> None:
        """Post queued reports, until canceled."""
        async with aiohttp.ClientSession(
            # aiohttp rounds a total of 5 s or more up to a whole second of the loop's clock unless told otherwise.
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S, ceil_threshold=86_400),
            headers={"User-Agent": f"livepeer-job-tester/{__version__}", "Content-Type": "application/json"},
        ) as session:
            while True:
                report = await self._reports.get()
                with self.crashes.unit("notification", tick=report.tick):
                    await self._post(session, report)

    async def _post(self, session: aiohttp.ClientSession, report: TickReport) -> None:
        """Post one report, again after a growing pause if need be. An answer 4xx is final, but for 408 and 429."""
        settings = self.settings()
        if settings.url is None:
            return
        body = TickSchema.from_report(report).to_json()
        headers = {}
        if settings.secret is not None:
            headers["Authorization"] = sign_body(settings.secret.get_secret_value(), body)
        url = settings.url.get_secret_value()
        proxy = Proxies.from_environment().request_arguments(url)
        problem = ""
        for attempt in range(self.max_attempts):
            if attempt:
                await asyncio.sleep(self.first_pause_s * 2 ** (attempt - 1))
            try:
                async with session.post(url, data=body, headers=headers, allow_redirects=False, **proxy) as response:
                    if response.status < 300:
                        return
                    problem = f"answered {response.status}"
                    if 400 <= response.status < 500 and response.status not in (408, 429):
                        break
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                problem = type(error).__name__
        # The host alone: the path of such a URL is often a secret.
        log.error("notification_lost", tick=report.tick, host=urlsplit(url).hostname, problem=f"notify.url: {problem}")
