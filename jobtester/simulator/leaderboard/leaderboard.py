"""The Leaderboard Serverless API: as strict as the real one, and as silent about what it drops."""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import hmac
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from aiohttp import web

from jobtester.simulator.leaderboard.database import TIMED_OUT, StatsTable
from jobtester.simulator.leaderboard.faults import Faults, PostProgress
from jobtester.simulator.leaderboard.queries import (
    BadQueryError,
    aggregate_stats,
    find_top_score,
    list_pipelines,
    select_rows,
)
from jobtester.simulator.leaderboard.rows import Row, RowsFile
from jobtester.simulator.leaderboard.stat import (
    RefusedError,
    decode_stat,
    find_storage_error,
    is_ai,
    to_stored_form,
)
from jobtester.simulator.server import start_listening

Region = tuple[str, str, str]  # identifier, display name, job type
_TRANSCODING = "GLOBAL ATL ATL2 MDW FRA HOU LON LAX MAD MIA MOS2 ASH NYC PRG SJO SAO SEA SIN STO SYD HND TOR"
SEEDED_REGIONS: tuple[Region, ...] = (
    *((name, name.title(), "transcoding") for name in _TRANSCODING.split()),
    ("GLOBAL", "Global", "ai"),
    ("MDW", "Chicago", "ai"),
    ("FRA", "Frankfurt", "ai"),
    ("LAX", "Los Angeles", "ai"),
)
_READ_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "public, max-age=30, stale-while-revalidate=15",
}
_CACHED_S = 45.0  # max-age and stale-while-revalidate together
_WITHHELD_S = 300.0  # the longest that a function may run on Vercel


