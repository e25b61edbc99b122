"""Notification: each tick's job report as JSON to an address of the operator's, so that a chat bot can be attached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import orjson
import structlog

from jobtester import __version__
from jobtester.domain.tick_report import TickReport
from jobtester.errors import CrashBoundary
from jobtester.http import Proxies, sign_body
from jobtester.settings.sections import NotifySettings

log = structlog.get_logger()

_TIMEOUT_S = 15.0
_WAITING = 50


@dataclass(slots=True)
class Notifier:
    """Posts reports one after the other. `settings` is asked anew for each; without a URL reports are dropped."""

    settings: Callable[[], NotifySettings]
    first_pause_s: float = 1.0
    tries: int = 5
    crashes: CrashBoundary = CrashBoundary()  # noqa: RUF009 - an immutable value
    _reports: asyncio.Queue[TickReport] = field(default_factory=lambda: asyncio.Queue(_WAITING))

    def enqueue(self, report: TickReport) -> None:
        """Take a report without waiting; when too many wait, the oldest is dropped."""
        if self.settings().url is None:
            return
        if self._reports.full():
            self._reports.get_nowait()
            log.warning("notification_dropped", problem="too many wait")
        self._reports.put_nowait(report)

    async def run(self) -> None:
        """Post what comes, for as long as the daemon runs."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S, ceil_threshold=86_400),
            headers={"User-Agent": f"livepeer-job-tester/{__version__}", "Content-Type": "application/json"},
        ) as session:
            while True:
                report = await self._reports.get()
                with self.crashes.unit("notification", tick=report.tick):
                    await self._post(session, report)

    async def _post(self, session: aiohttp.ClientSession, report: TickReport) -> None:
        """Post one report, a few times if need be; what is answered 4xx is not tried again."""
        how = self.settings()
        if how.url is None:
            return
        body = orjson.dumps(report.as_json())
        headers = {}
        if how.secret is not None:
            headers["Authorization"] = sign_body(how.secret.get_secret_value(), body)
        url = how.url.get_secret_value()
        problem, way = "", Proxies.from_environment().request_arguments(url)
        for number in range(self.tries):
            if number:
                await asyncio.sleep(self.first_pause_s * 2 ** (number - 1))
            try:
                async with session.post(url, data=body, headers=headers, allow_redirects=False, **way) as answer:
                    if answer.status < 300:
                        return
                    problem = f"answered {answer.status}"
                    if 400 <= answer.status < 500 and answer.status not in (408, 429):
                        break
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                problem = type(error).__name__
        log.error("notification_lost", tick=report.tick, host=urlsplit(url).hostname, problem=f"notify.url: {problem}")
