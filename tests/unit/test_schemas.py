"""One shape for one thing: a stored and a fresh object of the same kind have the same JSON."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from jsonschema import Draft202012Validator

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.reasons import Note, Outcome, Verdict
from jobtester.domain.results import Result
from jobtester.domain.tick_report import TickReport
from jobtester.store.outbox import OutboxEntry
from jobtester.store.queries import CapabilityRow, ExternalResultRow, ResultPoint
from jobtester.store.results import ResultRow
from jobtester.store.ticks import TickRow
from jobtester.web import schemas

ADDRESS = "0x" + "ab" * 20
PRICE = 10**24

JOB = Job(
    id="job-1",
    tick="tick-1",
    orchestrator=Orchestrator(ADDRESS, "https://host:8935"),
    capability=Capability("llm", "model-1", warm=True),
    pipeline_name="LLM",
    timeout_s=30.0,
    expected_s=2.0,
    price_wei=PRICE,
)
RESULT = Result(
    job=JOB,
    verdict=Verdict(Outcome.FAILED, "timeout", "No answer within 30 s."),
    attribution=Attribution(AttributionKind.PROVEN, ("the event names it",)),
    gateway="gateway",
    targeting="webhook",
    started_at=1000.0,
    recorded_at=1031.0,
    round_trip_s=30.0,
    request='{"a": 1}',
    response="text",
    measures={"tokens_per_s": 2.5},
    deferred=1,
    notes=(Note("chat", "odd_count", "The counts do not add up."),),
)
ROW = ResultRow(
    seq=7,
    id="job-1",
    tick="tick-1",
    orchestrator=ADDRESS,
    service_uri="https://host:8935",
    pipeline="llm",
    pipeline_name="LLM",
    model="model-1",
    warm=True,
    outcome="failed",
    reason="timeout",
    message="No answer within 30 s.",
    attribution="proven",
    evidence=("the event names it",),
    gateway="gateway",
    targeting="webhook",
    started_at=1000.0,
    recorded_at=1031.0,
    round_trip_s=30.0,
    artifact_s=None,
    status=None,
    measures={"tokens_per_s": 2.5},
    deferred=1,
    estimated_price_wei=PRICE,
    request='{"a": 1}',
    response="text",
    notes=({"check": "chat", "note": "odd_count", "message": "The counts do not add up."},),
)


def assert_valid(model: schemas.Schema) -> None:
    """Assert that a model's JSON is valid under its own JSON Schema, which allows no other field."""
    schema = type(model).model_json_schema(mode="serialization")
    Draft202012Validator(schema).validate(orjson.loads(model.to_json()))


@pytest.mark.parametrize("model", [schemas.ResultSchema, schemas.ResultDetailSchema])
def test_a_stored_and_a_fresh_result_have_one_shape(model: type[schemas.ResultSchema]) -> None:
    """A result reads the same before it is stored and after, and its price is decimal text."""
    fresh, stored = model.from_result(RESULT), model.from_row(ROW)
    assert fresh.to_json() == stored.to_json()
    assert orjson.loads(stored.to_json())["estimated_price_wei"] == str(PRICE)
    assert_valid(stored)


def test_a_reason_of_another_version_needs_no_words() -> None:
    """A code that the table lost keeps its outcome and explains nothing."""
    detail = schemas.ResultDetailSchema.from_row(replace(ROW, reason="code_of_old"))
    assert (detail.reason, detail.outcome, detail.fault, detail.meaning) == ("code_of_old", "failed", "unknown", "")


def test_a_stored_and_a_fresh_tick_have_one_shape() -> None:
    """A tick that has ended reads the same from its report and from the store."""
    report = TickReport("tick-1", "cron", 1000.0, seed=5, orchestrators=1, planned=1, price_wei=PRICE)
    report.add_result(RESULT)
    report.state, report.finished_at = "finished", 1040.0
    row = TickRow("tick-1", 1000.0, 1040.0, 5, "cron", "finished", report.as_json())
    tick = schemas.TickSchema.from_report(report)
    assert tick.to_json() == schemas.TickSchema.from_row(row).to_json()
    assert tick.report is not None
    assert tick.report.estimated_price_wei == str(PRICE)
    assert_valid(tick)


def test_a_running_tick_has_its_report_so_far() -> None:
    """Only the tick that runs has the running report; one that was cut off has none."""
    running = TickReport("tick-2", "cron", 2000.0, planned=3)
    rows = [TickRow(name, 2000.0, None, 5, "cron", "running", {}) for name in ("tick-1", "tick-2")]
    reports = [schemas.TickSchema.from_row(row, running).report for row in rows]
    assert reports[0] is None
    assert reports[1] is not None
    assert reports[1].planned == 3


