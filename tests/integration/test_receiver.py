"""The receiver accepts other testers' results as the Leaderboard would, but nothing that would break its reads."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.harness.metrics import without_region
from tests.harness.receiver import (
    AI_STAT,
    ROUTES,
    SCENARIO,
    SECRET,
    TRANSCODING_STAT,
    ReceivingTester,
    receiving_tester,
    sign,
)
from tests.harness.simulated import simulated_tester


async def test_ai_and_transcoding_stats_arrive_once(tmp_path: Path) -> None:
    """One object, and an array of both kinds, at either route: recorded, counted, forwarded unchanged."""
    async with receiving_tester(tmp_path) as receiver:
        other = AI_STAT | {"round_trip_time": 1.5, "success_rate": 0, "errors": [{"error_code": "503", "message": "x"}]}
        assert await receiver.post(AI_STAT) == (200, "text/plain; charset=utf-8", b"ok")
        assert await receiver.post([TRANSCODING_STAT, other], route=ROUTES[1]) == (
            200,
            "text/plain; charset=utf-8",
            b"ok",
        )
        rows = [json.loads(body) for body in await receiver.read_forwarded()]
        sent = [
            AI_STAT,
            TRANSCODING_STAT | {"errors": [{"error_code": "timeout", "message": "", "count": 1}]},
            other | {"errors": [{"error_code": "503", "message": "x", "count": 0}]},
        ]
        assert sorted(rows, key=str) == sorted(sent, key=str)
        received_results = await receiver.read_received()
        assert [(result["source"], result["kind"], result["state"]) for result in received_results] == [
            ("127.0.0.1", kind, "delivered") for kind in ("ai", "transcoding", "ai")
        ]  # fmt: skip
        assert [result["stat"] for result in received_results] == sent[::-1]
        assert receiver.received_count("accepted") == 3
        async with receiver.session.get(f"http://127.0.0.1:{receiver.tester.daemon.port}/metrics") as answer:
            assert 'jobtester_results_received_total{outcome="accepted"} 3.0' in without_region(await answer.text())
        async with receiver.session.get(f"http://127.0.0.1:{receiver.tester.daemon.port}/outbox") as answer:
            assert "Results of other testers" in await answer.text()


async def test_a_repeat_within_a_day_is_ok_and_not_counted(tmp_path: Path) -> None:
    """The same bytes, at once, many at a time, and after a restart; after a day they count again."""
    async with receiving_tester(tmp_path) as receiver:
        answers = await asyncio.gather(*(receiver.post(AI_STAT, route=ROUTES[number % 2]) for number in range(12)))
        assert {answer[::2] for answer in answers} == {(200, b"ok")}
        assert (len(await receiver.read_forwarded()), len(await receiver.read_received())) == (1, 1)
        assert (receiver.received_count("accepted"), receiver.received_count("repeated")) == (1, 11)
        assert (await receiver.post(orjson.dumps(AI_STAT) + b"\n"))[0] == 200, "other bytes are another result"
        assert len(await receiver.read_forwarded()) == 2
    async with receiving_tester(tmp_path) as receiver:
        assert (await receiver.post(AI_STAT))[0] == 200
        assert (len(await receiver.read_forwarded()), len(await receiver.read_received())) == (0, 2)
        before = (time.time() - 86_401,)
        await receiver.tester.daemon.database.write(
            lambda db: db.execute("UPDATE received SET received_at = ?", before)
        )
        assert (await receiver.post(AI_STAT))[0] == 200
        assert (len(await receiver.read_forwarded()), len(await receiver.read_received())) == (1, 3)


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (b'{"region":"FRA"}', "03cc7d3cab3eed2463a60e91fa6a0cb75092594b86b17963a2292236f8089f92"),
        (b'{"region":"FRA"}\n', "c079e107a0c6cb62df6ec2e30144af134ec40dff53e071a24147e2d5ba76cbd7"),
        (b"", "883a1369fa89dbc40b32496dbec4174276f9899e88cdfdbf1b6327c2ebc7ffcb"),
    ],
)
async def test_the_signature_is_over_the_raw_body(body: bytes, signature: str, tmp_path: Path) -> None:
    """The Leaderboard's own vectors get past the check; any other form of the header is a 403 with its body."""
    async with receiving_tester(tmp_path) as receiver:
        receiver.leaderboard.secret = SECRET
        refusal = (403, "application/json", b'{"error":"request can not be authenticated"}')
        for route in ROUTES:
            assert (await receiver.post(body, route=route, auth=signature))[0] == 400
            assert (await receiver.post(body, route=route, auth=f"  {signature} "))[0] == 400
            for wrong in (
                signature.upper(),
                f"Bearer {signature}",
                f"sha256={signature}",
                signature[:-1],
                "ÿ" * 64,
                sign(body, "x"),
                None,
            ):
                assert await receiver.post(body, route=route, auth=wrong) == refusal, wrong
        theirs = await receiver.post_to(
            receiver.leaderboard.url + "/api/post_stats", body, {"Authorization": signature.upper()}
        )
        assert (theirs[0], json.loads(theirs[2])) == (403, json.loads(refusal[2]))
        assert receiver.received_count("accepted") == 0
        assert await receiver.read_received() == []


