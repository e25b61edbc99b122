"""OpenAPI: the description of the API that `/api/openapi.json` gives; a test holds real answers against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobtester import __version__
from jobtester.domain.attribution import AttributionKind
from jobtester.domain.reasons import REASONS, Fault, Outcome
from jobtester.store.outbox import STATES
from jobtester.web.query_params import DEFAULT_LIMIT, MAX_LIMIT

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_SECONDS: Schema = {"type": "number", "minimum": 0, "description": "seconds"}
_INSTANT: Schema = {"type": "number", "description": "Unix seconds, UTC"}
_YES: Schema = {"type": "boolean"}
_ADDRESS: Schema = {"type": "string", "description": "Ethereum address, lower-case"}
_WEI: Schema = {"type": "string", "pattern": "^[0-9]+$", "description": "wei as decimal text: it outgrows numbers"}
_OUTCOME: Schema = {"enum": [one.value for one in Outcome]}
_REASON: Schema = {
    "type": "string",
    "description": "one of " + ", ".join(REASONS) + "; check:* stands for check:<name>, and any HTTP status",
}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _map(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def _object(fields: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**fields, **(optional or {})},
        "required": list(fields),
        "additionalProperties": False,
    }


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _page(name: str, more: Mapping[str, Schema] | None = None) -> Schema:
    following = {**_maybe(_TEXT), "description": "the cursor of the next page, null on the last"}
    return _object({"items": _list(_named(name)), "next": following, **(more or {})})


_COUNTS = _map(_WHOLE)
_POINT = _object(
    {"id": _TEXT, "started_at": _INSTANT, "round_trip_s": _SECONDS, "outcome": _OUTCOME, "reason": _REASON}
)
_RESULT: dict[str, Schema] = {
    "id": {"type": "string", "description": "unique for ever; travels as X-Request-ID"},
    "tick": _TEXT,
    "orchestrator": _ADDRESS,
    "service_uri": _TEXT,
    "pipeline": _TEXT,
    "pipeline_name": {"type": "string", "description": "what the Leaderboard gets"},
    "model": _TEXT,
    "warm": _YES,
    "outcome": _OUTCOME,
    "reason": _REASON,
    "message": _TEXT,
    "attribution": {
        "enum": [kind.value for kind in AttributionKind],
        "description": "what is known of who served the job",
    },
    "gateway": _TEXT,
    "targeting": _TEXT,
    "started_at": _INSTANT,
    "recorded_at": _INSTANT,
    "round_trip_s": {**_SECONDS, "description": "from handing the request to the socket to the last byte, seconds"},
    "artifact_s": _maybe(_SECONDS),
    "status": {**_maybe(_WHOLE), "description": "the gateway's HTTP status, null where no answer came"},
    "measures": _map(_NUMBER),
    "notes": {
        **_list(_object({"check": _TEXT, "note": _TEXT, "message": _TEXT})),
        "description": "oddities of the answer that are held against nobody",
    },
    "deferred": _WHOLE,
    "estimated_price_wei": _maybe(_WEI),
}
_REPORT = _object(
    {
        "problem": _TEXT,
        "orchestrators": _WHOLE,
        "planned": _WHOLE,
        "settled": _WHOLE,
        "outcomes": _COUNTS,
        "reasons": _COUNTS,
        "attribution": _COUNTS,
        "pipelines": _map(_COUNTS),
        "skipped": _COUNTS,
        "deferred": _COUNTS,
        "estimated_price_wei": _WEI,
        "work_s": _SECONDS,
        "longest_chain_s": _SECONDS,
    },
    {"warmth": {**_map(_COUNTS), "description": "outcomes by what was advertised, warm or cold; not in old reports"}},
)
_TICK: dict[str, Schema] = {
    "id": _TEXT,
    "state": {"enum": ["running", "finished", "aborted", "failed", "suspect"]},
    "trigger": _TEXT,
    "seed": {"type": "integer"},
    "started_at": _INSTANT,
    "finished_at": _maybe(_INSTANT),
    "report": {**_maybe(_REPORT), "description": "null for a tick that was cut off before it could report"},
}
_SLOW = _object({"id": _TEXT, "orchestrator": _ADDRESS, "pipeline": _TEXT, "model": _TEXT, "round_trip_s": _SECONDS})
_IN_AIR = _object(
    {"id": _TEXT, "orchestrator": _ADDRESS, "pipeline": _TEXT, "model": _TEXT, "gateway": _TEXT, "sent_at": _INSTANT}
)
_PROGRESS = _object(
    {
        "running": _YES,
        "tick": _TEXT,
        "planned": _WHOLE,
        "settled": _WHOLE,
        "outcomes": _COUNTS,
        "in_air": _list(_IN_AIR),
    }
)
_CAPABILITY = _object(
    {
        "service_uri": _TEXT,
        "pipeline": _TEXT,
        "model": _TEXT,
        "warm": _YES,
        "unscored_streak": {
            "type": "integer",
            "minimum": 0,
            "description": "unscored results in a row, the newest last",
        },
        "newest": _named("Point"),
        "recent": {**_list(_named("Point")), "description": "oldest first"},
    }
)
_ENTRY = _object(
    {
        "number": _WHOLE,
        "result": _TEXT,
        "tick": _TEXT,
        "gateway": _TEXT,
        "state": {"enum": list(STATES)},
        "orchestrator": _TEXT,
        "pipeline_name": _TEXT,
        "model": _TEXT,
        "created_at": _INSTANT,
        "due_at": _INSTANT,
        "attempts": _WHOLE,
        "first_sent_at": _maybe(_INSTANT),
        "last_sent_at": _maybe(_INSTANT),
        "settled_at": _maybe(_INSTANT),
        "problem": _TEXT,
        "maybe_double": _YES,
        "stat": {"type": "object", "description": "exactly what the Leaderboard gets"},
    }
)
_RECEIVED = _object(
    {
        "id": _TEXT,
        "received_at": _INSTANT,
        "source": _TEXT,
        "kind": _TEXT,
        "state": {**_TEXT, "description": "how far its stat got; empty where that has been forgotten"},
        "stat": {"type": "object"},
    }
)
_STATUS = _object(
    {
        "version": _TEXT,
        "region": _TEXT,
        "simulated": {"type": "boolean", "description": "the network under test is made up"},
        "next_tick_at": _maybe(_INSTANT),
        "progress": {**_maybe(_PROGRESS), "description": "the newest tick since the tester was started"},
        "peers": _map(
            _object({"ok": _YES}, {"problem": _TEXT, "checked": {"const": False, "description": "not asked yet"}})
        ),
        "outbox": _COUNTS,
    }
)


def _parameter(name: str, schema: Schema, says: str, where: str = "query") -> Schema:
    return {"name": name, "in": where, "required": where == "path", "schema": schema, "description": says}


_LIMIT = _parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "items on a page at most",
)
_CURSOR = _parameter("cursor", _TEXT, "the `next` of the page before; what is recorded meanwhile moves no page")


def _answer(says: str, schema: Schema) -> Schema:
    return {"description": says, "content": {"application/json": {"schema": schema}}}


def _get(name: str, says: str, schema: Schema, *parameters: Schema, missing: str = "") -> dict[str, Any]:
    answers = {"200": _answer("what was asked for", schema), "400": _answer("a parameter is wrong", _named("Problem"))}
    if missing:
        answers["404"] = _answer(missing, _named("Problem"))
    return {
        "operationId": name,
        "summary": says,
        "parameters": list(parameters),
        "responses": answers,
    }


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "livepeer-job-tester",
        "version": __version__,
        "description": "Results of AI test jobs that were sent to each orchestrator on the Livepeer AI Network.",
        "license": {"name": "MIT", "identifier": "MIT"},
    },
    "paths": {
        "/api/status": {"get": _get("status", "the running tick, the next, peers and outbox", _named("Status"))},
        "/api/orchestrators": {
            "get": _get(
                "orchestrators", "every orchestrator with its newest results, by address", _page("Orchestrator"),
                _LIMIT, _CURSOR, _parameter("pipeline", _TEXT, "only capabilities of this pipeline (slug)"),
            )
        },
        "/api/orchestrators/{address}": {
            "get": _get(
                "orchestrator", "one orchestrator with each capability's history", _named("Orchestrator"),
                _parameter("address", _TEXT, "Ethereum address, in any case", "path"),
                missing="no result of this orchestrator is kept",
            )
        },
        "/api/results": {
            "get": _get(
                "results", "results, newest first", _page("Result"), _LIMIT, _CURSOR,
                _parameter("tick", _TEXT, "only of this tick"),
                _parameter("orchestrator", _TEXT, "only of this address"),
                _parameter("pipeline", _TEXT, "only of this pipeline (slug)"),
                _parameter("model", _TEXT, "only of this model"),
                _parameter("outcome", _OUTCOME, "only with this outcome"),
                _parameter("reason", _REASON, "only with this reason code"),
            )
        },
        "/api/results/{id}": {
            "get": _get(
                "result", "one result with its evidence, request and answer", _named("WholeResult"),
                _parameter("id", _TEXT, "the result's id", "path"), missing="no result of this id is kept",
            )
        },
        "/api/ticks": {
            "get": _get("ticks", "ticks with their job reports, newest first", _page("Tick"), _LIMIT, _CURSOR),
            "post": {
                "operationId": "start_tick",
                "summary": "begin a tick now",
                "security": [{"admin": []}],
                "responses": {
                    "202": _answer("it begins", _object({"state": {"const": "accepted"}})),
                    "401": _answer("the admin token is missing or wrong", _named("Problem")),
                    "404": _answer("no admin token is configured", _named("Problem")),
                    "409": _answer("a tick runs already", _named("Problem")),
                },
            },
        },
        "/api/ticks/{id}": {
            "get": _get(
                "tick", "one tick with its job report and slowest results", _named("WholeTick"),
                _parameter("id", _TEXT, "the tick's id; `last` is the newest", "path"),
                missing="no tick of this id is kept",
            )
        },
        "/api/outbox": {
            "get": _get(
                "outbox", "stats on their way to the Leaderboard, oldest first", _page("Entry", {"counts": _COUNTS}),
                _LIMIT, _CURSOR,
                _parameter("state", {"enum": list(STATES)}, "only in this state; else all that are not delivered"),
            )
        },
        "/api/received": {
            "get": _get("received", "results of other testers, newest first", _page("Received"), _LIMIT, _CURSOR)
        },
        "/api/openapi.json": {"get": _get("document", "this document", {"type": "object"})},
        "/api/post_stats": {
            "post": {
                "operationId": "post_stats",
                "summary": "take results of another tester, signed as for the Leaderboard, and forward them",
                "parameters": [
                    _parameter("Authorization", _TEXT, "hex HMAC-SHA256 of the body with the results secret", "header")
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}
                        }
                    },
                },
                "responses": {
                    "200": {"description": "kept", "content": {"text/plain": {"schema": {"const": "ok"}}}},
                    "default": _answer("not taken", _named("Problem")),
                },
            }
        },
    },
    "components": {
        "securitySchemes": {
            "admin": {"type": "http", "scheme": "bearer", "description": "server.admin_token of config.toml"}
        },
        "schemas": {
            "Point": _POINT,
            "Result": _object(_RESULT),
            "WholeResult": _object(
                {
                    **_RESULT,
                    "evidence": _list(_TEXT),
                    "fault": {"enum": [one.value for one in Fault]},
                    "meaning": _TEXT,
                    "advice": _TEXT,
                    "request": {"type": "string", "description": "JSON text, cut where too long, free of secrets"},
                    "response": {"type": "string", "description": "the answer's text, cut; empty where not kept"},
                }
            ),
            "Orchestrator": _object({"orchestrator": _ADDRESS, "capabilities": _list(_CAPABILITY)}),
            "Tick": _object(_TICK),
            "WholeTick": _object({**_TICK, "slowest": _list(_SLOW)}),
            "Entry": _ENTRY,
            "Received": _RECEIVED,
            "Status": _STATUS,
            "Problem": _object({"error": {"type": "string", "minLength": 1, "description": "what to change"}}),
        },
    },
}  # fmt: skip
