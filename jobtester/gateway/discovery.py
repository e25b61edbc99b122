"""Discover which orchestrators offer which pipelines and models, from what the gateways report."""

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
_EXTERNAL_CAPABILITY = 37
_NETWORK_PATH = "/getNetworkCapabilities"
_REGISTERED_PATH = "/registeredOrchestrators"
_AI_PATH = "/getOrchestratorAICapabilities"
_NETWORK_TIMEOUT_S = 30.0
_REGISTERED_TIMEOUT_S = 60.0  # the gateway reads the registry from the chain
_AI_TIMEOUT_S = 120.0  # the gateway asks every orchestrator
_LONG_NUMBER = re.compile(rb"\d{19}")
_MAX_WEI = 2**256 - 1  # what the chain can carry; a price beyond it is too high for everybody


class NoCommonAddressError(DiscoveryError):
    """A gateway's two lists have no address in common, which asking again does not change."""


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
    """Ask the gateways, in their order, until one reports orchestrators; return each target once.

    Args:
        clients: the gateways; those without a cli_url are skipped.
        source: auto, network, tester or static.
        static: the orchestrators of the configuration.
        patience_s: how many seconds to repeat a question that failed, or that no orchestrator was the answer to, since
            a gateway that has just started knows none yet.
        pause_s: how many seconds to wait in between.
        announce: called with all candidates before the gateway asks each of them for its capabilities (source tester),
            because it takes them from the tester's webhook.
        sleep: as asyncio.sleep().
        now: as time.monotonic().

    Raises:
        DiscoveryError: no source answered; names each that was tried, and what it said.
    """
    if source == "static":
        return merge_duplicates(static)
    # The network's list comes at once. For the endpoint of tester forks the gateway asks every orchestrator first.
    methods = {
        "network": (_discover_network,),
        "tester": (_discover_tester,),
        "auto": (_discover_network, _discover_tester),
    }[source]
    if not any(client.cli_url for client in clients):
        raise DiscoveryError(
            "no gateway has a cli_url, so none can be asked for orchestrators; "
            'set gateways.cli_url, or discovery.source = "static"'
        )
    deadline, is_waiting = now() + patience_s, False
    while True:
        problems, has_empty_answer, is_final = [], False, False
        for client in clients:
            for method in methods if client.cli_url else ():
                try:
                    orchestrators = merge_duplicates(await method(client, announce))
                except (GatewayError, DiscoveryError) as error:
                    problems.append(str(error))
                    is_final = is_final or isinstance(error, NoCommonAddressError)
                    continue
                if orchestrators:
                    return orchestrators
                has_empty_answer = True
        if now() >= deadline or (is_final and not has_empty_answer):
            # An empty list of a gateway that works is not an error: there is nothing to test.
            if has_empty_answer:
                return []
            error_type = NoCommonAddressError if is_final else DiscoveryError
            raise error_type("no gateway reports which orchestrators there are:\n  " + "\n  ".join(problems))
        if not is_waiting:
            is_waiting = True
            log.warning(
                "discovery_waiting",
                problem="; ".join(problems) or "the gateway knows no orchestrators yet",
                patience_s=patience_s,
            )
        await sleep(pause_s)


async def _discover_network(client: GatewayClient, announce: Announce) -> list[Orchestrator]:
    body = await _get(client, _NETWORK_PATH, _NETWORK_TIMEOUT_S)
    orchestrators = await asyncio.to_thread(
        lambda: list(parse_network_capabilities(parse_json(client, _NETWORK_PATH, body)))
    )
    announce(orchestrators)
    return orchestrators


