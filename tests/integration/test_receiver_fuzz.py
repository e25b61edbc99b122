"""Whatever is posted to the receiver causes no internal error, and nothing bad is recorded or forwarded."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.harness.receiver import AI_STAT, ROUTES, TRANSCODING_STAT, ReceivingTester, receiving_tester, sign

pytestmark = pytest.mark.slow

TEXT = st.text(max_size=12) | st.sampled_from(
    ["", " ", "\0", "a\0b", "\ud800", "é" * 600, "x" * 3_000, "FRA", "NYC", "0xAB", "\u202e"]
)
NUMBER = (
    st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.sampled_from([0, 0.5, 1e-300, -1, 86_400, 1e308, 2**63, -(2**63), 10**400])
)
ANY = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ERRORS = st.lists(
    st.fixed_dictionaries({}, optional={"error_code": TEXT, "message": TEXT, "count": NUMBER, "Count": ANY}) | ANY,
    max_size=3,
)
NAMES = sorted({*AI_STAT, *TRANSCODING_STAT})


@st.composite
def stats(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Make the members of a good stat, and spoil some of them, or none."""
    members = list(draw(st.sampled_from([AI_STAT, TRANSCODING_STAT])).items())
    members = [(name, value + draw(st.integers(0, 10**6)) if name == "timestamp" else value) for name, value in members]
    if draw(st.integers(0, 9)) == 0:
        members.pop(draw(st.integers(0, len(members) - 1)))
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(NAMES))
        original = (AI_STAT | TRANSCODING_STAT)[name]
        strategy = TEXT if isinstance(original, str) else ERRORS if isinstance(original, list) else NUMBER
        value = draw(strategy if draw(st.integers(0, 4)) else ANY)
        members.append((draw(st.sampled_from([name, name, name.upper()]) | TEXT), value))
    return members


def write_json(value: Any) -> str:
    """Write JSON, doubled names included, with whatever a lenient writer would write."""
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return "{" + ",".join(f"{json.dumps(name)}:{write_json(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(write_json(item) for item in value) + "]"
    return json.dumps(value)


def mangle(draw: st.DrawFn, raw: bytes) -> bytes:
    """Cut, double, flip or nest a body."""
    signing = draw(st.sampled_from([*([""] * 15), "cut", "flip", "nest", "gap", "twice"]))
    if signing == "cut":
        return raw[: draw(st.integers(0, len(raw)))]
    if signing == "flip" and raw:
        position = draw(st.integers(0, len(raw) - 1))
        return raw[:position] + draw(st.binary(min_size=1, max_size=2)) + raw[position + 1 :]
    if signing == "nest":
        depth = draw(st.sampled_from([1, 3, 900, 5_000, 50_000]))
        return b"[" * depth + raw + b"]" * depth
    if signing == "gap":
        return draw(st.sampled_from([b" \n", b"\xef\xbb\xbf", b"\xff", b"\0"])) + raw
    return raw + raw if signing == "twice" else raw


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str]:
    """Make a body and how it is signed."""
    kind = draw(st.sampled_from([*(["stat"] * 8), "array", "array", "json", "bytes"]))
    if kind == "bytes":
        raw = draw(st.binary(max_size=200))
    else:
        value = draw({"stat": stats(), "array": st.lists(stats(), max_size=4), "json": ANY}[kind])
        raw = mangle(draw, write_json(value).encode("utf-8", "surrogatepass"))
    return raw, draw(st.sampled_from(["right"] * 14 + ["upper", "bearer", "other", "missing", "odd"]))


def authorization(raw: bytes, signing: str) -> dict[str, str]:
    """Sign a body in a right or a wrong way."""
    signature = sign(raw)
    headers = {
        "right": signature,
        "upper": signature.upper(),
        "bearer": f"Bearer {signature}",
        "other": sign(raw, "x"),
        "odd": "ÿ\udcff",
    }
    return {} if signing == "missing" else {"Authorization": headers[signing]}


