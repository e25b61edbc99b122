"""The errors of an orchestrator itself, in the exact form by which they differ from those of an app."""

from __future__ import annotations

from aiohttp import web

from jobtester.simulator.http_errors import create_error_response

RUNNER_NOT_FOUND = "runner not found"
SESSION_NOT_FOUND = "runner session not found"
PROXY_NOT_FOUND = "live runner proxy not found"
NO_CAPACITY = "no capacity available for runner"
NOT_PERSISTENT = "only persistent runners have sessions"
NOT_SINGLE_SHOT = "runner is not single-shot"
MISSING_TOKEN = "missing auth token"  # noqa: S105 - an error text
MISMATCHED_TOKEN = "mismatched manifest and auth token"  # noqa: S105 - an error text
MISMATCHED_MANIFEST = "mismatched session and payment manifest"
SESSION_EXISTS = "session already exists"
FIXED_PRICE_PAID = "fixed-price live runner sessions do not accept follow-up payments"
PRICE_UNAVAILABLE = "live runner price unavailable: no price feed"
APP_UNREACHABLE = "dial tcp 127.0.0.1:5000: connect: connection refused"


class RequestRefusedError(Exception):
    """The orchestrator responds with this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text

    def to_response(self) -> web.Response:
        """Return the response of the orchestrator."""
        return create_error_response(self.status, self.text)