async def _discover_tester(client: GatewayClient, announce: Announce) -> list[Orchestrator]:
    body = await _get(client, _REGISTERED_PATH, _REGISTERED_TIMEOUT_S)
    registered = await asyncio.to_thread(lambda: list(parse_registered(parse_json(client, _REGISTERED_PATH, body))))
    announce(registered)
    body = await _get(client, _AI_PATH, _AI_TIMEOUT_S)
    response = await asyncio.to_thread(parse_json, client, _AI_PATH, body)
    orchestrators = await asyncio.to_thread(join_capabilities, registered, response)
    count = len(_objects(_object(response).get("orchestrators")))
    if registered and count and not orchestrators:
        raise NoCommonAddressError(
            f"{client.cli_url}{_AI_PATH}: names {count} orchestrators, none under an address of the {len(registered)} "
            f"that {_REGISTERED_PATH} names; the orchestrators run without on-chain parameters, or the gateway is "
            'off-chain: use discovery.source = "network" or "static"'
        )
    return orchestrators


async def _get(client: GatewayClient, path: str, timeout_s: float) -> bytes:
    status, body = await client.get_cli(path, timeout_s=timeout_s)
    if status != 200:
        raise DiscoveryError(f"{client.cli_url}{path}: {status} {_excerpt(body)}")
    return body


def parse_network_capabilities(response: object) -> Iterator[Orchestrator]:
    """Parse a response of getNetworkCapabilities (docs/discovery.md). Useless entries are skipped, not errors."""
    for entry in _objects(_object(response).get("orchestrators")):
        address = clean_address(entry.get("address"))
        # Orchestrators without on-chain parameters all have the zero address, so nothing can be charged to one of them.
        if not address or address == NO_ADDRESS:
            continue
        capabilities = _object(entry.get("capabilities"))
        yield Orchestrator(
            address=address,
            service_uri=clean_name(entry.get("orch_uri")),
            capabilities=(*_batch_capabilities(entry, capabilities), *_byoc_capabilities(entry)),
            local_address=clean_address(entry.get("local_address")),
            version=clean_name(capabilities.get("version")),
        )


def parse_registered(response: object) -> Iterator[Orchestrator]:
    """Parse a response of registeredOrchestrators: the active ones with a service URI, without capabilities."""
    for entry in _objects(response):
        address, uri = clean_address(entry.get("Address")), clean_name(entry.get("ServiceURI"))
        if address and uri and entry.get("Active") is True:
            yield Orchestrator(address, uri)


def join_capabilities(registered: Iterable[Orchestrator], response: object) -> list[Orchestrator]:
    """Join registered orchestrators with a response of getOrchestratorAICapabilities by address."""
    offers: dict[str, tuple[Capability, ...]] = {}
    for entry in _objects(_object(response).get("orchestrators")):
        address = clean_address(entry.get("address"))
        if address and address != NO_ADDRESS:
            offers[address] = (*offers.get(address, ()), *_fork_capabilities(entry))
    return [
        Orchestrator(orchestrator.address, orchestrator.service_uri, _merge_capabilities(offers[orchestrator.address]))
        for orchestrator in registered
        if orchestrator.address in offers
    ]


def merge_duplicates(orchestrators: Iterable[Orchestrator]) -> list[Orchestrator]:
    """Merge the entries that mean the same target, in their order and with every capability once.

    Service URIs are compared by host and port; the first spelling stands.
    """
    by_target: dict[tuple[str, Hashable], Orchestrator] = {}
    for entry in orchestrators:
        key = entry.address, parse_endpoint(entry.service_uri) or entry.service_uri
        first = by_target.get(key)
        by_target[key] = Orchestrator(
            entry.address,
            first.service_uri if first else entry.service_uri,
            _merge_capabilities((*first.capabilities, *entry.capabilities) if first else entry.capabilities),
            (first.local_address if first else "") or entry.local_address,
            (first.version if first else "") or entry.version,
        )
    return list(by_target.values())


