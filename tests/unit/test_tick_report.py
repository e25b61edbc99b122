"""The report of a tick counts each result once, by everything that people ask about."""

from __future__ import annotations

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.orchestrators import Capability
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.tick_report import TickReport
from tests.harness.results import make_job, make_result


def test_results_are_counted_by_outcome_reason_pipeline_warmth_and_attribution() -> None:
    """Passed results have no reason that would be worth counting."""
    report = TickReport("tick", "cron", 1000.0)
    cold = make_job(2, capability=Capability("text-to-image", "model"))
    report.add_result(make_result("ok", make_job(1), round_trip_s=1.0))
    report.add_result(make_result("503", make_job(1), round_trip_s=2.0))
    report.add_result(make_result("busy", cold, attribution=Attribution(AttributionKind.MISSING), round_trip_s=2.5))
    values = report.as_json()
    assert values["outcomes"] == {"passed": 1, "failed": 1, "unscored": 1}
    assert values["reasons"] == {"503": 1, "busy": 1}
    assert values["attribution"] == {"proven": 2, "missing": 1}
    assert values["pipelines"] == {"llm": {"failed": 1, "passed": 1}, "text-to-image": {"unscored": 1}}
    assert values["warmth"] == {"warm": {"failed": 1, "passed": 1}, "cold": {"unscored": 1}}
    assert (values["settled"], report.settled) == (3, 3)
    assert (values["work_s"], values["longest_chain_s"]) == (5.5, 3.0)


def test_the_plan_gives_the_number_of_jobs_the_price_and_what_is_skipped() -> None:
    """The price is text, because JSON readers round numbers beyond 2**53."""
    jobs = (make_job(1, price_wei=2**60), make_job(2, price_wei=1), make_job(3))
    report = TickReport("tick", "cron", 1000.0)
    report.set_plan(Plan("tick", 7, jobs, (Skip("0x", "", "llm", "m", "no_service_uri"),)))
    report.add_skips([Skip("0x", "", "llm", "m", "deadline")] * 2)
    values = report.as_json()
    assert (values["planned"], values["seed"], values["estimated_price_wei"]) == (3, 7, str(2**60 + 1))
    assert values["skipped"] == {"deadline": 2, "no_service_uri": 1}


def test_an_empty_tick_has_a_report() -> None:
    """Every outcome is there, with 0."""
    report = TickReport("tick", "manual", 1000.0)
    assert report.settled == 0
    assert report.longest_orchestrator_s == 0
    assert report.as_json()["outcomes"] == {"passed": 0, "failed": 0, "unscored": 0}
