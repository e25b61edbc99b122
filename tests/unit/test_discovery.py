"""Discovery takes whatever gateways say, and loses nothing that can be tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from jobtester.domain.orchestrators import Capability, Orchestrator, Price, display_name, parse_endpoint, slug_from_name
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

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"


def sample(name: str) -> Any:
    """Read a recorded answer, or skip where the samples are not at hand."""
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"the sample {name} is not at hand")
    return json.loads(path.read_text())


def test_the_batch_and_byoc_sample_parses_completely() -> None:
    """Every advertised batch and BYOC pair of the recorded network is found, with price and state."""
    document = sample("network-capabilities-batch-byoc.json")
    found = merge_duplicates(parse_network_capabilities(document))
    assert len(found) == len({(one["address"].lower(), one["orch_uri"]) for one in document["orchestrators"]})
    pairs = {(one.address, capability.pipeline, capability.model) for one in found for capability in one.capabilities}
    expected = set()
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
    assert pairs == expected
    byoc = [one for orchestrator in found for one in orchestrator.capabilities if one.byoc]
    assert {one.price for one in byoc} == {Price(2500), Price(1000), Price(5000)}
    assert all(one.address == one.address.lower() for one in found)


def test_the_live_sample_parses_completely() -> None:
    """Entries that mean the same target are one; different service URIs of one address are several."""
    document = sample("network-capabilities-live.json")
    found = merge_duplicates(parse_network_capabilities(document))
    assert len(found) == len({(one["address"].lower(), one["orch_uri"]) for one in document["orchestrators"]})
    busy = [c for one in found for c in one.capabilities if c.is_busy]
    assert busy, "the sample has orchestrators whose every slot is taken"


@pytest.mark.parametrize(
    "answer",
    [None, [], "x", 3, {}, {"orchestrators": None}, {"orchestrators": [None, 1, "x", {}]},
     {"orchestrators": [{"address": None, "orch_uri": 3, "capabilities": "x"}]},
     {"orchestrators": [{"address": "0x" + "0" * 40, "orch_uri": "https://a"}]}],
)  # fmt: skip
def test_nothing_usable_is_nobody(answer: object) -> None:
    """Nulls, wrong types and orchestrators without parameters on the chain are passed over."""
    assert list(parse_network_capabilities(answer)) == []


def test_null_sections_and_unknown_numbers_do_no_harm() -> None:
    """Missing parts mean zero; capability numbers that are no batch pipeline are not jobs."""
    (one,) = parse_network_capabilities(
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
    assert one.service_uri == "https://a:1"
    assert [(c.pipeline, c.model, c.warm, c.capacity) for c in one.capabilities] == [
        ("text-to-image", "m", False, 0),
        ("text-to-image", "warm", True, 2),
    ]


def test_names_too_long_to_be_any_are_none() -> None:
    """An orchestrator may call its model whatever it likes, but not fill logs, labels and the store with it."""
    long = "m" * 1_001
    models: dict[str, Any] = {long: {}, long[:1_000]: {}}
    (one,) = parse_network_capabilities(
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
    assert one.service_uri == ""
    assert [(c.pipeline, len(c.model)) for c in one.capabilities] == [("text-to-image", 0), ("text-to-image", 1_000)]


def test_byoc_without_a_known_model_uses_its_own_name() -> None:
    """The Leaderboard needs a model; go-livepeer itself takes the capability's name for one."""
    (one,) = parse_network_capabilities(
        {"orchestrators": [{"address": "0x" + "1" * 40, "orch_uri": "https://a", "capabilities_prices": [
            {"capability": 37, "constraint": "text-reversal", "pricePerUnit": 5, "pixelsPerUnit": 1}]}]}
    )  # fmt: skip
    assert [(c.pipeline, c.model, c.byoc) for c in one.capabilities] == [("text-reversal", "text-reversal", True)]


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
    known = list(parse_registered(registry))
    assert [one.address for one in known] == ["0x" + "a" * 40, "0x" + "d" * 40]
    joined = join_capabilities(
        known,
        {"orchestrators": [
            {"address": "0x" + "Aa" * 20, "pipelines": [
                {"type": "Text to image", "models": [{"name": "m", "status": {"Cold": 0, "Warm": 1}}]},
                {"type": "Large language model", "models": [{"name": "l", "status": {"Cold": 1, "Warm": 0}}]}]},
            {"address": "0x" + "0" * 40, "pipelines": [{"type": "Upscale", "models": [{"name": "u"}]}]}]},
    )  # fmt: skip
    assert [(one.address, [(c.pipeline, c.model, c.warm) for c in one.capabilities]) for one in joined] == [
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


def test_one_node_said_twice_is_tested_once() -> None:
    """However its URI is written the second time, and whoever says so; another operator at that place is another."""
    twice = [
        Orchestrator("0xa", "https://o.example:8935/", (Capability("llm", "m"),)),
        Orchestrator("0xa", "https://O.example:8935", (Capability("llm", "m"), Capability("llm", "n"))),
        Orchestrator("0xb", "https://o.example:8935", (Capability("llm", "m"),)),
        Orchestrator("0xa", "http://o.example:8936", (Capability("llm", "m"),)),
        Orchestrator("0xa", "", (Capability("llm", "m"),)),
    ]
    found = merge_duplicates(twice)
    assert [(one.address, one.service_uri, len(one.capabilities)) for one in found] == [
        ("0xa", "https://o.example:8935/", 2),
        ("0xb", "https://o.example:8935", 1),
        ("0xa", "http://o.example:8936", 1),
        ("0xa", "", 1),
    ]


async def test_a_gateway_whose_lists_share_no_address_is_asked_once() -> None:
    """Asking again changes nothing, so the reason is told at once, and what to do."""
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
    one = Orchestrator("0xa", "https://o.example:8935", (Capability("llm", "m"),))
    assert await discover([], source="static", static=[one, one]) == [one]
