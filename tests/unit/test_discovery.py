"""Discovery accepts whatever gateways report, and loses nothing that can be tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from jobtester.domain.orchestrators import Capability, Orchestrator, Price, display_name, parse_endpoint, slug_from_name
from jobtester.errors import DiscoveryError
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.discovery import (
    NO_ADDRESS,
    NoCommonAddressError,
    discover,
    join_capabilities,
    merge_duplicates,
    parse_network_capabilities,
    parse_registered,
)
from tests.harness.samples import each_sample


@each_sample("network-capabilities-batch-byoc.json")
def test_the_batch_and_byoc_sample_parses_completely(sample: Path) -> None:
    """Every advertised batch and BYOC capability of the network is found, with price and state."""
    document = json.loads(sample.read_text())
    orchestrators = merge_duplicates(parse_network_capabilities(document))
    targets = {(entry["address"].lower(), entry["orch_uri"]) for entry in document["orchestrators"]}
    assert len(orchestrators) == len(targets)
    offers = {
        (orchestrator.address, capability.pipeline, capability.model)
        for orchestrator in orchestrators
        for capability in orchestrator.capabilities
    }
    expected, expected_prices = set(), set()
    for entry in document["orchestrators"]:
        constraints = ((entry.get("capabilities") or {}).get("constraints") or {}).get("PerCapability") or {}
        for number, constraint in constraints.items():
            for model in constraint["models"]:
                slug = slug_from_name(document["capabilities_names"][number])
                expected.add((entry["address"].lower(), slug, model))
        for price in entry.get("capabilities_prices") or []:
            if price["capability"] == 37:
                model = entry["capability_options"][price["constraint"]][0]["model"]
                expected.add((entry["address"].lower(), price["constraint"], model))
                expected_prices.add(Price(price["pricePerUnit"]))
    assert offers == expected
    prices = {
        capability.price
        for orchestrator in orchestrators
        for capability in orchestrator.capabilities
        if capability.byoc
    }
    assert len(prices) == 3
    assert prices == expected_prices
    assert all(orchestrator.address == orchestrator.address.lower() for orchestrator in orchestrators)


@each_sample("network-capabilities-live.json")
def test_the_live_sample_parses_completely(sample: Path) -> None:
    """Entries that mean the same target are one; different service URIs of one address are several."""
    document = json.loads(sample.read_text())
    orchestrators = merge_duplicates(parse_network_capabilities(document))
    targets = {(entry["address"].lower(), entry["orch_uri"]) for entry in document["orchestrators"]}
    assert len(orchestrators) == len(targets)
    assert any(capability.is_busy for orchestrator in orchestrators for capability in orchestrator.capabilities), (
        "the sample has orchestrators whose every slot is taken"
    )


@pytest.mark.parametrize(
    "response",
    [None, [], "x", 3, {}, {"orchestrators": None}, {"orchestrators": [None, 1, "x", {}]},
     {"orchestrators": [{"address": None, "orch_uri": 3, "capabilities": "x"}]},
     {"orchestrators": [{"address": "0x" + "0" * 40, "orch_uri": "https://a"}]}],
)  # fmt: skip
def test_a_response_without_usable_entries_is_empty(response: object) -> None:
    """Nulls, wrong types and orchestrators without on-chain parameters are skipped."""
    assert list(parse_network_capabilities(response)) == []


def test_null_sections_and_unknown_numbers_do_no_harm() -> None:
    """Missing parts mean zero; capability numbers that are no batch pipeline are not jobs."""
    (orchestrator,) = parse_network_capabilities(
        {
            "orchestrators": [
                {
                    "address": "0xABCDEF0000000000000000000000000000000001",
                    "orch_uri": " https://a:1 ",
                    "capabilities": {"constraints": {"PerCapability": {
                        "27": {"models": {"m": None, "warm": {"warm": True, "capacity": 2}}},
                        "28": None, "29": {"models": None}, "99": {"models": {"x": {}}}, "x": {},
                    }}},
                    "capabilities_prices": None, "hardware": None, "capability_options": None,
                }
            ]
        }
    )  # fmt: skip
    assert orchestrator.service_uri == "https://a:1"
    assert [(c.pipeline, c.model, c.warm, c.capacity) for c in orchestrator.capabilities] == [
        ("text-to-image", "m", False, 0),
        ("text-to-image", "warm", True, 2),
    ]


def test_names_that_are_too_long_are_dropped() -> None:
    """An orchestrator may call its model whatever it likes, but not fill logs, labels and the store with it."""
    long = "m" * 1_001
    models: dict[str, Any] = {long: {}, long[:1_000]: {}}
    (orchestrator,) = parse_network_capabilities(
        {
            "orchestrators": [
                {
                    "address": "0x" + "1" * 40, "orch_uri": f"https://{long}",
                    "capabilities": {"constraints": {"PerCapability": {"27": {"models": models}}}},
                    "capabilities_prices": [{"capability": 37, "constraint": long, "pricePerUnit": 5}],
                }
            ]
        }
    )  # fmt: skip
    assert orchestrator.service_uri == ""
    assert [(c.pipeline, len(c.model)) for c in orchestrator.capabilities] == [
        ("text-to-image", 0),
        ("text-to-image", 1_000),
    ]


def test_byoc_without_a_known_model_uses_its_own_name() -> None:
    """The Leaderboard needs a model; go-livepeer itself takes the capability's name for one."""
    (orchestrator,) = parse_network_capabilities(
        {"orchestrators": [{"address": "0x" + "1" * 40, "orch_uri": "https://a", "capabilities_prices": [
            {"capability": 37, "constraint": "text-reversal", "pricePerUnit": 5, "pixelsPerUnit": 1}]}]}
    )  # fmt: skip
    assert [(c.pipeline, c.model, c.byoc) for c in orchestrator.capabilities] == [
        ("text-reversal", "text-reversal", True)
    ]


