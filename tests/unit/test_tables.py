"""Tables and lines for terminals: they fit, they cannot be controlled from outside, and they count right."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from jobtester.cli.plan_tables import plan_tables
from jobtester.cli.tables import (
    format_counts,
    format_price,
    printable_text,
    report_lines,
    tick_results_table,
)
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator, Price, RunnerOffer, shorten_address
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.reasons import Verdict
from jobtester.domain.results import Result
from jobtester.domain.runner_status import RunnerStatus
from jobtester.domain.tick_report import TickReport

ADDRESS = f"0x{7:040x}"
URI = "https://a-rather-long-host-name.orchestrators.example:8935"


def make_job(model: str = "maker/model-with-a-name-as-long-as-those-of-real-models") -> Job:
    """Return a job with long names."""
    orchestrator = Orchestrator(ADDRESS, URI, ())
    return Job("id", "tick", orchestrator, Capability("llm", model), "Llm", 60.0, 1.0, 10**15)


def make_result(code: str, model: str = "m") -> Result:
    """Return a result with a reason code."""
    attribution = Attribution(AttributionKind.PROVEN, ("metric",))
    return Result(make_job(model), Verdict.from_code(code), attribution, "g", "query", 1.0, 0.25, 200)


def render(*tables: object, width: int) -> list[str]:
    """Return the lines that a terminal of a width shows."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    for table in tables:
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_tick_tables_fit_and_keep_their_numbers(width: int) -> None:
    """Names give way, and outcome, reason, time and attribution are whole at every width."""
    results = [make_result("bad_json"), make_result("ok", "maker/" + "long-" * 12)]
    lines = render(tick_results_table(results, title="Results", width=width), width=width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for word in ("passed", "failed", "bad_json", "250ms", "proven", shorten_address(ADDRESS)):
        assert word in text, word


def test_names_of_one_owner_differ_at_80_columns() -> None:
    """Of long names the end is shown; a terminal with the room shows all of them."""
    names = ("livepeer-examples/hello-world", "livepeer-examples/echo-proxied")
    jobs = [replace(make_job("owner/a-model-of-some-length"), capability=Capability(name, "1.0.0")) for name in names]
    results = [replace(make_result("ok"), job=job) for job in jobs]
    narrow = "\n".join(render(tick_results_table(results, title="Results", width=80), width=80))
    assert "…/hello-world" in narrow
    assert "…/echo-proxied" in narrow
    wide = "\n".join(render(tick_results_table(results, title="Results", width=200), width=200))
    assert all(name in wide for name in names)
    cold = replace(make_job(), capability=Capability("llm", "m"))
    (line,) = [
        line
        for line in render(tick_results_table([replace(results[0], job=cold)], title="", width=80), width=80)
        if "passed" in line
    ]
    assert line.rstrip().endswith("250ms cold")


@pytest.mark.parametrize("width", [80, 200])
def test_a_plan_shows_jobs_and_skips_with_their_meaning(width: int) -> None:
    """Each skip has its reason and what that means, which folds instead of being cut."""
    plan = Plan("tick", 1, (make_job(),), (Skip(ADDRESS, URI, "llm", "m", "stopped"),))
    lines = render(*plan_tables(plan, width=width), width=width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "1 jobs" in text
    assert "1 skipped" in text
    assert "stopped" in text
    assert "began" in text or "begin" in text


@pytest.mark.parametrize("width", [80, 200])
def test_a_plan_shows_live_runners_with_their_price(width: int) -> None:
    """Price and unit of those that are tested or skipped, and for how many ticks others could not serve."""
    offer = RunnerOffer(f"{URI}/apps/a/app", "single-shot", "720p-pixel-seconds")
    priced = Capability("someone/app", "1.2.0", price=Price(2**64 - 1), runner=offer)
    skip = Skip(ADDRESS, URI, "someone/app", "1.2.0", "unpaid", priced)
    job = replace(make_job(), capability=replace(priced, price=Price(2**63), runner=replace(offer, unit="fixed")))
    gone = RunnerStatus(
        ADDRESS, URI, "someone/other", "1", "single-shot", None, "", "", "", state="gone", ticks=12, listed_at=1.0
    )
    plan = Plan("tick", 1, (job,), (skip,), (gone, replace(gone, state="listed")))
    lines = render(*plan_tables(plan, width=width), width=width)
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    assert f"{2**63}weiperrequest" in text
    assert f"{2**64 - 1}weiper720p-pixel-second" in text
    assert "1liverunnersthatcannotserve" in text
    assert "12" in text
    assert "gone" in text


def test_text_from_outside_cannot_control_the_terminal() -> None:
    """Escape sequences and marks of direction become U+FFFD, and markup is no markup."""
    assert printable_text("\x1b[31m[bold]x\u202e").plain == "\ufffd[31m[bold]x\ufffd"


@pytest.mark.parametrize(
    ("wei", "text"),
    [(0, "0 wei"), (10**12 - 1, "999999999999 wei"), (10**12, "0.000001000 ETH"), (3 * 10**18, "3.000000000 ETH")],
)
def test_prices_are_written_short(wei: int, text: str) -> None:
    """Wei below a millionth of an ETH, ETH from there on."""
    assert format_price(wei) == text


def test_counts_leave_out_zeros() -> None:
    """In the order of the mapping."""
    assert format_counts({"passed": 2, "failed": 0, "unscored": 1}) == "2 passed, 1 unscored"


def test_a_report_names_what_was_counted() -> None:
    """A line for each kind that has any count, the most frequent first."""
    report = TickReport("t", "run", 10.0, finished_at=12.0, state="failed", problem="no gateway")
    report.skipped = Counter(price=1, excluded=3)
    report.deferred = Counter(busy=2)
    lines = report_lines(report)
    assert lines[0] == "tick t failed in 2s: 0 of 0 jobs, 0 passed, 0 failed, 0 unscored"
    assert "skipped: 3 excluded, 1 price" in lines
    assert "deferred: 2 busy" in lines
    assert lines[-1] == "problem: no gateway"
    assert not any(line.startswith("reasons") for line in lines)
