"""Errors as Go's http.Error writes them, for every port that simulates go-livepeer."""

from __future__ import annotations

from aiohttp import web


def create_error_response(status: int, text: str) -> web.Response:
    """Return plain text with a line feed, and a header that stops clients from guessing another type."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=f"{text}\n".encode(), headers=headers)
