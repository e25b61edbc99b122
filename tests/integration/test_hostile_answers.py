"""Discovery, plans, requests and the Leaderboard client survive over twenty thousand hostile documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from jobtester.configuration import Configuration
from jobtester.domain.plan import Selection, make_plan
from jobtester.errors import DiscoveryError, LeaderboardError
from jobtester.gateway import discovery
from jobtester.gateway.client import GatewayClient
from jobtester.leaderboard.client import LeaderboardClient, PostResult
from jobtester.leaderboard.stat_reader import ExpectedRow
from jobtester.pipelines.request import Requests

DOCUMENTS = 16_000
ANSWERS = 6_000
ADDRESS = "0x" + "ab" * 20
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**53, 2**64, -(2**70), 10**300, 1.5, 1e308, float("inf"), float("nan"), "", " ", "0",
    "\ud800", "\udfff\ud800", "\x00", "\x1b[2J", "\n\r", "\u202e", "\u200b", "\ufeff", "\uffff", "é", "a" * 5_000,
    "0x", "0x" + "0" * 40, ADDRESS, ADDRESS.upper(), "https://[::1", "https://a:99999", "javascript:1", "//", "%00",
    "default", "33", "37", "9" * 5_000, "²", "٣", "-1", "1e9", "__proto__", [], {}, [[]], [{}], {"": ""},
)  # fmt: skip
CAPABILITIES: dict[str, Any] = {
    "version": "0.8.9",
    "constraints": {"PerCapability": {
        "33": {"models": {"m": {"warm": True, "capacity": 1, "capacityInUse": 0}, "n": {"warm": False}}},
        "27": {"models": {"m": {"warm": True}}},
    }},
}  # fmt: skip
NETWORK: dict[str, Any] = {
    "orchestrators": [{
        "address": ADDRESS, "local_address": ADDRESS, "orch_uri": "https://a.example:8935",
        "capabilities": CAPABILITIES,
        "price_info": {"pricePerUnit": 1, "pixelsPerUnit": 1},
        "capabilities_prices": [
            {"capability": 33, "constraint": "m", "pricePerUnit": 5, "pixelsPerUnit": 1},
            {"capability": 37, "constraint": "byoc", "pricePerUnit": 5, "pixelsPerUnit": 1},
        ],
        "capability_options": {"byoc": [{"model": "b"}]},
        "hardware": [{"pipeline": "byoc", "model_id": "b"}],
    }] * 2,
}  # fmt: skip
REGISTERED: list[Any] = [{"Address": ADDRESS, "ServiceURI": "https://a.example:8935", "Active": True}] * 2
AI: dict[str, Any] = {
    "orchestrators": [
        {"address": ADDRESS, "pipelines": [{"type": "Llm", "models": [{"name": "m", "status": {"Warm": 1}}]}]}
    ]
}
REGIONS: dict[str, Any] = {"regions": [{"id": "FRA", "name": "Frankfurt", "type": "ai"}]}
ROWS: dict[str, Any] = {"FRA": [{"timestamp": 1, "round_trip_time": 1.5, "region": "FRA", "input_parameters": "{}"}]}


def spoil(value: Any, random: Random, depth: int = 0) -> Any:
    """Return a copy of a document in which some values, keys and shapes are hostile."""
    if random.random() < 0.06:
        return random.choice(SCALARS)
    if depth > 12:
        return value
    if isinstance(value, dict):
        content = {
            str(random.choice(SCALARS)) if random.random() < 0.05 else key: spoil(inner, random, depth + 1)
            for key, inner in value.items()
            if random.random() > 0.03
        }
        if random.random() < 0.03:
            content[str(random.choice(SCALARS))] = random.choice(SCALARS)
        return content
    if isinstance(value, list):
        return [spoil(inner, random, depth + 1) for inner in value] * random.choice((1, 1, 1, 2, 0))
    return value


def write_badly(document: Any, random: Random) -> bytes:
    """Write a document as bytes, which now and then are not JSON, not UTF-8, deep, or cut."""
    body = json.dumps(document, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    match random.randrange(20):
        case 0:
            return body[: random.randrange(len(body) + 1)]
        case 1:
            return b"[" * 100_000
        case 2:
            return random.randbytes(random.randrange(200))
        case 3:
            return b"\xef\xbb\xbf" + body
    return body


def test_hostile_discovery_documents() -> None:
    """Each is parsed, planned and made into requests that can be sent, or refused with a DiscoveryError."""
    random = Random(1)
    loaded = Configuration.from_tables(
        {"region": "FRA", "leaderboard": {"post": False}, "gateways": [{"name": "g", "url": "http://127.0.0.1:1"}]},
        origin="test",
    )
    client = GatewayClient("g", "http://127.0.0.1:1", cli_url="http://127.0.0.1:2")
    refused = planned = 0
    for number in range(DOCUMENTS):
        try:
            if number % 2:
                orchestrators = list(
                    discovery.parse_network_capabilities(
                        discovery.parse_json(client, "/", write_badly(spoil(NETWORK, random), random))
                    )
                )
            else:
                registered = discovery.parse_registered(
                    discovery.parse_json(client, "/", write_badly(spoil(REGISTERED, random), random))
                )
                response = discovery.parse_json(client, "/", write_badly(spoil(AI, random), random))
                orchestrators = discovery.join_capabilities(list(registered), response)
        except DiscoveryError as error:
            str(error).encode()
            refused += 1
            continue
        plan = make_plan(
            discovery.merge_duplicates(orchestrators),
            loaded.catalogue,
            Selection(),
            tick="t",
            seed=number,
            new_id=lambda: "id",
        )
        requests = Requests(loaded.catalogue, loaded.assets, 1)
        for job in plan.jobs:
            orjson.dumps([job.model, job.pipeline, *job.target, job.orchestrator.version])
            if job.pipeline == "llm":
                assert requests.build(loaded.catalogue[job.pipeline], job.model).body
            planned += 1
        for skip in plan.skipped:
            orjson.dumps([skip.orchestrator, skip.service_uri, skip.pipeline, skip.model, skip.reason])
    assert refused > DOCUMENTS // 50
    assert planned > DOCUMENTS // 2


@asynccontextmanager
async def hostile_server(random: Random) -> AsyncIterator[str]:
    """Yield the address of a server whose every answer is hostile, down to its status line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"post_stats" in head:
                body = random.choice((b"ok", b"", b"\xff" * 100, b"a" * 100_000, write_badly({"error": "x"}, random)))
            else:
                body = write_badly(spoil(REGIONS if b"regions" in head else ROWS, random), random)
            status = random.choice((200, 200, 200, 201, 204, 302, 400, 403, 404, 429, 500, 503, 999))
            length = random.choice((len(body),) * 8 + (0, len(body) + 1, -1))
            extra = random.choice(("", "Retry-After: \x7f", "Retry-After: 1e999", "Date: x", "Content-Encoding: gzip"))
            start = random.choice((f"HTTP/1.1 {status} x",) * 20 + ("", "HTTP/9.9 x", "\x00" * 9))
            writer.write(f"{start}\r\nContent-Length: {length}\r\nConnection: close\r\n{extra}\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.slow
async def test_hostile_answers_of_a_leaderboard(tmp_path: Path) -> None:
    """A post always has a result, and what cannot be parsed is a LeaderboardError; nothing else is raised."""
    del tmp_path
    random = Random(2)
    expected = ExpectedRow("0x1", "p", "m", "FRA", 1, 1.5, "j")
    async with hostile_server(random) as url, LeaderboardClient(url, "s", timeout_s=5.0) as client:

        async def ask(number: int) -> None:
            try:
                if number % 3 == 0:
                    (await client.post(b"{}")).problem.encode()
                elif number % 3 == 1:
                    orjson.dumps(sorted(await client.get_regions()))
                else:
                    sum(expected.matches(row) for row in await client.get_rows("0x1", since=0.0))
            except LeaderboardError as error:
                str(error).encode()

        for start in range(0, ANSWERS, 20):
            await asyncio.gather(*(ask(number) for number in range(start, start + 20)))


async def test_a_post_that_is_answered_with_a_large_page_is_uncertain() -> None:
    """A captive portal sends more than any Leaderboard does."""

    async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\nConnection: close\r\n\r\n" + b"a" * 200_000)
        writer.close()

    async with await asyncio.start_server(portal, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with LeaderboardClient(url, "s") as client:
            assert (await client.post(b"{}")).result is PostResult.UNCERTAIN
