"""A double of the Leaderboard Serverless API: as strict as the real one, and as silent about what it drops."""

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

from jobtester.simulator import server
from jobtester.simulator.leaderboard import scores
from jobtester.simulator.leaderboard import stat as stats
from jobtester.simulator.leaderboard.database import TIMED_OUT, Statements
from jobtester.simulator.leaderboard.faults import Faults, Moments
from jobtester.simulator.leaderboard.rows import Row, RowsFile

Region = tuple[str, str, str]
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
_DAY_S = 86_400.0
_WITHHELD_S = 300.0  # the longest that a function may run on Vercel


class Leaderboard:
    """The API on a real socket. Rows survive stop() and start(), and with `rows_path` another process too."""

    def __init__(
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
        """Be ready to start; `body_limit` answers 413 to larger bodies, as the Vercel platform does."""
        self.secret, self.regions, self.style = secret, tuple(regions), style
        self.host, self.port, self.clock, self.body_limit = host, port, clock, body_limit
        self._statements = Statements()
        self._faults = Faults()
        self.moments = Moments()
        self.posts: Counter[str] = Counter()
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
        """Return what goes wrong at present. To lock or unlock the table, assign new ones."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._statements.follow(faults)

    @property
    def url(self) -> str:
        """Give the base address."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; on the same port as before, where there was one."""
        app = web.Application(client_max_size=256 * 2**20)
        for path, handler in (
            ("/api/post_stats", self._post_stats),
            ("/api/raw_stats", self._read(self._raw_stats)),
            ("/api/aggregated_stats", self._read(self._aggregated_stats)),
            ("/api/top_ai_score", self._read(self._top_ai_score)),
            ("/api/pipelines", self._read(self._pipelines)),
            ("/api/regions", self._read(self._regions)),
        ):
            app.router.add_route("*", path, handler)
        if self.style == "cspe":
            app.router.add_route("*", "/api/health", self._read(self._health))
        app.router.add_route("*", "/{anything:.*}", _not_found)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, auto_decompress=False)
        await self._runner.setup()
        site = server.Listener(self._runner, self.host, self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and drop what is connected."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _post_stats(self, request: web.Request) -> web.StreamResponse:
        faults = self.faults
        body = await request.read()
        if self._random.random() < faults.drop_before_store:
            return self._drop(request, "dropped_before")
        if self.body_limit is not None and len(body) > self.body_limit:
            return web.Response(status=413, text="FUNCTION_PAYLOAD_TOO_LARGE")
        if faults.status and faults.status_times:
            faults.status_times -= 1
            self.posts[str(faults.status)] += 1
            headers = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            kind = "text/html" if faults.status_body.startswith("<") else "text/plain"
            return web.Response(status=faults.status, text=faults.status_body, content_type=kind, headers=headers)
        if faults.refuse_signature or request.headers.get("Authorization", "").strip() != self.sign(body):
            return self._error(403, "request can not be authenticated")
        try:
            stat = stats.decode(body)
        except stats.RefusedError as error:
            return self._error(400, str(error))
        if faults.database_down == "region" or stat["region"] not in {name for name, *_ in self._known_regions()}:
            return self._error(400, "invalid region")
        problem = "connection refused" if faults.database_down == "500" else stats.unstorable(stat)
        if problem:
            return self._error(500, problem, after=b"ok")
        await self.moments.tell("arrived")
        if self._random.random() < faults.post_errors:
            self.posts["failed_before"] += 1
            return self._error(500, "connection refused", after=b"ok")
        if self._random.random() < faults.withheld_posts:
            return await self._withhold(request)
        await asyncio.sleep(faults.slow_insert_s)
        problem = await self._statements.insert(faults, lambda: self._insert(stat, body))
        if problem:
            self.posts["timed_out"] += 1
            return self._error(500, problem, after=b"ok")
        await self.moments.tell("stored")
        if self._random.random() < faults.withheld_answers:
            return await self._withhold(request)
        await asyncio.sleep(faults.slow_answer_s)
        if self._random.random() < faults.fail_after_store:
            self.posts["failed_after"] += 1
            return self._error(500, TIMED_OUT, after=b"ok")
        if self._random.random() < faults.drop_after_store:
            return self._drop(request, "dropped_after")
        if self._random.random() < faults.reset_mid_body:
            return await self._cut(request)
        self.posts["ok"] += 1
        return web.Response(text="ok")

    def sign(self, body: bytes) -> str:
        """Give the signature that these bytes need."""
        return hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()

    def _insert(self, stat: dict[str, Any], body: bytes) -> None:
        """Store a stat where a region of its job type exists; otherwise drop it without a word."""
        kind = "ai" if stats.is_ai(stat) else "transcoding"
        if (stat["region"], kind) not in {(name, of) for name, _, of in self._known_regions()}:
            self.posts["silently_dropped"] += 1
            return
        row = Row(len(self.rows) + 1, self.clock(), stats.stored(stat), body)
        if self._file is not None:
            self._file.append(row)
        self.rows.append(row)

    def recreate_database(self) -> None:
        """Lose every row, and the regions that were added: those of a new database are there again."""
        self.rows.clear()
        self.regions = SEEDED_REGIONS
        self._cache.clear()
        if self._file is not None:
            self._file.clear()

    async def _withhold(self, request: web.Request) -> web.Response:
        """Leave the client without an answer for as long as a platform lets a function run."""
        self.posts["withheld"] += 1
        await asyncio.sleep(_WITHHELD_S)
        return self._drop(request, "withheld_to_the_end")

    def _drop(self, request: web.Request, how: str) -> web.Response:
        """Close the connection without an answer."""
        self.posts[how] += 1
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        self.posts["cut"] += 1
        response = web.StreamResponse(headers={"Content-Length": "2"})
        await response.prepare(request)
        await response.write(b"o")
        if request.transport is not None:
            request.transport.abort()
        return response

    def _known_regions(self) -> list[Region]:
        faults = self.faults
        return [
            (name, shown, kind)
            for name, shown, kind in self.regions
            if name not in faults.gone_regions and (kind != "ai" or name not in faults.gone_ai_regions)
        ]

    def _error(self, status: int, message: str, after: bytes = b"") -> web.Response:
        """Answer in the style of the code line that is simulated; 500s of the post route go on with `ok`."""
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

    def _read(self, answer: Callable[[web.Request], object]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Wrap a reading endpoint: headers, errors, and the cache that may stand in front."""

        async def handler(request: web.Request) -> web.StreamResponse:
            if self.faults.raw_stats_down and request.path == "/api/raw_stats":
                return self._with_headers(self._error(500, "connection refused"))
            if self.faults.status and self.faults.status_times:
                return web.Response(status=self.faults.status, text=self.faults.status_body, content_type="text/html")
            if self.faults.database_down == "500":
                return self._with_headers(self._error(500, "connection refused"))
            cached = self._cache.get(request.path_qs)
            if self.faults.raw_stats_cached and cached is not None and self.clock() - cached[0] < 45:
                return self._with_headers(web.Response(body=cached[1], content_type="application/json"))
            try:
                found = await self._queried(request, answer)
                status = 200
                if isinstance(found, web.Response):
                    return self._with_headers(found)
            except (KeyError, ValueError) as error:
                return self._with_headers(self._error(400 if isinstance(error, KeyError) else 500, str(error.args[0])))
            body = json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
            for raw, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
                body = body.replace(raw, escaped)
            if 0 < self.faults.answer_limit < len(body):
                return web.Response(status=500, text="FUNCTION_RESPONSE_PAYLOAD_TOO_LARGE")
            self._cache[request.path_qs] = (self.clock(), body)
            return self._with_headers(web.Response(status=status, body=body, content_type="application/json"))

        return handler

    async def _queried(self, request: web.Request, answer: Callable[[web.Request], object]) -> object:
        """Return what a reading endpoint finds; only that of raw stats hides a query that failed."""
        if request.path == "/api/raw_stats" and request.query.get("orchestrator"):
            outcome = await self._statements.read(self.faults)
            if outcome != "rows":
                return {} if outcome == "empty" else self._error(500, TIMED_OUT)
        return answer(request)

    def _with_headers(self, response: web.Response) -> web.Response:
        response.headers.update(_READ_HEADERS)
        response.headers["Date"] = email.utils.formatdate(self.clock(), usegmt=True)
        return response

    def _selected(self, request: web.Request) -> list[Row]:
        """Give the rows that the usual parameters select, oldest first. KeyError is a 400."""
        query = request.query
        model, pipeline = query.get("model", ""), query.get("pipeline", "")
        if bool(model) != bool(pipeline):
            raise KeyError("pipeline required" if model else "model required")
        since = self._moment(query.get("since"), self.clock() - _DAY_S)
        until = self._moment(query.get("until"), self.clock())
        kind = query.get("job_type", "")
        if kind not in ("ai", "transcoding"):
            kind = "ai" if model else "transcoding"
        orchestrator, region = query.get("orchestrator", "").lower(), query.get("region", "").upper()
        return [
            row
            for row in self.rows
            if since <= row.insert_time <= until
            and (kind == "ai") == bool(row.stat.get("model") and row.stat.get("pipeline"))
            and (not orchestrator or row.stat["orchestrator"] == orchestrator)
            and (not region or row.stat["region"] == region)
            and (not model or (row.stat.get("model") == model and row.stat.get("pipeline") == pipeline))
        ]

    def _moment(self, text: str | None, default: float) -> float:
        if not text:
            return default
        try:
            return float(text)
        except ValueError as error:
            raise KeyError(f'strconv.ParseFloat: parsing "{text}": invalid syntax') from error

    def _raw_stats(self, request: web.Request) -> object:
        if not request.query.get("orchestrator"):
            raise KeyError("orchestrator is a required parameter")
        found: dict[str, list[dict[str, Any]]] = {}
        if self.faults.empty_reads:
            self.faults.empty_reads -= self.faults.empty_reads > 0
            return found
        rows = self._selected(request)[::-1]
        if self._random.random() < self.faults.cut_reads:
            rows = rows[: self._random.randrange(len(rows) + 1)]
        for row in rows:
            found.setdefault(row.stat["region"], []).append(row.stat)
        return found

    def _aggregated_stats(self, request: web.Request) -> object:
        wanted = request.query.get("orchestrator", "").lower()
        query = {key: value for key, value in request.query.items() if key != "orchestrator"}
        everybody = self._selected(request.clone(rel_url=request.rel_url.with_query(query)))
        found = scores.aggregated(row.stat for row in everybody)
        return {wanted: found[wanted]} if wanted in found else {} if wanted else found

    def _top_ai_score(self, request: web.Request) -> object:
        wanted = request.query.get("orchestrator", "")
        if not wanted and self.style == "lp":
            return self._drop(request, "top_without_orchestrator")
        recent = [
            row.stat for row in self.rows if row.insert_time >= self.clock() - _DAY_S and row.stat.get("pipeline")
        ]
        best: tuple[float, float, dict[str, Any]] | None = None
        for stat in recent:
            if wanted and stat["orchestrator"] != wanted:
                continue
            group = [
                one
                for one in recent
                if all(one[key] == stat[key] for key in ("orchestrator", "region", "model", "pipeline"))
            ]
            success = sum(one["success_rate"] for one in group) / len(group)
            trip = sum(one["round_trip_time"] for one in group) / len(group)
            if best is None or (success, -trip) > (best[0], -best[1]):
                best = (success, trip, stat)
        if best is None:
            return {}
        success, trip, stat = best
        same = [one for one in recent if one["model"] == stat["model"] and one["pipeline"] == stat["pipeline"]]
        speed = scores.speed_of(trip, scores.median_of(same))
        value = 0.65 * success + 0.35 * speed if success else 0.0
        return {key: stat[key] for key in ("region", "orchestrator", "model", "pipeline")} | {"value": value}

    def _pipelines(self, request: web.Request) -> object:
        since = self._moment(request.query.get("since"), self.clock() - _DAY_S)
        until = self._moment(request.query.get("until"), self.clock())
        region = request.query.get("region", "").upper()
        found: dict[str, dict[str, set[str]]] = {}
        for row in self.rows:
            stat = row.stat
            if (
                not since <= row.insert_time <= until
                or (region and stat["region"] != region)
                or not stat.get("pipeline")
            ):
                continue
            if not stat.get("model"):
                raise ValueError("can't scan into dest[1]: cannot assign NULL to *string")
            entry = found.setdefault(stat["pipeline"], {"models": set(), "regions": set()})
            entry["models"].add(stat["model"])
            entry["regions"].add(stat["region"])
        return {
            "pipelines": [
                {"id": name, "models": sorted(entry["models"]), "regions": sorted(entry["regions"])}
                for name, entry in sorted(found.items())
            ]
        }

    def _regions(self, _request: web.Request) -> object:
        listed = [{"id": name, "name": display, "type": kind} for name, display, kind in self._known_regions()]
        self._random.shuffle(listed)
        return {"regions": listed}

    def _health(self, _request: web.Request) -> object:
        return {"postgres": {"ok": True}}


async def _not_found(_request: web.Request) -> web.Response:
    return web.Response(status=404, text="404 page not found\n")
