"""Describe the API as an OpenAPI document, built from the models that its routes use."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from pydantic.json_schema import models_json_schema

from jobtester import __version__
from jobtester.web.access import Access, find_access
from jobtester.web.query_params import QueryParams
from jobtester.web.schemas import AcceptedSchema, ErrorSchema, Schema

_REF = "#/components/schemas/{model}"

ParamsT = TypeVar("ParamsT", bound=QueryParams)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A GET route: its models, what its path parameter is, and what a 404 means; the last two empty for none."""

    path: str
    response: type[Schema]
    params: type[QueryParams]
    path_parameter: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class ApiRoutes:
    """Routes of the API, which cannot be served without being described."""

    routes: web.RouteTableDef = field(default_factory=web.RouteTableDef)
    models: list[type[Schema]] = field(default_factory=lambda: [AcceptedSchema, ErrorSchema])
    paths: dict[str, dict[str, Any]] = field(default_factory=dict)

    def get(
        self, path: str, response: type[Schema], *, path_parameter: str = "", missing: str = ""
    ) -> Callable[[Handler], Handler]:
        """Serve GET requests for one thing, which take no query parameters."""

        def register(handler: Handler) -> Handler:
            async def handle(request: web.Request) -> web.StreamResponse:
                QueryParams.from_query(request.query)
                return await handler(request)

            self._describe(handler, Operation(path, response, QueryParams, path_parameter, missing))
            return self.routes.get(path)(handle)

        return register

    def get_list(
        self, path: str, response: type[Schema], params: type[ParamsT]
    ) -> Callable[[Callable[[web.Request, ParamsT], Awaitable[web.Response]]], Handler]:
        """Serve GET requests for a list by a handler that takes the request and its checked parameters."""

        def register(handler: Callable[[web.Request, ParamsT], Awaitable[web.Response]]) -> Handler:
            async def handle(request: web.Request) -> web.StreamResponse:
                return await handler(request, params.from_query(request.query))

            self._describe(handler, Operation(path, response, params))
            return self.routes.get(path)(handle)

        return register

    def _describe(self, handler: Callable[..., Any], operation: Operation) -> None:
        """Add an operation; the first line of the handler's docstring is its summary."""
        summary = (handler.__doc__ or "").partition("\n")[0]
        self.models.append(operation.response)
        self.paths[operation.path] = {"get": _describe_get(handler.__name__, summary, operation)}

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        _, schemas = models_json_schema(
            [(model, "serialization") for model in dict.fromkeys(self.models)], ref_template=_REF
        )
        paths = self.paths | {"/api/post_stats": {"post": _POST_STATS}}
        paths["/api/ticks"] = paths["/api/ticks"] | {"post": _START_TICK}
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "livepeer-job-tester",
                "version": __version__,
                "description": "Results of AI test jobs sent to each orchestrator on the Livepeer AI Network.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "paths": paths,
            "components": {
                "securitySchemes": _SECURITY,
                "schemas": schemas["$defs"],
            },
        }


def _describe_get(name: str, summary: str, operation: Operation) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"},
         "description": operation.path_parameter}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]  # fmt: skip
    for name, schema in operation.params.model_json_schema().get("properties", {}).items():
        description = schema.pop("description", "")
        # A default of "" or null stands for a parameter that is left out, and is no value that could be given.
        if not schema.get("default"):
            schema.pop("default", None)
        parameters.append(
            {"name": name, "in": "query", "required": False, "schema": schema, "description": description}
        )
    responses = {
        "200": _describe_response("the requested data", operation.response),
        "400": _describe_response("a parameter cannot be used", ErrorSchema),
    }
    is_for_readers = find_access("GET", operation.path) is Access.READER
    if is_for_readers:
        responses["401"] = _describe_response("the read token is missing or wrong, where one is set", ErrorSchema)
    if operation.missing:
        responses["404"] = _describe_response(operation.missing, ErrorSchema)
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        # The empty one: without server.read_token everybody may read.
        "security": [{}, {"reader": []}, {"password": []}] if is_for_readers else [],
        "responses": responses,
    }


def _describe_response(description: str, model: type[Schema]) -> dict[str, Any]:
    reference = {"$ref": _REF.format(model=model.__name__)}
    return {"description": description, "content": {"application/json": {"schema": reference}}}


_SECURITY = {
    "admin": {"type": "http", "scheme": "bearer", "description": "server.admin_token of config.toml"},
    "reader": {"type": "http", "scheme": "bearer", "description": "server.read_token of config.toml, if it is set"},
    "password": {
        "type": "http",
        "scheme": "basic",
        "description": "server.read_token as the password of any user name",
    },
}
# The two POST routes are described by hand: their bodies are not ours to model. What another tester posts is checked
# as the Leaderboard does, and starting a tick takes no body.
_START_TICK = {
    "operationId": "start_tick",
    "summary": "Start a tick now.",
    "security": [{"admin": []}],
    "responses": {
        "202": _describe_response("the tick starts", AcceptedSchema),
        "401": _describe_response("the admin token is missing or wrong", ErrorSchema),
        "404": _describe_response("no admin token is configured", ErrorSchema),
        "409": _describe_response("a tick is already running", ErrorSchema),
    },
}
_POST_STATS = {
    "operationId": "post_stats",
    "summary": "Accept results of another tester, signed as for the Leaderboard, and forward them.",
    "parameters": [
        {"name": "Authorization", "in": "header", "required": False, "schema": {"type": "string"},
         "description": "hex HMAC-SHA256 of the body with the results secret"}
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
        "200": {"description": "recorded", "content": {"text/plain": {"schema": {"const": "ok"}}}},
        "default": _describe_response("not accepted", ErrorSchema),
    },
}  # fmt: skip