async def test_what_is_compressed_is_not_unpacked(tmp_path: Path) -> None:
    """As at the Leaderboard: a signed gzip body is no JSON."""
    async with receiving_tester(tmp_path) as receiver:
        raw = gzip.compress(orjson.dumps(AI_STAT))
        headers = {"Authorization": sign(raw), "Content-Encoding": "gzip"}
        url = f"http://127.0.0.1:{receiver.tester.daemon.port}{ROUTES[1]}"
        for endpoint in (url, receiver.leaderboard.url + "/api/post_stats"):
            receiver.leaderboard.secret = SECRET
            assert (await receiver.post_to(endpoint, raw, headers))[0] == 400


async def test_without_a_secret_it_is_off_and_names_the_setting(tmp_path: Path) -> None:
    """404 with the key to set, whatever is sent."""
    async with receiving_tester(tmp_path, server={}) as receiver:
        for route in ROUTES:
            status, _, body = await receiver.post(AI_STAT, route=route)
            assert status == 404
            assert "server.results_secret" in json.loads(body)["error"]
        assert await receiver.read_forwarded() == []


async def test_too_much_is_refused_and_not_read(tmp_path: Path) -> None:
    """413 beyond 4 MiB, announced or not; a megabyte passes."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    async with receiving_tester(tmp_path) as receiver:
        assert (await receiver.post(AI_STAT | {"response_payload": "x" * 2**20}))[0] == 200
        status, _, body = await receiver.post(b" " * (4 * 2**20 + 1))
        assert (status, "larger" in json.loads(body)["error"]) == (413, True)
        url = f"http://127.0.0.1:{receiver.tester.daemon.port}{ROUTES[0]}"
        try:
            async with receiver.session.post(url, data=endless(), headers={"Authorization": "x"}) as answer:
                assert answer.status == 413
        except aiohttp.ClientOSError:
            pass  # it hung up while we were still sending, which is as good
        assert len(await receiver.read_forwarded()) == 1
        assert receiver.received_count("refused") == 2


async def test_one_source_cannot_take_all(tmp_path: Path) -> None:
    """6,000 posts a minute from one address, then 429; another address goes on."""
    async with receiving_tester(tmp_path) as receiver:
        request = b"POST /api/post_stats HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.tester.daemon.port)
        statuses: list[bytes] = []
        for _ in range(61):
            writer.write(request * 100)
            await writer.drain()
            answers = b""
            while answers.count(b"HTTP/1.1 ") < 100 or not answers.endswith(b"}"):
                answers += await reader.read(2**16)
            statuses += re.findall(rb"HTTP/1.1 (\d+)", answers)
        writer.close()
        assert statuses[:6_000] == [b"403"] * 6_000
        assert statuses[6_000:] == [b"429"] * 100
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))) as session,
            session.post(f"http://127.0.0.1:{receiver.tester.daemon.port}{ROUTES[1]}", data=b"") as answer,
        ):
            assert answer.status == 403


# What both refuse, and how the Leaderboard answers it: status by status the receiver does the same.
ALIKE: list[tuple[str, bytes]] = [
    ("no region", orjson.dumps(AI_STAT | {"region": ""})),
    ("unknown region", orjson.dumps(AI_STAT | {"region": "ZZZ"})),
    ("region in lower case", orjson.dumps(AI_STAT | {"region": "fra"})),
    ("null", b"null"),
    ("empty", b""),
    ("cut", orjson.dumps(AI_STAT)[:-5]),
    ("text after it", orjson.dumps(AI_STAT) + b"x"),
    ("BOM", b"\xef\xbb\xbf" + orjson.dumps(AI_STAT)),
    ("string", b'"text"'),
    ("NaN", orjson.dumps(AI_STAT).replace(b"2.345678901234567", b"NaN")),
    ("too large a number", orjson.dumps(AI_STAT).replace(b"2.345678901234567", b"1e400")),
    ("time as text", orjson.dumps(AI_STAT | {"round_trip_time": "2"})),
    ("timestamp with a point", orjson.dumps(AI_STAT | {"timestamp": 1.5})),
    ("timestamp beyond int64", orjson.dumps(AI_STAT | {"timestamp": 2**63})),
    ("warm as text", orjson.dumps(AI_STAT | {"model_is_warm": "true"})),
    ("inputs as an object", orjson.dumps(AI_STAT | {"input_parameters": {}})),
    ("error code as a number", orjson.dumps(AI_STAT | {"errors": [{"error_code": 503}]})),
    ("errors as text", orjson.dumps(AI_STAT | {"errors": "none"})),
    ("a doubled name of a wrong type", b'{"timestamp": "x", ' + orjson.dumps(AI_STAT)[1:]),
    ("deep", orjson.dumps(AI_STAT)[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
]


@pytest.mark.parametrize(("name", "body"), ALIKE, ids=[name for name, _ in ALIKE])
async def test_it_refuses_what_the_leaderboard_refuses(name: str, body: bytes, tmp_path: Path) -> None:
    """The same status for the same body, at the double and here; nothing is recorded."""
    async with receiving_tester(tmp_path) as receiver:
        receiver.leaderboard.secret = SECRET
        theirs = await receiver.post_to(
            receiver.leaderboard.url + "/api/post_stats", body, {"Authorization": sign(body)}
        )
        assert (
            (await receiver.tester.daemon.delivery.region_check.is_usable())
            if receiver.tester.daemon.delivery
            else False
        )
        ours = await receiver.post(body, route=ROUTES[1])
        assert (ours[0], ours[1]) == (theirs[0], "application/json") == (400, "application/json"), name
        assert list(json.loads(ours[2])) == ["error"]
        if "region" in name:
            assert json.loads(ours[2]) == json.loads(theirs[2]) == {"error": "invalid region"}
        assert await receiver.read_received() == []


# What the Leaderboard takes, and what then breaks or poisons its reads: refused here.
BREAKING: list[tuple[str, dict[str, Any]]] = [
    ("zero time", AI_STAT | {"round_trip_time": 0}),
    ("no time", {key: value for key, value in AI_STAT.items() if key != "round_trip_time"}),
    ("negative time", AI_STAT | {"round_trip_time": -1}),
    ("absurd time", AI_STAT | {"round_trip_time": 1e300}),
    ("a day", AI_STAT | {"round_trip_time": 86_400}),
    ("absurd segments", TRANSCODING_STAT | {"seg_duration": 1e308}),
    ("absurd upload", TRANSCODING_STAT | {"upload_time": 86_400}),
    ("pipeline alone", AI_STAT | {"model": ""}),
    ("model alone", {key: value for key, value in AI_STAT.items() if key != "pipeline"}),
    ("blank model", AI_STAT | {"model": " \t"}),
    ("success in percent", AI_STAT | {"success_rate": 100}),
    ("negative success", AI_STAT | {"success_rate": -0.5}),
    ("no orchestrator", AI_STAT | {"orchestrator": ""}),
    ("blank orchestrator", AI_STAT | {"orchestrator": "   "}),
    ("long orchestrator", AI_STAT | {"orchestrator": "0x" + "a" * 55}),
    ("NUL", AI_STAT | {"response_payload": "a\0b"}),
    ("NUL in an error", AI_STAT | {"errors": [{"message": "\0"}]}),
    ("long model", AI_STAT | {"model": "m" * 3_000}),
    ("long pipeline", AI_STAT | {"pipeline": "ü" * 600}),
    ("a bad one among good ones", {"array": [AI_STAT, AI_STAT | {"round_trip_time": 0}]}),
]


@pytest.mark.parametrize(("name", "stat"), BREAKING, ids=[name for name, _ in BREAKING])
async def test_it_refuses_what_breaks_reads_for_everybody(name: str, stat: dict[str, Any], tmp_path: Path) -> None:
    """400 with the field's name, and nothing of it is recorded or forwarded."""
    async with receiving_tester(tmp_path) as receiver:
        status, _, body = await receiver.post(stat.get("array", stat))
        assert status == 400, name
        assert json.loads(body)["error"]
        assert (await receiver.read_forwarded(), await receiver.read_received()) == ([], [])
        assert receiver.received_count("refused") == 1