def test_registered_is_joined_by_address_whatever_its_case() -> None:
    """Integers beyond 64 bits, inactive ones and empty URIs come with the registry."""
    registry = json.loads(
        '[{"Address":"0x' + "A" * 40 + '","ServiceURI":"https://a","Active":true,"DeactivationRound":' + "9" * 78 + "},"
        '{"Address":"0x'
        + "b" * 40
        + '","ServiceURI":"","Active":true},{"Address":"0x'
        + "c" * 40
        + '","ServiceURI":"https://c","Active":false},'
        '{"Address":"0x' + "d" * 40 + '","ServiceURI":"https://d","Active":true}]'
    )
    registered = list(parse_registered(registry))
    assert [orchestrator.address for orchestrator in registered] == ["0x" + "a" * 40, "0x" + "d" * 40]
    joined = join_capabilities(
        registered,
        {"orchestrators": [
            {"address": "0x" + "Aa" * 20, "pipelines": [
                {"type": "Text to image", "models": [{"name": "m", "status": {"Cold": 0, "Warm": 1}}]},
                {"type": "Large language model", "models": [{"name": "l", "status": {"Cold": 1, "Warm": 0}}]}]},
            {"address": "0x" + "0" * 40, "pipelines": [{"type": "Upscale", "models": [{"name": "u"}]}]}]},
    )  # fmt: skip
    assert [(entry.address, [(c.pipeline, c.model, c.warm) for c in entry.capabilities]) for entry in joined] == [
        ("0x" + "a" * 40, [("text-to-image", "m", True), ("llm", "l", False)])
    ]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://Host.Example:8935/", ("host.example", 8935)),
        ("https://host.example", ("host.example", 443)),
        ("http://host.example/path?x", ("host.example", 80)),
        ("host.example:8935", ("host.example", 8935)),
        ("https://[2001:DB8::1]:8935", ("2001:db8::1", 8935)),
        ("https://host.example.:8935", ("host.example", 8935)),
        ("https://host:99999", None),
        ("https://[::1", None),
        ("", None),
    ],
)
def test_service_uris_compare_by_host_and_port(uri: str, expected: tuple[str, int] | None) -> None:
    """Case, path, slash, default port and IPv6 brackets make no difference."""
    assert parse_endpoint(uri) == expected


def test_names_and_slugs_are_two_forms_of_one() -> None:
    """The Leaderboard gets display names; routes and metrics use slugs."""
    assert display_name("segment-anything-2") == "Segment anything 2"
    assert slug_from_name("Text to image") == "text-to-image"
    assert slug_from_name("Large language model") == slug_from_name("Llm") == "llm"
    assert display_name("byoc") == "byoc"


