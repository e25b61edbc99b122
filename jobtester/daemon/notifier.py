"""Post each job report to the operator's URL, such as a chat bot's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import structlog

from jobtester import __version__
from jobtester.crash_boundary import CrashBoundary
from jobtester.daemon.notification import Notification
from jobtester.daemon.notification_formats import write_body
from jobtester.http import Proxies, sign_body
from jobtester.settings.operator_sections import NotifySettings

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
    _reports: asyncio.Queue[Notification] = field(default_factory=lambda: asyncio.Queue(_MAX_QUEUED))

    def enqueue(self, notification: Notification) -> None:
        """Queue a tick's report without waiting, if there is news. When the queue is full, the oldest is dropped."""
        settings = self.settings()
        if settings.url is None or (settings.when == "change" and not notification.is_change):
            return
        if self._reports.full():
            self._reports.get_nowait()
            log.warning("notification_dropped", problem=f"{_MAX_QUEUED} reports wait already")
        self._reports.put_nowait(notification)

    async def run(self) -> None:
        """Post queued reports, until canceled."""
        async with aiohttp.ClientSession(
            # aiohttp rounds a total of 5 s or more up to a whole second of the loop's clock unless told otherwise.
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S, ceil_threshold=86_400),
            headers={"User-Agent": f"livepeer-job-tester/{__version__}"},
        ) as session:
            while True:
                notification = await self._reports.get()
                with self.crashes.unit("notification", tick=notification.report.tick):
                    await self._post(session, notification)

    async def _post(self, session: aiohttp.ClientSession, notification: Notification) -> None:
        """Post one report, again after a growing pause if need be. An answer 4xx is final, but for 408 and 429."""
        settings = self.settings()
        if settings.url is None:
            return
        body, content_type = write_body(notification, settings)
        headers = {"Content-Type": content_type}
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
        log.error(
            "notification_lost",
            tick=notification.report.tick,
            host=urlsplit(url).hostname,
            problem=f"notify.url: {problem}",
        )