def test_a_report_of_an_older_version_is_read() -> None:
    """Prices were numbers once, and warmth was not counted."""
    report = {"planned": 3, "settled": 2, "estimated_price_wei": PRICE, "outcomes": {"passed": 2}}
    tick = schemas.TickSchema.from_row(TickRow("tick-1", 1.0, 2.0, 5, "cron", "finished", report))
    assert tick.report is not None
    assert (tick.report.estimated_price_wei, tick.report.warmth) == (str(PRICE), {})
    assert_valid(tick)


def test_capabilities_are_grouped_by_orchestrator() -> None:
    """Each orchestrator appears once, with its capabilities in their order."""
    point = ResultPoint("job-1", 1.0, 2.0, "passed", "ok")
    rows = [
        CapabilityRow(address, "https://host:8935", pipeline, "model-1", "batch", True, 0, (point,))
        for address, pipeline in ((ADDRESS, "llm"), (ADDRESS, "text-to-image"), ("0x" + "cd" * 20, "llm"))
    ]
    orchestrators = schemas.OrchestratorSchema.from_rows(rows)
    assert [len(orchestrator.capabilities) for orchestrator in orchestrators] == [2, 1]
    assert orchestrators[0].capabilities[1].newest.id == "job-1"
    assert_valid(orchestrators[0])


def test_a_plan_names_jobs_as_results_do() -> None:
    """A planned job has the fields of a result, and an unknown price is null."""
    skip = Skip(ADDRESS, "https://host:8935", "llm", "model-2", "disabled")
    plan = schemas.PlanSchema.from_plan(Plan("plan", 5, (JOB, replace(JOB, price_wei=None)), (skip,)))
    assert [job.estimated_price_wei for job in plan.jobs] == [str(PRICE), None]
    assert plan.estimated_price_wei == str(PRICE)
    assert set(schemas.PlannedJobSchema.model_fields) - {"timeout_s"} < set(schemas.ResultSchema.model_fields)
    assert_valid(plan)


def test_a_run_has_its_tick_and_every_result() -> None:
    """What `run --json` prints is a tick and results in the API's shapes."""
    run = schemas.RunSchema.from_report(TickReport("tick-1", "run", 1000.0), [RESULT])
    assert run.results[0].to_json() == schemas.ResultDetailSchema.from_row(ROW).to_json()
    assert_valid(run)


def test_a_list_has_the_json_of_its_models() -> None:
    """Lists are written from fields that no model has checked, and still have the same JSON."""
    point = ResultPoint("job-1", 1.0, 2.0, "passed", "ok")
    capability = CapabilityRow(ADDRESS, "https://host:8935", "llm", "model-1", "batch", True, 0, (point,))
    tick = TickRow("tick-1", 1.0, 2.0, 5, "cron", "finished", {"planned": 3, "estimated_price_wei": PRICE})
    external = ExternalResultRow(1, "id-1", 1.0, "127.0.0.1", "ai", '{"model":"model-1"}', "pending")
    entry = OutboxEntry(
        seq=3,
        result="job-1",
        tick="tick-1",
        gateway="gateway",
        state="pending",
        body=b'{"model":"model-1"}',
        region="FRA",
        orchestrator=ADDRESS,
        pipeline="LLM",
        model="model-1",
        timestamp=1,
        round_trip_s=1.5,
        created_at=1.0,
        due_at=2.0,
        attempts=0,
        first_sent_at=None,
        last_sent_at=None,
        settled_at=None,
        problem="",
        maybe_double=False,
        look_ups=0,
        audited_at=None,
    )
    pairs: list[tuple[object, schemas.Schema]] = [
        (schemas.ResultSchema.read_fields(ROW), schemas.ResultSchema.from_row(ROW)),
        (
            schemas.OrchestratorSchema.read_groups([capability])[0],
            schemas.OrchestratorSchema.from_rows([capability])[0],
        ),
        (schemas.TickSchema.read_fields(tick), schemas.TickSchema.from_row(tick)),
        (schemas.OutboxEntrySchema.read_fields(entry), schemas.OutboxEntrySchema.from_entry(entry)),
        (schemas.ExternalResultSchema.read_fields(external), schemas.ExternalResultSchema.from_row(external)),
    ]
    for fields, model in pairs:
        assert orjson.loads(orjson.dumps(fields)) == orjson.loads(model.to_json())
        assert_valid(model)
