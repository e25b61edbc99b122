"""Write the commands that repeat a result's request or test, and rebuild the request's body byte for byte."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from typing import Any

import orjson

from jobtester.errors import AssetError, JobTesterError
from jobtester.pipelines.assets import Asset, Assets
from jobtester.pipelines.request import encode_multipart
from jobtester.store.full_results import FullResult

_MAX_INLINE_BYTES = 8 * 1024  # up to here a body stands in the command itself
_ID_HEADER = "x-request-id"
_BY_HAND = "-by-hand"
_TICKET_HEADERS = ("livepeer-payment", "livepeer-segment")  # a ticket pays once, so nobody can send it again


class InputChangedError(JobTesterError):
    """A test input is no longer the file that was sent."""


def write_command(full: FullResult, base_url: str, *, needs_token: bool = False) -> str:
    """Return the command that sends the same request again; empty where the request was not recorded.

    A long body and one with files is fetched from the tester at `base_url`, which wants a token if `needs_token`.
    """
    sent = full.details.get("request")
    if not sent:
        return ""
    lines = [f"curl --request {sent['method']} {shlex.quote(sent['url'])}"]
    if full.result.targeting == "direct":
        lines[0] += " --insecure"  # orchestrators sign their certificates themselves
    # A job's id is unique: evidence about the repetition must not be taken for evidence about the job.
    lines += [
        f"--header {shlex.quote(f'{name}: {value}{_BY_HAND if name.lower() == _ID_HEADER else str()}')}"
        for name, value in sent["headers"].items()
        if name.lower() not in _TICKET_HEADERS
    ]
    if sent["method"] == "GET":
        return _join(lines)
    body = full.result.request
    if not has_files(full) and len(body.encode()) <= _MAX_INLINE_BYTES:
        return _join([*lines, f"--data-raw {shlex.quote(body)}"])
    token = " --header 'Authorization: Bearer ****'" if needs_token else ""
    source = f"curl --fail --silent --show-error {shlex.quote(f'{base_url}/r/{full.result.id}/body')}{token} |\n"
    return source + _join([*lines, "--data-binary @-"])


def write_test_command(full: FullResult) -> str:
    """Return the command that tests the same capability again, without posting a stat."""
    result = full.result
    filters = (("orchestrator", result.orchestrator), ("pipeline", result.pipeline), ("model", result.model))
    options = [f"--{name} {shlex.quote(value)}" for name, value in filters if value]
    return " ".join(["jobtester run --no-post", *options])


def rebuild_body(full: FullResult, assets: Assets) -> bytes:
    """Return the very bytes that were sent. Reads files. Raises InputChangedError if an input is another one now."""
    if not has_files(full):
        return full.result.request.encode()
    inputs = full.details["inputs"]
    fields = {name: value for name, value in orjson.loads(full.result.request).items() if name not in inputs}
    files = {name: find_input(facts, assets) for name, facts in inputs.items()}
    return encode_multipart(fields, {name: (asset.name, asset.content) for name, asset in files.items()})[0]


def find_input(facts: Mapping[str, Any], assets: Assets) -> Asset:
    """Return a test input that was sent. Reads files. Raises InputChangedError if it is another one now."""
    try:
        asset = assets.get(facts["name"])
    except AssetError as error:
        raise InputChangedError(f"the test input {facts['name']} is gone") from error
    if hashlib.sha256(asset.content).hexdigest() != facts.get("sha256"):
        raise InputChangedError(f"the test input {facts['name']} is another file now than when it was sent")
    return asset


def has_files(full: FullResult) -> bool:
    """Return True if the request was a form with files."""
    return bool(full.details.get("inputs"))


def _join(lines: list[str]) -> str:
    return " \\\n  ".join(lines)
