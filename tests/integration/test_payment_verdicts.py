"""What an orchestrator does once it is not paid in time is not its fault, and what it asks for first takes its time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobtester.daemon.bootstrap import open_daemon
from jobtester.store.queries import Queries, ResultFilters
from jobtester.store.results import ResultRow
from tests.harness.live_runners import config
from tests.harness.paid_orchestrators import PRICE, PaidOrchestrator, SlowSigner, paid_network

SAY = {
    "runner": True, "apps": ["someone/*"], "uri": "/say", "timeout": "20s",
    "checks": [{"check": "json", "path": "text"}],
}  # fmt: skip
PICTURE = {**SAY, "checks": [{"check": "image", "size": "64x64", "seed": False}]}


async def run_job(
    folder: Path, node: PaidOrchestrator, signer: SlowSigner, pipeline: dict[str, Any] | None = None
) -> ResultRow:
    """Run a tick and return its only result."""
    async with paid_network(node, signer) as tables:
        loaded = config(folder, **tables, pipelines={"say": pipeline or SAY})
        async with open_daemon(loaded) as daemon:
            await daemon.run_once("test")
            (result,) = await Queries(daemon.database).page(ResultFilters())
            return result


async def test_the_time_until_an_orchestrator_asks_for_payment_counts(tmp_path: Path) -> None:
    """It could do the whole work before it asks, and answer the paid request at once."""
    node = PaidOrchestrator(mode="single-shot", unit="fixed", challenge_s=1.0)
    result = await run_job(tmp_path, node, SlowSigner())
    assert (result.reason, len(node.paid)) == ("ok", 1)
    assert 1.0 <= result.round_trip_s < 2.0


async def test_the_time_limit_is_for_both_requests_together(tmp_path: Path) -> None:
    """A job whose challenge takes nearly all of its time has little left for the answer."""
    node = PaidOrchestrator(mode="single-shot", unit="fixed", challenge_s=0.8, app_s=0.8)
    result = await run_job(tmp_path, node, SlowSigner(), {**SAY, "timeout": "1s"})
    assert (result.outcome, result.reason) == ("failed", "timeout")
    assert 1.0 <= result.round_trip_s < 1.2


async def test_a_signer_that_fails_in_the_middle_excuses_what_follows(tmp_path: Path) -> None:
    """The orchestrator ends the session, which is not paid any more, while the app is called."""
    node = PaidOrchestrator(app_s=3.5, lapse_s=3.2)
    result = await run_job(tmp_path, node, SlowSigner(later_status=500))
    assert (result.outcome, result.reason) == ("unscored", "signer_fault")
    assert result.estimated_price_wei == 10 * PRICE


async def test_a_check_that_fails_in_an_unpaid_session_fails_nobody(tmp_path: Path) -> None:
    """The answer itself is a success; the file that it names may have gone with the session."""
    node = PaidOrchestrator(app_s=3.5)
    result = await run_job(tmp_path, node, SlowSigner(later_status=500), PICTURE)
    assert (result.status, result.outcome, result.reason) == (200, "unscored", "signer_fault")


async def test_a_pass_counts_although_the_signer_fails(tmp_path: Path) -> None:
    """What came is right, and nobody is hurt by a payment that was not needed any more."""
    result = await run_job(tmp_path, PaidOrchestrator(app_s=3.5), SlowSigner(later_status=500))
    assert (result.outcome, result.reason) == ("passed", "ok")


async def test_an_orchestrator_that_is_paid_too_late_is_not_blamed(tmp_path: Path) -> None:
    """It ends the session when no payment has come for two intervals, while the signer still works on it."""
    node = PaidOrchestrator(app_s=6.0, lapse_s=5.5)
    result = await run_job(tmp_path, node, SlowSigner(later_s=30))
    assert (result.outcome, result.reason) == ("unscored", "signer_fault")
    assert "payment" in result.message


async def test_a_payment_that_has_left_is_counted_whatever_its_answer(tmp_path: Path) -> None:
    """An orchestrator that takes payments and does not answer them in time makes none of them free."""
    node = PaidOrchestrator(app_s=4.0, payment_s=30)
    result = await run_job(tmp_path, node, SlowSigner())
    assert (result.reason, len(node.paid)) == ("ok", 2)
    assert (result.estimated_price_wei or 0) >= 13 * PRICE