async def test_names_are_read_as_gos_decoder_reads_them(tmp_path: Path) -> None:
    """Any case, unknown ones dropped, null is nothing, the last of doubled ones wins, broken text is replaced."""
    raw = (
        b'{"Region":"LAX","region":"FRA","REGION":null,"ORCHESTRATOR":" 0xABCDEF0000000000000000000000000000000001 ",'
        b'"success_rate":0,"SUCCESS_RATE":1,"success_rate":0,"Success_Rate":1,"round_trip_time":9,"round_trip_time":2.5,'
        b'"Timestamp":1700000000,"model":"m","pipeline":"Llm","unknown":{"a":[1,2]},"model":null,"errors":[null,{"COUNT":2}],'
        b'"response_payload":"a\xffb\\ud800c\\ud83e\\udd8a"}'
    )
    async with receiving_tester(tmp_path) as receiver:
        assert (await receiver.post(raw))[0] == 200
        (body,) = await receiver.read_forwarded()
        assert json.loads(body) == {
            "region": "FRA", "orchestrator": "0xabcdef0000000000000000000000000000000001", "success_rate": 1,
            "round_trip_time": 2.5, "timestamp": 1700000000, "model": "m", "pipeline": "Llm",
            "errors": [{"error_code": "", "message": "", "count": 0}, {"error_code": "", "message": "", "count": 2}],
            "response_payload": "a\ufffdb\ufffdc🦊",
        }  # fmt: skip
        receiver.leaderboard.secret = SECRET
        assert (
            await receiver.post_to(receiver.leaderboard.url + "/api/post_stats", raw, {"Authorization": sign(raw)})
        )[0] == 200
        ours, theirs = (row.stat for row in receiver.leaderboard.rows)
        assert ours | {"orchestrator": ""} == theirs | {"orchestrator": ""}


