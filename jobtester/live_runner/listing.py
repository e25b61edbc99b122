"""Parse which live runners an orchestrator lists, or a directory of several orchestrators; nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from jobtester.domain.orchestrators import (
    SINGLE_SHOT,
    Capability,
    Price,
    RunnerOffer,
    is_same_origin,
    is_usable_url,
    parse_endpoint,
)
from jobtester.domain.untrusted_text import clean_label, clean_name

DEFAULT_VERSION = "default"  # a job needs a model to be counted under, also where the app names no version
_MAX_APP_CHARS = 200
_MAX_METADATA_CHARS = 4_096
_MAX_COUNT = 2**31 - 1
_MAX_WEI = 2**64 - 1
_PERSISTENT = "persistent"
_MODES = (SINGLE_SHOT, _PERSISTENT)


@dataclass(frozen=True, slots=True)
class RunnerListing:
    """The apps that one orchestrator serves itself, and a sentence about each entry that is of no use.

    `is_answered` means that the orchestrator itself has answered with a list, usable or not.
    """

    capabilities: tuple[Capability, ...] = ()
    problems: tuple[str, ...] = ()
    is_answered: bool = False


class UnusableRunnerError(ValueError):
    """An entry of a listing is not one that a job can be sent by; the message says why."""


def parse_listing(body: bytes, service_uri: str, max_runners: int = 200) -> RunnerListing:
    """Parse the answer of an orchestrator's /discovery; every entry is usable or gives one problem.

    Of several runners of one app and version the one that is most likely to serve a job stands for all.
    """
    try:
        hosts = _parse_hosts(body)
    except UnusableRunnerError as error:
        return RunnerListing(problems=(str(error),), is_answered=True)
    listing = _parse_entries(hosts, service_uri, max_runners)
    return replace(listing, is_answered=True)


def parse_directory(
    body: bytes, service_uris: Mapping[Hashable, str], max_runners: int = 200
) -> tuple[dict[str, RunnerListing], str]:
    """Parse a directory's list of several orchestrators' runners; return the listings by service URI, and a problem.

    `service_uris` are those of the orchestrators that are known, by their endpoints; entries of others are ignored.
    What a directory says of an orchestrator may be old or made up, so the runners are marked as listed elsewhere.
    """
    try:
        hosts = _parse_hosts(body)
    except UnusableRunnerError as error:
        return {}, str(error)
    by_uri: dict[str, list[dict[str, Any]]] = {}
    for host in hosts:
        service_uri = service_uris.get(parse_endpoint(clean_name(host.get("address"))))
        if service_uri is not None:
            by_uri.setdefault(service_uri, []).append(host)
    return {
        service_uri: _mark_as_listed_elsewhere(_parse_entries(entries, service_uri, max_runners))
        for service_uri, entries in by_uri.items()
    }, ""


def _parse_hosts(body: bytes) -> list[dict[str, Any]]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:  # nesting that is too deep included
        raise UnusableRunnerError("the list of live runners is not JSON") from error
    if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
        raise UnusableRunnerError("the list of live runners is not a list of tables")
    return answer


def _parse_entries(hosts: Iterable[dict[str, Any]], service_uri: str, max_runners: int) -> RunnerListing:
    problems: list[str] = []
    entries: list[Any] = []
    for host in hosts:
        runners = host.get("runners")
        if isinstance(runners, list):
            entries += runners
        elif runners is not None:
            problems.append("runners is not a list")
    if len(entries) > max_runners:
        problems.append(f"{len(entries)} live runners are listed, of which the first {max_runners} are read")
    capabilities: list[Capability] = []
    for entry in entries[:max_runners]:
        try:
            capabilities.append(parse_runner(entry, service_uri))
        except UnusableRunnerError as error:
            problems.append(clean_label(str(error)))
    return RunnerListing(tuple(_best_offers(capabilities)), tuple(problems))


def _mark_as_listed_elsewhere(listing: RunnerListing) -> RunnerListing:
    capabilities = tuple(
        replace(capability, runner=replace(capability.runner, is_listed_elsewhere=True))
        for capability in listing.capabilities
        if capability.runner is not None
    )
    return replace(listing, capabilities=capabilities)


def parse_runner(entry: object, service_uri: str) -> Capability:
    """Return the capability of one listed runner. Raises UnusableRunnerError for what no job can be sent by."""
    if not isinstance(entry, dict):
        raise UnusableRunnerError("a live runner's entry is not a table")
    app = clean_name(entry.get("app"))
    if not app or len(app) > _MAX_APP_CHARS:
        raise UnusableRunnerError("a live runner has no usable app name")
    url = _parse_url(entry.get("url"), app)
    mode = entry.get("mode")
    # A live video pipeline that is started for each stream has no mode; it keeps a session like the persistent ones.
    mode = _PERSISTENT if mode is None and url.endswith("/scope") else mode
    if mode not in _MODES:
        raise UnusableRunnerError(f"{app}: the mode is neither single-shot nor persistent")
    price, unit = _parse_price(entry.get("price_info"), app)
    free, used = _parse_slots(entry)
    gpu = entry.get("gpu")
    model, schema_url = _parse_metadata(entry.get("metadata"))
    return Capability(
        pipeline=app,
        # Results of one app and model are compared, so what the orchestrator lists comes before what the app says.
        model=clean_name(entry.get("version")) or model or DEFAULT_VERSION,
        warm=True,
        capacity=free,
        in_use=used,
        price=price,
        runner=RunnerOffer(
            url=url,
            mode=mode,
            unit=unit,
            gpu=clean_name(gpu.get("name")) if isinstance(gpu, dict) else "",
            schema_url=schema_url,
            is_foreign=not is_same_origin(url, service_uri),
        ),
    )


def _parse_url(value: object, app: str) -> str:
    url = clean_name(value)
    if not is_usable_url(url):
        raise UnusableRunnerError(f"{app}: the URL is not one that a job can be sent to")
    return url.rstrip("/")


def _parse_price(value: object, app: str) -> tuple[Price | None, str]:
    """Return the price with its unit; none where the runner has no price."""
    if value is None:
        return None, ""
    price = value.get("price") if isinstance(value, dict) else None
    # What does not fit into 64 bits comes as a float.
    if type(price) is not int or not 0 <= price <= _MAX_WEI:
        raise UnusableRunnerError(f"{app}: the price is not a whole number of wei below 2**64")
    assert isinstance(value, dict)
    if value.get("currency", "wei") != "wei":
        raise UnusableRunnerError(f"{app}: the price is not in wei")
    return Price(price), clean_name(value.get("unit"))[:40]


def _parse_count(value: object) -> int:
    return min(value, _MAX_COUNT) if type(value) is int and value > 0 else 0


def _parse_slots(entry: dict[str, Any]) -> tuple[int, int]:
    """Return how many slots are free and how many are taken; both 0 where the orchestrator does not say."""
    total, used = _parse_count(entry.get("capacity")), _parse_count(entry.get("capacity_used"))
    available = entry.get("capacity_available")
    free = max(0, total - used) if available is None else _parse_count(available)
    return free, used if free else max(used, total)


def _parse_metadata(metadata: object) -> tuple[str, str]:
    """Return the model that the app names, and where it says that its description is; the latter is never fetched."""
    if not isinstance(metadata, str) or len(metadata) > _MAX_METADATA_CHARS:
        return "", ""
    try:
        content = orjson.loads(metadata)
    except orjson.JSONDecodeError:  # lone surrogates included
        return "", ""
    if not isinstance(content, dict):
        return "", ""
    url = clean_name(content.get("schema_url"))
    return clean_name(content.get("model")), url if url.startswith(("http://", "https://")) else ""


def _best_offers(capabilities: Iterable[Capability]) -> list[Capability]:
    """Return one offer for each app and version: preferably one that can be tested, and has most slots free."""
    best: dict[tuple[str, str], Capability] = {}
    for capability in capabilities:
        key = capability.pipeline, capability.model
        if key not in best or _preference(capability) > _preference(best[key]):
            best[key] = capability
    return [best[key] for key in sorted(best)]


def _preference(capability: Capability) -> tuple[bool, bool, bool, int, str]:
    # The orchestrator lists its runners in random order; the URL decides last, so that ticks are alike.
    runner = capability.runner
    assert runner is not None
    is_single_shot = runner.mode == SINGLE_SHOT
    return not runner.is_foreign, is_single_shot, not capability.is_priced, capability.capacity, runner.url