class Leaderboard:
    """The API on a real socket. Rows survive stop() and start(), and with `rows_path` the process too.

    `posts` counts how posts ended, `post_progress` lets tests wait for a stage of the next one.
    """

    def __init__(  # noqa: PLR0913 - each is a property of the simulated server, and has a default
        self,
        *,
        secret: str = "demo-secret",  # noqa: S107 - a simulated server's key
        regions: Sequence[Region] = SEEDED_REGIONS,
        style: Literal["cspe", "lp"] = "cspe",
        host: str = "127.0.0.1",
        port: int = 0,
        rows_path: Path | None = None,
        clock: Callable[[], float] = time.time,
        body_limit: int | None = None,
        seed: int = 0,
    ) -> None:
        """Create a stopped server. `style` is the line of its code: lp is Livepeer's, cspe the Cloud SPE's.

        `body_limit`: respond 413 to larger bodies, as the Vercel platform does.
        """
        self.secret, self.regions, self.style = secret, tuple(regions), style
        self.host, self.port, self.clock, self.body_limit = host, port, clock, body_limit
        self.posts: Counter[str] = Counter()
        self.post_progress = PostProgress()
        self._faults = Faults()
        self._stats_table = StatsTable()
        self._file = RowsFile(rows_path) if rows_path is not None else None
        self.rows: list[Row] = self._file.load() if self._file is not None else []
        self._random = random.Random(seed)
        self._cache: dict[str, tuple[float, bytes]] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Leaderboard:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def faults(self) -> Faults:
        """What goes wrong at present. To lock or unlock the table, assign new faults."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._stats_table.apply_faults(faults)

    @property
    def url(self) -> str:
        """Base URL of the server."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        app = web.Application(client_max_size=256 * 2**20)
        app.router.add_route("*", "/api/post_stats", self._handle_post)
        reading = {
            "raw_stats": self._get_raw_stats,
            "aggregated_stats": lambda request: aggregate_stats(self.rows, request.query, self.clock()),
            "top_ai_score": self._get_top_score,
            "pipelines": lambda request: list_pipelines(self.rows, request.query, self.clock()),
            "regions": self._get_regions,
        }
        if self.style == "cspe":
            reading["health"] = lambda _: {"postgres": {"ok": True}}
        for name, answer in reading.items():
            app.router.add_route("*", f"/api/{name}", self._wrap_read(answer))
        app.router.add_route("*", "/{anything:.*}", _handle_unknown_path)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, auto_decompress=False)
        self.port = await start_listening(self._runner, self.host, self.port)

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle_post(self, request: web.Request) -> web.StreamResponse:  # noqa: C901 - the server's own order
        faults = self.faults
        body = await request.read()
        if self._random.random() < faults.drop_before_store:
            return self._drop_connection(request, "dropped_before")
        if self.body_limit is not None and len(body) > self.body_limit:
            return web.Response(status=413, text="FUNCTION_PAYLOAD_TOO_LARGE")
        if faults.status and faults.status_times:
            faults.status_times -= 1
            self.posts[str(faults.status)] += 1
            headers = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            content_type = "text/html" if faults.status_body.startswith("<") else "text/plain"
            return web.Response(
                status=faults.status, text=faults.status_body, content_type=content_type, headers=headers
            )
        if faults.refuse_signature or request.headers.get("Authorization", "").strip() != self.sign(body):
            return self._error_response(403, "request can not be authenticated")
        try:
            stat = decode_stat(body)
        except RefusedError as error:
            return self._error_response(400, str(error))
        if faults.database_down == "region" or stat["region"] not in {name for name, *_ in self._available_regions()}:
            return self._error_response(400, "invalid region")
        # The server goes on after the 500 of its database, so that such a body ends with its usual `ok`.
        error_text = "connection refused" if faults.database_down == "500" else find_storage_error(stat)
        if error_text:
            return self._error_response(500, error_text, after=b"ok")
        await self.post_progress.record("arrived")
        if self._random.random() < faults.post_errors:
            self.posts["failed_before"] += 1
            return self._error_response(500, "connection refused", after=b"ok")
        if self._random.random() < faults.withheld_posts:
            return await self._withhold(request)
        await asyncio.sleep(faults.slow_insert_s)
        error_text = await self._stats_table.insert(faults, lambda: self._insert(stat, body))
        if error_text:
            self.posts["timed_out"] += 1
            return self._error_response(500, error_text, after=b"ok")
        await self.post_progress.record("stored")
        if self._random.random() < faults.withheld_answers:
            return await self._withhold(request)
        await asyncio.sleep(faults.slow_answer_s)
        if self._random.random() < faults.fail_after_store:
            self.posts["failed_after"] += 1
            return self._error_response(500, TIMED_OUT, after=b"ok")
        if self._random.random() < faults.drop_after_store:
            return self._drop_connection(request, "dropped_after")
        if self._random.random() < faults.reset_mid_body:
            return await self._cut_response(request)
        self.posts["ok"] += 1
        return web.Response(text="ok")

    def sign(self, body: bytes) -> str:
        """Return the signature that a post of these bytes needs."""
        return hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()

    def _insert(self, stat: dict[str, Any], body: bytes) -> None:
        """Store a stat.

        The real statement joins the table of regions on name and job type. Where no row matches, it inserts nothing and
        reports no error: the post is answered `ok` and the stat is lost.
        """
        job_type = "ai" if is_ai(stat) else "transcoding"
        if (stat["region"], job_type) not in {
            (name, region_type) for name, _, region_type in self._available_regions()
        }:
            self.posts["silently_dropped"] += 1
            return
        row = Row(len(self.rows) + 1, self.clock(), to_stored_form(stat), body)
        if self._file is not None:
            self._file.append(row)
        self.rows.append(row)

    def recreate_database(self) -> None:
        """Delete every row and every added region: a new database has the seeded regions only."""
        self.rows.clear()
        self.regions = SEEDED_REGIONS
        self._cache.clear()
        if self._file is not None:
            self._file.clear()

    async def _withhold(self, request: web.Request) -> web.Response:
        """Leave the client without a response for as long as the platform lets a function run."""
        self.posts["withheld"] += 1
        await asyncio.sleep(_WITHHELD_S)
        return self._drop_connection(request, "withheld_to_the_end")

    def _drop_connection(self, request: web.Request, outcome: str) -> web.Response:
        self.posts[outcome] += 1
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _cut_response(self, request: web.Request) -> web.StreamResponse:
        self.posts["cut"] += 1
        response = web.StreamResponse(headers={"Content-Length": "2"})
        await response.prepare(request)
        await response.write(b"o")
        if request.transport is not None:
            request.transport.abort()
        return response

    def _available_regions(self) -> list[Region]:
        faults = self.faults
        return [
            (name, display_name, job_type)
            for name, display_name, job_type in self.regions
            if name not in faults.gone_regions and (job_type != "ai" or name not in faults.gone_ai_regions)
        ]

    def _error_response(self, status: int, message: str, after: bytes = b"") -> web.Response:
        """Return an error in the format of the simulated fork, followed by the bytes `after`."""
        if self.style == "cspe":
            body = json.dumps({"error": message}).encode()
            return web.Response(status=status, body=body + after, content_type="application/json")
        return web.Response(
            status=status,
            body=b'{"error":"' + message.encode() + b'"}\n' + after,
            content_type="text/plain",
            charset="utf-8",
            headers={"X-Content-Type-Options": "nosniff"},
        )

    def _wrap_read(
        self, answer: Callable[[web.Request], object]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the handler of a reading route: faults, the platform's cache, errors and headers around `answer`."""

        async def handler(request: web.Request) -> web.StreamResponse:
            faults = self.faults
            if faults.raw_stats_down and request.path == "/api/raw_stats":
                return self._add_read_headers(self._error_response(500, "connection refused"))
            if faults.status and faults.status_times:
                return web.Response(status=faults.status, text=faults.status_body, content_type="text/html")
            if faults.database_down == "500":
                return self._add_read_headers(self._error_response(500, "connection refused"))
            cached = self._cache.get(request.path_qs)
            if faults.raw_stats_cached and cached is not None and self.clock() - cached[0] < _CACHED_S:
                return self._add_read_headers(web.Response(body=cached[1], content_type="application/json"))
            try:
                value = await self._run_query(request, answer)
            except BadQueryError as error:
                return self._add_read_headers(self._error_response(400, str(error)))
            except ValueError as error:
                return self._add_read_headers(self._error_response(500, str(error)))
            if isinstance(value, web.Response):
                return self._add_read_headers(value)
            body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
            for char, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):  # as Go's encoder
                body = body.replace(char, escaped)
            if 0 < self.faults.answer_limit < len(body):
                return web.Response(status=500, text="FUNCTION_RESPONSE_PAYLOAD_TOO_LARGE")
            self._cache[request.path_qs] = (self.clock(), body)
            return self._add_read_headers(web.Response(body=body, content_type="application/json"))

        return handler

    async def _run_query(self, request: web.Request, answer: Callable[[web.Request], object]) -> object:
        """Return the JSON value of a reading route, or a whole response. Only raw stats hide a query that failed."""
        if request.path == "/api/raw_stats" and request.query.get("orchestrator"):
            outcome = await self._stats_table.read(self.faults)
            if outcome != "rows":
                return {} if outcome == "empty" else self._error_response(500, TIMED_OUT)
        return answer(request)

    def _add_read_headers(self, response: web.Response) -> web.Response:
        response.headers.update(_READ_HEADERS)
        response.headers["Date"] = email.utils.formatdate(self.clock(), usegmt=True)
        return response

    def _get_raw_stats(self, request: web.Request) -> object:
        if not request.query.get("orchestrator"):
            raise BadQueryError("orchestrator is a required parameter")
        stats: dict[str, list[dict[str, Any]]] = {}
        if self.faults.empty_reads:
            self.faults.empty_reads -= self.faults.empty_reads > 0
            return stats
        rows = select_rows(self.rows, request.query, self.clock())[::-1]
        if self._random.random() < self.faults.cut_reads:
            rows = rows[: self._random.randrange(len(rows) + 1)]
        for row in rows:
            stats.setdefault(row.stat["region"], []).append(row.stat)
        return stats

    def _get_top_score(self, request: web.Request) -> object:
        orchestrator = request.query.get("orchestrator", "")
        if not orchestrator and self.style == "lp":  # the original crashes
            return self._drop_connection(request, "top_without_orchestrator")
        return find_top_score(self.rows, orchestrator, self.clock())

    def _get_regions(self, _: web.Request) -> object:
        regions = [
            {"id": name, "name": display_name, "type": job_type}
            for name, display_name, job_type in self._available_regions()
        ]
        self._random.shuffle(regions)
        return {"regions": regions}


async def _handle_unknown_path(_: web.Request) -> web.Response:
    return web.Response(status=404, text="404 page not found\n")