def _batch_capabilities(entry: dict[str, Any], capabilities: dict[str, Any]) -> Iterator[Capability]:
    prices = {
        (price.get("capability"), clean_name(price.get("constraint"))): _parse_price(price)
        for price in _objects(entry.get("capabilities_prices"))
        if type(price.get("capability")) is int
    }
    general = _parse_price(_object(entry.get("price_info")))
    for number, constraint in _object(_object(capabilities.get("constraints")).get("PerCapability")).items():
        slug = slug_from_capability(int(number)) if number.isdecimal() and len(number) < 10 else None
        if slug is None:
            continue
        for model, state in _object(_object(constraint).get("models")).items():
            state = _object(state)
            yield Capability(
                pipeline=slug,
                model=clean_name(model),
                warm=state.get("warm") is True,
                capacity=_parse_count(state.get("capacity")),
                in_use=_parse_count(state.get("capacityInUse")),
                price=prices.get((int(number), model)) or prices.get((int(number), "default")) or general,
            )


def _byoc_capabilities(entry: dict[str, Any]) -> Iterator[Capability]:
    for price in _objects(entry.get("capabilities_prices")):
        name = clean_name(price.get("constraint"))
        if price.get("capability") != _EXTERNAL_CAPABILITY or not name:
            continue
        options = _objects(_object(entry.get("capability_options")).get(name))
        hardware = [item for item in _objects(entry.get("hardware")) if item.get("pipeline") == name]
        models = [clean_name(option.get("model")) for option in options]
        models += [clean_name(item.get("model_id")) for item in hardware]
        # A job needs a model to be counted under. Where none is named, the capability's own name serves.
        for model in dict.fromkeys(model for model in models if model) or (name,):
            yield Capability(pipeline=name, model=model, byoc=True, warm=True, price=_parse_price(price))


def _fork_capabilities(entry: dict[str, Any]) -> Iterator[Capability]:
    for pipeline in _objects(entry.get("pipelines")):
        slug = slug_from_name(clean_name(pipeline.get("type")))
        for model in _objects(pipeline.get("models")):
            name = clean_name(model.get("name"))
            if slug and name:
                yield Capability(slug, name, warm=_parse_count(_object(model.get("status")).get("Warm")) > 0)


def _merge_capabilities(capabilities: Iterable[Capability]) -> tuple[Capability, ...]:
    """Return each (pipeline, model) once; a warm entry replaces a cold one."""
    best: dict[tuple[str, str], Capability] = {}
    for capability in capabilities:
        key = (capability.pipeline, capability.model)
        if key not in best or (capability.warm and not best[key].warm):
            best[key] = capability
    return tuple(best.values())


def _parse_price(entry: dict[str, Any]) -> Price | None:
    per_unit, units = entry.get("pricePerUnit"), entry.get("pixelsPerUnit")
    if not _is_number(per_unit) or per_unit < 0:
        return None
    return Price(min(int(per_unit), _MAX_WEI), int(units) if _is_number(units) and units >= 1 else 1)


def _is_number(value: object) -> TypeGuard[int | float]:
    """Return True if a value is a finite number; JSON's true is an int to Python, and Infinity a float."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def parse_json(client: GatewayClient, path: str, body: bytes) -> object:
    """Parse a response of the CLI port. Raises DiscoveryError for what is not JSON."""
    # orjson is many times faster, which counts with megabytes, but it rounds integers beyond 64 bits, and prices and
    # stakes may have more. So long numbers, and what orjson does not accept, go to the slow parser.
    try:
        if _LONG_NUMBER.search(body) is None:
            return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DiscoveryError(f"{client.cli_url}{path}: the answer is not JSON: {_excerpt(body)}") from error


# Any value may be missing, null or of another type, since fields come and go with versions of go-livepeer. These return
# something empty then, so that one strange entry does not hide all others.
def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _parse_count(value: object) -> int:
    return int(value) if _is_number(value) and value > 0 else 0


def _excerpt(body: bytes) -> str:
    return clean_prose(body[:120].decode("utf-8", "replace")).strip().replace("\n", " ")
