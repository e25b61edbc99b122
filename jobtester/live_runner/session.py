"""One session of a persistent live runner: what the answer to its reservation says, and whether it may be open."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import orjson

from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import is_same_origin, is_usable_url
from jobtester.domain.reasons import Verdict
from jobtester.domain.untrusted_text import clean_name

_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_SESSION_ID_IN_PART = re.compile(rb'"session_id"\s*:\s*"([A-Za-z0-9_-]{1,100})"')


@dataclass(slots=True)
class RunnerSession:
    """One session, or the attempt to reserve it. Work is sent below `app_url` while `is_open`.

    `reserve` is the reservation's exchange, and `sending` the request itself, which may still be answered after the job
    has given up. `control_url` is where the session is stopped, empty while unknown. `refuted` says which URL is not at
    the service URI, so that nothing is sent there; `problem` is a verdict that stands where the tester did not reserve.
    """

    job: Job
    reserve: Exchange | None = None
    app_url: str = ""
    control_url: str = ""
    refuted: str = ""
    problem: Verdict | None = None
    sending: asyncio.Task[Exchange] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the orchestrator has reserved it and the tester may use it."""
        return bool(self.app_url)

    @property
    def session_s(self) -> float:
        """How long the reservation took, in seconds."""
        return self.reserve.round_trip_s if self.reserve is not None else 0.0

    @property
    def is_answer_pending(self) -> bool:
        """Whether the orchestrator may still answer the reservation."""
        return self.sending is not None and not self.sending.done()

    @property
    def is_reserved(self) -> bool:
        """Whether the orchestrator has answered that it has reserved it."""
        exchange = self.reserve
        return exchange is not None and exchange.ending is Ending.ANSWERED and 200 <= (exchange.status or 0) < 300

    @property
    def may_be_open(self) -> bool:
        """Whether the orchestrator may keep a slot for it: it has answered so, or its answer was lost."""
        if self.reserve is None:
            return False
        if self.reserve.ending is Ending.ANSWERED:
            return self.is_reserved
        return self.reserve.ending not in (Ending.REFUSED, Ending.WITHDRAWN)

    def read_answer(self, exchange: Exchange, runner_url: str) -> None:
        """Set the session's URLs from the reservation's answer, where they are at the orchestrator's own origin.

        Of an answer that is incomplete only the session's id is used, to stop the session by it.
        """
        self.reserve = exchange
        values = _parse_answer(exchange)
        service_uri = self.job.target.service_uri
        app_url, control_url, session_id = (
            clean_name(values.get(name)) for name in ("app_url", "control_url", "session_id")
        )
        for url in filter(None, (app_url, control_url)):
            if not is_same_origin(url, service_uri):
                self.refuted = f"direct: the session's URL {url[:200]} is not at {service_uri}; nothing was sent"
        if is_usable_url(control_url) and is_same_origin(control_url, service_uri):
            self.control_url = control_url.rstrip("/")
        elif _SESSION_ID.fullmatch(session_id):
            self.control_url = f"{runner_url}/{session_id}"  # the orchestrator's own place for it
        if not self.refuted and self.control_url and is_usable_url(app_url):
            self.app_url = app_url.rstrip("/")


def _parse_answer(exchange: Exchange) -> dict[str, Any]:
    if exchange.gateway_reports_success:
        try:
            values = orjson.loads(exchange.body)
        except orjson.JSONDecodeError:
            pass
        else:
            return values if isinstance(values, dict) else {}
    if exchange.status is None or 200 <= exchange.status < 300:
        match = _SESSION_ID_IN_PART.search(exchange.body)
        return {"session_id": match.group(1).decode()} if match else {}
    return {}
