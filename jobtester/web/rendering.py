"""Render pages in a thread, under a policy that runs nothing which came from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp_jinja2
from aiohttp import web

from jobtester import __version__
from jobtester.domain.instants import parse_instant
from jobtester.store.results import ResultRow
from jobtester.web.context import CONTEXT

PAGE_SIZE = 50
MISSING_ADVICE = "It may be older than store.keep allows, or the address may be mistyped."
# Nothing inline and nothing from elsewhere: a hostile model name that gets past the templates still cannot run.
_CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; media-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Span:
    """The span of time that a page is limited to: as it was typed, in Unix seconds, and what is wrong with it."""

    since_text: str = ""
    until_text: str = ""
    since: float | None = None
    until: float | None = None
    problem: str = ""

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """Return the span of a page's address; one that cannot be read is shown again with what is wrong."""
        since, until = (query.get(name, "")[:40].strip() for name in ("since", "until"))
        now = time.time()
        try:
            moments = [parse_instant(text, now) if text else None for text in (since, until)]
        except ValueError as error:
            return cls(since, until, problem=str(error))
        return cls(since, until, moments[0], moments[1])

    @property
    def query(self) -> dict[str, str]:
        """Return the parameters of an address that is limited to the same span."""
        return {"since": self.since_text, "until": self.until_text}


async def render(request: web.Request, template: str, values: Mapping[str, Any], *, status: int = 200) -> web.Response:
    """Render a page in a thread: one with a hundred orchestrators takes longer than the event loop may be held up."""
    context = request.app[CONTEXT]
    shared = {"version": __version__, "simulated": context.simulated, "region": context.settings().region,
              "path": request.path, "config_problem": context.health.config_problem()}  # fmt: skip
    text = await asyncio.to_thread(aiohttp_jinja2.render_string, template, request, {**shared, **values})
    response = web.Response(
        text=text, status=status, content_type="text/html", headers={"Content-Security-Policy": _CONTENT_POLICY}
    )
    response.enable_compression()
    return response


def find_base(request: web.Request) -> str:
    """Return where people reach the pages: server.public_url, else as the request named this server.

    Behind a proxy a request names the tester's own address, which means nothing to readers of a feed elsewhere.
    """
    public_url = request.app[CONTEXT].settings().server.public_url
    return str(public_url).rstrip("/") if public_url else f"{request.scheme}://{request.host}"


async def render_missing(request: web.Request, problem: str, advice: str) -> web.Response:
    """Return a 404 page. It does not repeat what was asked for, which anybody can put into a link."""
    return await render(request, "missing.html", {"problem": problem, "advice": advice}, status=404)


def parse_number(text: str | None) -> int | None:
    """Return a number from an address; None for anything else.

    Pages are lenient where the API is strict: who edits an address by hand sees the first page.
    """
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 18 else None


def build_older_link(results: Sequence[ResultRow], filters: Mapping[str, str] | None = None) -> str:
    """Return the address of the next page under the same filters; empty if this page is not full."""
    if len(results) < PAGE_SIZE:
        return ""
    active = {name: value for name, value in (filters or {}).items() if value}
    return f"?{urlencode({**active, 'before': results[-1].seq})}#results"