def test_a_node_that_is_listed_twice_is_tested_once() -> None:
    """However its URI is written the second time, by any gateway; another operator at that place is another."""
    twice = [
        Orchestrator("0xa", "https://o.example:8935/", (Capability("llm", "m"),)),
        Orchestrator("0xa", "https://O.example:8935", (Capability("llm", "m"), Capability("llm", "n"))),
        Orchestrator("0xb", "https://o.example:8935", (Capability("llm", "m"),)),
        Orchestrator("0xa", "http://o.example:8936", (Capability("llm", "m"),)),
        Orchestrator("0xa", "", (Capability("llm", "m"),)),
    ]
    merged = merge_duplicates(twice)
    assert [(entry.address, entry.service_uri, len(entry.capabilities)) for entry in merged] == [
        ("0xa", "https://o.example:8935/", 2),
        ("0xb", "https://o.example:8935", 1),
        ("0xa", "http://o.example:8936", 1),
        ("0xa", "", 1),
    ]


async def test_a_gateway_whose_lists_share_no_address_is_asked_once() -> None:
    """Asking again changes nothing, so the error comes at once and says what to do."""
    asked: list[str] = []

    async def registered(_: web.Request) -> web.Response:
        asked.append("registered")
        return web.json_response(
            [{"Address": "0x" + "aB" * 20, "ServiceURI": "https://one.example:8935", "Active": True}]
        )

    async def offers(_: web.Request) -> web.Response:
        return web.json_response({"orchestrators": [{"address": NO_ADDRESS, "pipelines": []}]})

    async def sleep(_: float) -> None:
        asked.append("pause")

    app = web.Application()
    app.router.add_get("/registeredOrchestrators", registered)
    app.router.add_get("/getOrchestratorAICapabilities", offers)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        client = GatewayClient(name="g", url=url, cli_url=url)
        await client.open()
        try:
            with pytest.raises(NoCommonAddressError, match="none under an address of the 1") as raised:
                await discover([client], source="tester", sleep=sleep)
        finally:
            await client.close()
    assert 'discovery.source = "network" or "static"' in str(raised.value)
    assert asked == ["registered"]


async def test_static_orchestrators_are_merged_as_well() -> None:
    """A table written twice in config.toml does not send each job twice."""
    entry = Orchestrator("0xa", "https://o.example:8935", (Capability("llm", "m"),))
    assert await discover([], source="static", static=[entry, entry]) == [entry]


@pytest.mark.parametrize(
    ("entry", "price"),
    [
        ({"pricePerUnit": 5}, Price(5)),
        ({"pricePerUnit": 5, "pixelsPerUnit": 0}, Price(5)),
        ({"pricePerUnit": 5, "pixelsPerUnit": 3}, Price(5, 3)),
        ({"pricePerUnit": 10**80, "pixelsPerUnit": 1}, Price(2**256 - 1)),
        ({"pricePerUnit": -1}, None),
        ({"pricePerUnit": True}, None),
        ({"pricePerUnit": float("inf")}, None),
        ({"pricePerUnit": "5"}, None),
        ({}, None),
    ],
)
def test_prices_are_numbers_that_fit_256_bits(entry: dict[str, Any], price: Price | None) -> None:
    """Anything else is no price, and costs nobody a job."""
    prices = [{"capability": 37, "constraint": "c", **entry}]
    listed = {"orchestrators": [{"address": "0x" + "1" * 40, "orch_uri": "https://a", "capabilities_prices": prices}]}
    (orchestrator,) = parse_network_capabilities(listed)
    assert [capability.price for capability in orchestrator.capabilities] == [price]


@pytest.mark.parametrize("has_answer", [True, False])
async def test_patience_ends(has_answer: bool) -> None:
    """A gateway that knows nobody is asked until patience ends, and is no error; one that fails is."""
    pauses: list[float] = []

    async def capabilities(_: web.Request) -> web.Response:
        return web.json_response({"orchestrators": []}) if has_answer else web.Response(status=500, text="not yet")

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    app = web.Application()
    app.router.add_get("/getNetworkCapabilities", capabilities)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        client = GatewayClient(name="g", url=url, cli_url=url)
        await client.open()
        asking = discover([client], source="network", patience_s=6.0, pause_s=2.0, sleep=sleep, now=lambda: sum(pauses))
        try:
            if has_answer:
                assert await asking == []
            else:
                with pytest.raises(DiscoveryError, match="500 not yet"):
                    await asking
        finally:
            await client.close()
    assert pauses == [2.0, 2.0, 2.0]
