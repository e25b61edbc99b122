"""Discovery: which orchestrators offer which pipelines and models, from whatever the gateway can tell."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeGuard

import orjson
import structlog

from jobtester.domain.orchestrators import (
    Capability,
    Orchestrator,
    Price,
    parse_endpoint,
    slug_from_capability,
    slug_from_name,
)
from jobtester.domain.untrusted_text import clean_address, clean_name, clean_prose
from jobtester.errors import DiscoveryError, GatewayError
from jobtester.gateway.client import GatewayClient

log = structlog.get_logger()

NO_ADDRESS = "0x" + "0" * 40
_EXTERNAL = 37
_NETWORK = "/getNetworkCapabilities"
_REGISTERED = "/registeredOrchestrators"
_AI = "/getOrchestratorAICapabilities"
_LONG = re.compile(rb"\d{19}")
_MOST_WEI = 2**256 - 1  # what the chain can carry; whoever asks for more is too dear for everybody


class NoCommonAddressError(DiscoveryError):
    """A gateway's two lists have no address in common, which does not change by asking again."""


Announce = Callable[[Sequence[Orchestrator]], None]


async def discover(
    clients: Sequence[GatewayClient],
    *,
    source: str,
    static: Sequence[Orchestrator] = (),
    patience_s: float = 30.0,
    pause_s: float = 2.0,
    announce: Announce = lambda _candidates: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> list[Orchestrator]:
    """Ask the gateways, in their order, until one tells who is there; merge what is said twice of one target.

    `source` is auto, network, tester or static. An empty answer is asked for again for `patience_s` seconds, since a
    gateway that has just started knows nobody yet. `announce` is called with all candidates before the gateway asks
    each of them for its capabilities (source tester), because it draws them from our webhook. Raises DiscoveryError
    that names every source tried and what it said.
    """
    if source == "static":
        return merge_duplicates(static)
    ways = {
        "network": (_discover_network,),
        "tester": (_discover_tester,),
        "auto": (_discover_network, _discover_tester),
    }[source]
    deadline, is_waiting = now() + patience_s, False
    while True:
        problems, empty, final = [], False, False
        for client in clients:
            for way in ways:
                if not client.cli_url:
                    continue
                try:
                    found = merge_duplicates(await way(client, announce))
                except (GatewayError, DiscoveryError) as error:
                    problems.append(str(error))
                    final = final or isinstance(error, NoCommonAddressError)
                    continue
                if found:
                    return found
                empty = True
        if not any(client.cli_url for client in clients):
            raise DiscoveryError(
                "no gateway has a cli_url, so nobody can be discovered; "
                'set gateways.cli_url, or discovery.source = "static"'
            )
        if now() >= deadline or (final and not empty):
            if empty:
                return []
            kind = NoCommonAddressError if final else DiscoveryError
            raise kind("no gateway tells which orchestrators there are:\n  " + "\n  ".join(problems))
        if not is_waiting:
            is_waiting = True
            log.warning(
                "discovery_waits",
                problem="; ".join(problems) or "the gateway knows no orchestrators yet",
                patience_s=patience_s,
            )
        await sleep(pause_s)


async def _discover_network(client: GatewayClient, announce: Announce) -> list[Orchestrator]:
    status, body = await client.get_cli(_NETWORK, timeout_s=30)
    if status != 200:
        raise DiscoveryError(f"{client.cli_url}{_NETWORK}: {status} {_excerpt(body)}")
    found = await asyncio.to_thread(lambda: list(parse_network_capabilities(_json(client, _NETWORK, body))))
    announce(found)
    return found


async def _discover_tester(client: GatewayClient, announce: Announce) -> list[Orchestrator]:
    status, body = await client.get_cli(_REGISTERED, timeout_s=60)
    if status != 200:
        raise DiscoveryError(f"{client.cli_url}{_REGISTERED}: {status} {_excerpt(body)}")
    known = await asyncio.to_thread(lambda: list(parse_registered(_json(client, _REGISTERED, body))))
    announce(known)
    status, body = await client.get_cli(_AI, timeout_s=120)
    if status != 200:
        raise DiscoveryError(f"{client.cli_url}{_AI}: {status} {_excerpt(body)}")
    answer = await asyncio.to_thread(_json, client, _AI, body)
    found = await asyncio.to_thread(join_capabilities, known, answer)
    told = len(_entries(_table(answer).get("orchestrators")))
    if known and told and not found:
        raise NoCommonAddressError(
            f"{client.cli_url}{_AI}: names {told} orchestrators, none under an address of the {len(known)} that "
            f"{_REGISTERED} names; the orchestrators run without on-chain parameters, or the gateway is off-chain: "
            'use discovery.source = "network" or "static"'
        )
    return found


def parse_network_capabilities(answer: object) -> Iterator[Orchestrator]:
    """Read an answer of getNetworkCapabilities (docs/discovery.md). Entries of no use are left out, not errors."""
    for entry in _entries(_table(answer).get("orchestrators")):
        address = clean_address(entry.get("address"))
        if not address or address == NO_ADDRESS:
            continue
        capabilities = _table(entry.get("capabilities"))
        yield Orchestrator(
            address=address,
            service_uri=clean_name(entry.get("orch_uri")),
            capabilities=(*_batch(entry, capabilities), *_byoc(entry)),
            local_address=clean_address(entry.get("local_address")),
            version=clean_name(capabilities.get("version")),
        )


def parse_registered(answer: object) -> Iterator[Orchestrator]:
    """Read an answer of registeredOrchestrators: the active ones with a service URI, without capabilities."""
    for entry in _entries(answer):
        address, uri = clean_address(entry.get("Address")), clean_name(entry.get("ServiceURI"))
        if address and uri and entry.get("Active") is True:
            yield Orchestrator(address, uri)


def join_capabilities(known: Iterable[Orchestrator], answer: object) -> list[Orchestrator]:
    """Join registered orchestrators with an answer of getOrchestratorAICapabilities by address."""
    offers: dict[str, tuple[Capability, ...]] = {}
    for entry in _entries(_table(answer).get("orchestrators")):
        address = clean_address(entry.get("address"))
        if address and address != NO_ADDRESS:
            offers[address] = (*offers.get(address, ()), *_forked(entry))
    return [
        Orchestrator(one.address, one.service_uri, _unique(offers[one.address]))
        for one in known
        if one.address in offers
    ]


def merge_duplicates(found: Iterable[Orchestrator]) -> list[Orchestrator]:
    """Make one of the entries that mean the same target, keeping the order and every capability once.

    A service URI written in another way is the same as before; the first spelling stands.
    """
    by_target: dict[tuple[str, Hashable], Orchestrator] = {}
    for one in found:
        same = one.address, parse_endpoint(one.service_uri) or one.service_uri
        before = by_target.get(same)
        by_target[same] = Orchestrator(
            one.address,
            before.service_uri if before else one.service_uri,
            _unique((*before.capabilities, *one.capabilities)) if before else _unique(one.capabilities),
            (before.local_address if before else "") or one.local_address,
            (before.version if before else "") or one.version,
        )
    return list(by_target.values())


def _batch(entry: dict[str, Any], capabilities: dict[str, Any]) -> Iterator[Capability]:
    prices = {
        (price.get("capability"), clean_name(price.get("constraint"))): _price(price)
        for price in _entries(entry.get("capabilities_prices"))
        if type(price.get("capability")) is int
    }
    general = _price(_table(entry.get("price_info")))
    for number, constraint in _table(_table(capabilities.get("constraints")).get("PerCapability")).items():
        slug = slug_from_capability(int(number)) if number.isdecimal() and len(number) < 10 else None
        if slug is None:
            continue
        for model, state in _table(_table(constraint).get("models")).items():
            state = _table(state)
            yield Capability(
                pipeline=slug,
                model=clean_name(model),
                warm=state.get("warm") is True,
                capacity=_count(state.get("capacity")),
                in_use=_count(state.get("capacityInUse")),
                price=prices.get((int(number), model)) or prices.get((int(number), "default")) or general,
            )


def _byoc(entry: dict[str, Any]) -> Iterator[Capability]:
    for price in _entries(entry.get("capabilities_prices")):
        name = clean_name(price.get("constraint"))
        if price.get("capability") != _EXTERNAL or not name:
            continue
        for model in _byoc_models(entry, name) or [name]:
            yield Capability(pipeline=name, model=model, byoc=True, warm=True, price=_price(price))


def _byoc_models(entry: dict[str, Any], name: str) -> list[str]:
    """Find the models of an external capability; where nobody names one, its own name serves as the model."""
    options = _table(entry.get("capability_options")).get(name)
    named = [clean_name(option.get("model")) for option in _entries(options)]
    named += [
        clean_name(item.get("model_id")) for item in _entries(entry.get("hardware")) if item.get("pipeline") == name
    ]
    return list(dict.fromkeys(model for model in named if model))


def _forked(entry: dict[str, Any]) -> Iterator[Capability]:
    for pipeline in _entries(entry.get("pipelines")):
        slug = slug_from_name(clean_name(pipeline.get("type")))
        for model in _entries(pipeline.get("models")):
            name = clean_name(model.get("name"))
            if slug and name:
                yield Capability(slug, name, warm=_count(_table(model.get("status")).get("Warm")) > 0)


def _unique(capabilities: Iterable[Capability]) -> tuple[Capability, ...]:
    """Keep each (pipeline, model) once; a warm entry counts before a cold one."""
    best: dict[tuple[str, str], Capability] = {}
    for one in capabilities:
        key = (one.pipeline, one.model)
        if key not in best or (one.warm and not best[key].warm):
            best[key] = one
    return tuple(best.values())


def _price(entry: dict[str, Any]) -> Price | None:
    per_unit, units = entry.get("pricePerUnit"), entry.get("pixelsPerUnit")
    if not _finite(per_unit) or per_unit < 0:
        return None
    return Price(min(int(per_unit), _MOST_WEI), int(units) if _finite(units) and units >= 1 else 1)


def _finite(value: object) -> TypeGuard[int | float]:
    """Tell whether a value is a number at all; JSON's true is an int to Python, and Infinity a float."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _json(client: GatewayClient, path: str, body: bytes) -> object:
    """Parse an answer to the last digit, also prices beyond 64 bits, which the fast parser would round."""
    try:
        if _LONG.search(body) is None:
            return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DiscoveryError(f"{client.cli_url}{path}: the answer is not JSON: {_excerpt(body)}") from error


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _entries(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _count(value: object) -> int:
    return int(value) if _finite(value) and value > 0 else 0


def _excerpt(body: bytes) -> str:
    return clean_prose(body[:120].decode("utf-8", "replace")).strip().replace("\n", " ")
