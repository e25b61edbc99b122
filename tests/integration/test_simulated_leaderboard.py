"""The Leaderboard's double keeps rows as a database does, and fails as its settings ask."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.leaderboard.leaderboard import Leaderboard
from jobtester.simulator.leaderboard.rows import Row, RowsFile
from jobtester.simulator.network import Network

BODY = b'{"region":"FRA","orchestrator":"0x1","model":"m","pipeline":"Llm","success_rate":1,"round_trip_time":0.1}'


async def post(leaderboard: Leaderboard) -> tuple[int, str]:
    """Post one stat."""
    headers = {"Authorization": leaderboard.sign(BODY)}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{leaderboard.url}/api/post_stats", data=BODY, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_rows_survive_the_process(tmp_path: Path) -> None:
    """What was answered with `ok` is there for the next one that opens the file, byte for byte."""
    path = tmp_path / "rows.jsonl"
    async with Leaderboard(rows_path=path) as leaderboard:
        assert [await post(leaderboard) for _ in range(3)] == [(200, "ok")] * 3
        await leaderboard.stop()
        await leaderboard.start()
        assert await post(leaderboard) == (200, "ok")
        rows = list(leaderboard.rows)
    assert Leaderboard(rows_path=path).rows == rows
    assert [row.body for row in rows] == [BODY] * 4


def test_a_row_that_was_only_begun_was_never_stored(tmp_path: Path) -> None:
    """A process that is killed while it writes leaves a whole file: what comes later is not spoilt."""
    path = tmp_path / "rows.jsonl"
    file = RowsFile(path)
    assert file.load() == []
    first, second = Row(1, 1.5, {"model": "a"}, b"\xff\x00"), Row(2, 2.5, {"model": "ü"}, b"b")
    file.append(first)
    whole = path.read_bytes()
    file.append(second)
    path.write_bytes(path.read_bytes()[:-5])
    assert file.load() == [first]
    assert path.read_bytes() == whole
    file.append(second)
    assert file.load() == [first, second]


async def test_500_although_it_was_stored() -> None:
    """The answer goes on with `ok`, as the real one's does, and the row is there."""
    async with Leaderboard() as leaderboard:
        leaderboard.faults.fail_after_store = 1.0
        status, text = await post(leaderboard)
        assert (status, text.endswith("ok"), len(leaderboard.rows)) == (500, True, 1)


async def test_the_control_port_steers_it() -> None:
    """Faults are set as a whole and checked; it stops and starts with its rows; moments of a post can be waited for."""
    async with Network(generate(seed=1, orchestrators=1)) as network, aiohttp.ClientSession() as session:
        leaderboard = network.leaderboard

        async def ask(method: str, path: str, **options: Any) -> tuple[int, Any]:
            async with session.request(method, f"{network.control_url}/leaderboard/{path}", **options) as answer:
                return answer.status, await answer.json()

        faults = {"slow_answer_s": 30, "gone_regions": ["LAX"]}
        assert await ask("PUT", "faults", json=faults) == (200, {})
        assert (leaderboard.faults.slow_answer_s, leaderboard.faults.gone_regions) == (30.0, {"LAX"})
        waiting = asyncio.ensure_future(ask("GET", "next/stored"))
        posting = asyncio.ensure_future(post(leaderboard))
        assert await waiting == (200, {"moment": "stored"})
        assert len(leaderboard.rows) == 1
        assert not posting.done(), "stored, and not answered"
        assert await ask("POST", "stop") == (200, {"rows": 1})
        with pytest.raises(aiohttp.ClientError):
            await posting
        assert await ask("POST", "start") == (200, {"rows": 1})
        assert await ask("PUT", "faults", json={}) == (200, {})
        assert await post(leaderboard) == (200, "ok")
        refused: tuple[object, ...] = (
            {"slow": 1},
            {"slow_insert_s": "1"},
            {"status": True},
            {"database_down": "yes"},
            [],
            7,
        )
        for wrong in refused:
            status, answer = await ask("PUT", "faults", json=wrong)
            assert status == 400, (wrong, answer)
        assert (await ask("GET", "next/stored?count=x"))[0] == 400