def find_problem(stat: Any) -> str:
    """Judge a forwarded stat by rules of its own, after the contract and not after the code; empty if it is fit."""
    if not isinstance(stat, dict) or set(stat) - set(AI_STAT) - set(TRANSCODING_STAT):
        return "not a stat"
    ai = bool(stat.get("model")) or bool(stat.get("pipeline"))
    round_trip, orchestrator = stat.get("round_trip_time", math.nan), stat.get("orchestrator", "")
    durations = [stat.get(name, 0) for name in TRANSCODING_STAT if name.endswith(("_time", "duration"))]
    texts = [str(value) for value in stat.values()] + [
        str(value) for error in stat["errors"] or () for value in error.values()
    ]
    rules = {
        "region": isinstance(stat.get("region"), str) and stat["region"].strip() != "",
        "orchestrator": 0 < len(orchestrator) <= 56 and orchestrator == orchestrator.lower() == orchestrator.strip(),
        "time": type(round_trip) in (int, float) and math.isfinite(round_trip) and 0 < round_trip < 86_400,
        "success": type(stat.get("success_rate")) in (int, float) and 0 <= stat["success_rate"] <= 1,
        "model and pipeline": not ai or (stat["model"].strip() != "" and stat["pipeline"].strip() != ""),
        "index": all(len(stat.get(name, "").encode()) <= 2_700 for name in ("model", "pipeline")),
        "NUL": not any("\0" in text for text in texts),
        "text": not any(re.search("[\ud800-\udfff]", text) for text in texts),
        "timestamp": type(stat.get("timestamp")) is int and 0 <= stat["timestamp"] < 2**63,
        "errors": all(
            set(error) == {"error_code", "message", "count"} and type(error["count"]) is int
            and type(error["error_code"]) is type(error["message"]) is str for error in stat["errors"] or ()
        ),
        "warm": type(stat.get("model_is_warm", True)) is bool,
        "durations": all(0 <= value < 86_400 for value in durations),
    }  # fmt: skip
    return ", ".join(name for name, is_met in rules.items() if not is_met)


_posts = itertools.count()


def unique_blanks() -> bytes:
    """Return blanks that no other body ends with."""
    return f"{next(_posts):b}".replace("0", " ").replace("1", "\n").encode()


async def post_cases(receiver: ReceivingTester, cases: list[tuple[bytes, str]]) -> int:
    """Post every case, judge the answers, and return how many stats were accepted."""
    receiver.leaderboard.rows.clear()
    url = f"http://127.0.0.1:{receiver.tester.daemon.port}"
    for number, (body, signing) in enumerate(cases):
        raw = body + unique_blanks()  # else a repeat would not be looked at
        status, _, answer = await receiver.post_to(url + ROUTES[number % 2], raw, authorization(raw, signing))
        assert status in (200, 400, 403), (status, answer, raw[:300])
        assert (status == 403) == (signing != "right"), raw[:300]
        assert answer == b"ok" if status == 200 else list(json.loads(answer)) == ["error"]
    forwarded = await receiver.read_forwarded()
    states = {state: count for state, count in (await receiver.tester.daemon.outbox.counts()).items() if count}
    assert set(states) <= {"delivered"}, "what is taken is delivered once and refused never"
    for body in forwarded:
        assert find_problem(json.loads(body)) == "", body[:500]
    queries: list[dict[str, str]] = [{}, {"job_type": "ai"}, {"job_type": "transcoding"}]
    stats = [row.stat for row in receiver.leaderboard.rows]
    pipeline_models = {(stat["model"], stat["pipeline"]) for stat in stats if "model" in stat}
    queries += [{"model": model, "pipeline": pipeline} for model, pipeline in pipeline_models]
    requests = [("pipelines", {}), *(("aggregated_stats", query) for query in queries)]
    for orchestrator in {stat["orchestrator"] for stat in stats}:
        requests += [("raw_stats", {"orchestrator": orchestrator, "job_type": kind}) for kind in ("ai", "transcoding")]
    for route, query in requests:
        async with receiver.session.get(f"{receiver.leaderboard.url}/api/{route}", params=query) as response:
            assert response.status == 200, (route, query, await response.text())
    return len(forwarded)


CASES, AT_ONCE = 2_400, 20


def test_whatever_is_posted_nothing_bad_is_recorded(tmp_path: Path) -> None:
    """2,400 fuzzed bodies: never a 5xx; what is forwarded is fit, and the Leaderboard's reads never fail over it."""
    posted, forwarded = 0, 0
    with asyncio.Runner() as loop:
        stack = AsyncExitStack()
        receiver = loop.run(stack.enter_async_context(receiving_tester(tmp_path)))
        assert receiver.tester.daemon.delivery is not None
        receiver.leaderboard.regions = (*receiver.leaderboard.regions, ("NYC", "New York", "ai"))
        assert loop.run(receiver.tester.daemon.delivery.region_check.is_usable())

        @seed(20)
        @settings(
            max_examples=CASES // AT_ONCE, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )  # fmt: skip
        @given(st.lists(bodies(), min_size=AT_ONCE, max_size=AT_ONCE))
        def run(cases: list[tuple[bytes, str]]) -> None:
            nonlocal posted, forwarded
            forwarded += loop.run(post_cases(receiver, cases))
            posted += len(cases)

        try:
            run()
        finally:
            loop.run(stack.aclose())
    assert posted >= CASES
    assert forwarded >= CASES // 5, "the fuzzer makes too little that is good"
