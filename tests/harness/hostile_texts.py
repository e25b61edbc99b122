"""Texts from outside that a page, a log or a terminal could take for something else, and a tester full of them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.external_results import ExternalResult
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.reasons import Note, Outcome, Verdict
from jobtester.domain.results import Result
from jobtester.domain.stats import Stat
from jobtester.domain.tick_report import TickReport
from jobtester.simulator.generated_scenario import generate
from jobtester.store.outbox import StateChange
from jobtester.store.ticks import Ticks
from tests.harness.simulated import SimulatedTester, simulated_tester

TICK = "20260101T000000000Z"
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": "\"' onmouseover=alert(1) x='\"><img src=x onerror=alert(1)>",
    "close": "</pre></title></style></svg>--><svg/onload=alert(1)>",
    "template": "{{ 1234567 * 7 }}{% raw %}${1234567*7}",
    "link": "javascript:alert(1)//../../?a=b#c",
    "nul": "nul\x00bell\x07escape\x1b[31m",
    "direction": "\u202egnp.exe\u2066\u200f",
    "emoji": "🦊 \U0001f469\u200d\U0001f4bb ﷽ e\u0301",
    "entity": "&lt;b&gt;&amp;#60;script&#62;",
    "newline": "a\r\nSet-Cookie: x=1\r\n\r\n<b>",
    "long": "<i>" + "ab<" * 33_333,
}
MARKED = {name: f"«{name}»{text}«end»" for name, text in HOSTILE.items()}


def hostile_result(number: int, text: str) -> Result:
    """Return a result in which everything from outside is hostile."""
    address = f"0x{number:040x}"
    uri = f"https://{text[:2000]}"
    capability = Capability(pipeline=text[:3000], model=text, warm=True)
    job = Job(
        id=f"{TICK}-{number}",
        tick=TICK,
        orchestrator=Orchestrator(address, uri, (capability,)),
        capability=capability,
        pipeline_name="LLM",
        timeout_s=1.0,
        expected_s=1.0,
        price_wei=10**24,
    )
    return Result(
        job=job,
        verdict=Verdict(Outcome.FAILED, "check:json", text),
        attribution=Attribution(AttributionKind.PRESUMED, (text,)),
        gateway="gateway",
        targeting="webhook",
        started_at=time.time(),
        round_trip_s=0.5 + number,
        status=200,
        request=text,
        response=text,
        measures={"tokens_per_s": 1.5},
        notes=(Note("chat", "usage", text),),
    )


@asynccontextmanager
async def hostile_tester(folder: Path) -> AsyncIterator[tuple[SimulatedTester, dict[str, str]]]:
    """Start a tester whose store is full of hostile texts; yield it with the results' ids by the text's name."""
    async with simulated_tester(generate(seed=1, orchestrators=1, pipelines=("llm",)), folder) as tester:
        daemon = tester.daemon
        ids = {}
        for number, (name, text) in enumerate(MARKED.items(), 1):
            result = hostile_result(number, text)
            stat = Stat.from_result(hostile_result(number, "harmless"), "FRA")
            assert await daemon.coordinator.results.record(result, stat, not_before=time.time() + 3600)
            ids[name] = result.id
            await daemon.coordinator.results.record_external(
                text.encode(), text[:200], [ExternalResult(kind=text[:200], stat=stat, fields={"model": text})]
            )
        for entry in await daemon.outbox.entries():
            problem = MARKED[list(MARKED)[entry.seq % len(MARKED)]]
            await daemon.outbox.apply([StateChange(entry.seq, "refused", problem=problem)])
        report = TickReport(TICK, MARKED["script"], time.time(), state="failed", problem="".join(MARKED.values()))
        report.finished_at = time.time()
        for text in MARKED.values():
            report.skipped[text] = report.reasons[text] = 1
        ticks = Ticks(daemon.database)
        await ticks.start(TICK, report.started_at, 1, report.trigger)
        await ticks.finish(TICK, "failed", report.finished_at, report.as_json())
        daemon.coordinator.problem = "".join(MARKED.values())
        yield tester, ids