ERRORS: list[tuple[bytes, Any]] = [
    (b"", None),
    (b'"errors":null', None),
    (b'"errors":[]', []),
    (b'"errors":[{"count":2}],"errors":null', None),
    (b'"errors":null,"errors":[{"count":2}]', [{"error_code": "", "count": 2}]),
    (b'"errors":[{"error_code":"503","message":"m","count":1}],"ERRORS":[{"count":7}]',
     [{"error_code": "503", "message": "m", "count": 7}]),
    (b'"errors":[{"count":1},{"error_code":"b","count":2}],"errors":[{"error_code":"a"}]',
     [{"error_code": "a", "count": 1}]),
    (b'"errors":[{"count":1},{"error_code":"b","count":2}],"errors":[null],"errors":[null,{"count":9}]',
     [{"error_code": "", "count": 1}, {"error_code": "b", "count": 9}]),
    (b'"errors":[{"count":1}],"errors":[],"errors":[{"error_code":"z"}]', [{"error_code": "z", "count": 0}]),
    ('"error\u017f":[{"me\u017f\u017fage":"x","error_code":"503","count":1}]'.encode(),
     [{"error_code": "503", "message": "x", "count": 1}]),
]  # fmt: skip


async def store_both_ways(receiver: ReceivingTester, raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a stat as it is stored after the tester forwarded it, and as it is stored when posted directly."""
    assert (await receiver.post(raw))[0] == 200
    await receiver.read_forwarded()
    receiver.leaderboard.secret = SECRET
    assert (await receiver.post_to(receiver.leaderboard.url + "/api/post_stats", raw, {"Authorization": sign(raw)}))[
        0
    ] == 200
    forwarded, direct = (row.stat for row in receiver.leaderboard.rows)
    return forwarded, direct


@pytest.mark.parametrize(("errors", "stored"), ERRORS)
async def test_errors_are_stored_as_the_leaderboard_itself_would(errors: bytes, stored: Any, tmp_path: Path) -> None:
    """`null` stays `null`; lists under one name merge element by element, as Go decodes into what is already there."""
    stat = {key: value for key, value in AI_STAT.items() if key != "errors"}
    raw = orjson.dumps(stat)[:-1] + (b"," + errors if errors else b"") + b"}"
    async with receiving_tester(tmp_path) as receiver:
        ours, theirs = await store_both_ways(receiver, raw)
        assert ours["errors"] == theirs["errors"] == stored


async def test_odd_unicode_is_read_as_go_reads_it(tmp_path: Path) -> None:
    """Names fold rune by rune (`ſ` is `s`, `ß` is not `ss`), and each broken byte is replaced by itself."""
    stat = {
        key: value for key, value in AI_STAT.items() if key not in ("timestamp", "success_rate", "response_payload")
    }
    raw = orjson.dumps(stat)[:-1] + (
        ',"time\u017ftamp":1700000007,"\u017fUCCE\u017f\u017f_rate":0,"succeß_rate":1,"timeſtamp":1700000008,'
        '"\ufb01":3,"response_payload":"'.encode()
        + b"a\xe2\x82b\xf0\x9f\x98c\xed\xa0\x80d\xff"
        + b'"}'
    )
    async with receiving_tester(tmp_path) as receiver:
        ours, theirs = await store_both_ways(receiver, raw)
        assert ours == theirs
        assert (ours["timestamp"], ours["success_rate"]) == (1700000008, 0)
        two, three = "\ufffd" * 2, "\ufffd" * 3
        assert ours["response_payload"] == f"a{two}b{three}c{three}d\ufffd"


async def test_a_region_nobody_keeps_is_shown_and_not_lost(tmp_path: Path) -> None:
    """The Leaderboard would drop an AI stat for a transcoding region without a word; here it is refused and shown."""
    async with receiving_tester(tmp_path) as receiver:
        assert (await receiver.post(AI_STAT | {"region": "SIN"}))[0] == 200
        assert await receiver.read_forwarded() == []
        (received_results,) = await receiver.read_received()
        assert received_results["state"] == "refused"
        (entry,) = await receiver.tester.daemon.outbox.entries(("refused",))
        assert "SIN" in entry.problem
        assert receiver.leaderboard.posts["silently_dropped"] == 0


async def test_it_answers_though_the_leaderboard_is_away(tmp_path: Path) -> None:
    """Accepted results wait in the outbox, and arrive once when the Leaderboard has recovered."""
    async with receiving_tester(tmp_path) as receiver:
        await receiver.leaderboard.stop()
        for number in range(5):
            assert (await receiver.post(AI_STAT | {"timestamp": number}))[0] == 200
        assert {result["state"] for result in await receiver.read_received()} == {"pending"}
        await receiver.leaderboard.start()
        assert sorted(json.loads(body)["timestamp"] for body in await receiver.read_forwarded()) == [0, 1, 2, 3, 4]


async def test_a_tester_that_posts_nothing_accepts_nothing(tmp_path: Path) -> None:
    """It could not forward them, and its answer explains that."""
    async with (
        simulated_tester(SCENARIO, tmp_path, server={"results_secret": SECRET}, leaderboard={"post": False}) as tester,
        aiohttp.ClientSession() as session,
    ):
        status, _, body = await ReceivingTester(tester, session).post(AI_STAT)
        assert status == 503
        assert "posts nothing" in json.loads(body)["error"]
