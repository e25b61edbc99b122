"""A plan has one job per capability, and says of everything else why it is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest

from jobtester.domain.orchestrators import Capability, CapabilityKey, Orchestrator, Price, RunnerOffer
from jobtester.domain.plan import RESERVE_PROBE, SKIP_REASONS, PipelineRules, Plan, Selection, make_plan

A, B, C = "0x" + "a" * 40, "0x" + "b" * 40, "0x" + "c" * 40
LLM = Capability("llm", "m", warm=True)


@dataclass
class Rules:
    """What a pipeline's definition says, as far as planning asks."""

    name: str = "Llm"
    byoc: bool = False
    runner: bool = False
    is_video: bool = False
    apps: tuple[str, ...] = ()
    enabled: bool = True
    models: tuple[str, ...] = ("*",)
    timeout_s: float = 60.0
    cold_timeout_s: float = 300.0
    price_wei: int | None = 5

    def estimate_price_wei(self, capability: Capability) -> int | None:
        """Return the price, whatever the capability is."""
        del capability
        return self.price_wei


def orchestrator(address: str = A, *capabilities: Capability, uri: str = "https://o.example:8935") -> Orchestrator:
    """Return an orchestrator, which offers a language model where nothing else is said."""
    return Orchestrator(address, uri, capabilities or (LLM,))


def plan(
    *orchestrators: Orchestrator, rules: Rules | None = None, selection: Selection | None = None, **options: Any
) -> Plan:
    """Plan a tick over what was discovered; the pipeline `llm` is defined."""
    ids = count()
    definitions: dict[str, PipelineRules] = {"llm": rules or Rules()}
    options = {"seed": 1} | options
    return make_plan(
        orchestrators, definitions, selection or Selection(), tick="tick", new_id=lambda: f"job-{next(ids)}", **options
    )


def test_each_capability_of_each_orchestrator_is_one_job() -> None:
    """Two orchestrators with three capabilities make three jobs, whose prices add up."""
    other = Capability("llm", "n")
    made = plan(orchestrator(A, LLM, other), orchestrator(B, LLM, uri="https://b.example"))
    assert {job.key for job in made.jobs} == {
        CapabilityKey(A, "https://o.example:8935", "llm", "m"),
        CapabilityKey(A, "https://o.example:8935", "llm", "n"),
        CapabilityKey(B, "https://b.example", "llm", "m"),
    }
    assert len({job.id for job in made.jobs}) == 3
    assert made.price_wei == 15


def test_a_cold_model_gets_the_longer_limit_and_history_the_expected_time() -> None:
    """Without a history the limit itself is expected."""
    key = CapabilityKey(A, "https://o.example:8935", "llm", "m")
    (warm,) = plan(orchestrator(), expected_s={key: 2.5}).jobs
    (cold,) = plan(orchestrator(A, Capability("llm", "m"))).jobs
    assert (warm.timeout_s, warm.expected_s) == (60, 2.5)
    assert (cold.timeout_s, cold.expected_s) == (300, 300)


@pytest.mark.parametrize(
    ("reason", "discovered", "rules", "selection"),
    [
        ("no_service_uri", orchestrator(uri=""), Rules(), Selection()),
        ("excluded", orchestrator(), Rules(), Selection(include=(B,))),
        ("excluded", orchestrator(), Rules(), Selection(exclude=(A.upper().replace("X", "x"),))),
        ("excluded", orchestrator(), Rules(), Selection(exclude=("o.example:8935",))),
        ("filtered", orchestrator(), Rules(), Selection(orchestrators=("https://other.example",))),
        ("filtered", orchestrator(), Rules(), Selection(pipelines=("upscale",))),
        ("filtered", orchestrator(), Rules(), Selection(models=("n",))),
        ("no_definition", orchestrator(A, Capability("unheard-of", "m")), Rules(), Selection()),
        ("no_definition", orchestrator(A, Capability("llm", "m", byoc=True)), Rules(), Selection()),
        ("disabled", orchestrator(), Rules(enabled=False), Selection()),
        ("no_model", orchestrator(A, Capability("llm", "")), Rules(), Selection()),
        ("model_filtered", orchestrator(), Rules(models=("n*",)), Selection()),
        ("price", orchestrator(), Rules(), Selection(max_price_wei=4)),
    ],
)
def test_what_is_left_out_has_a_reason(
    reason: str, discovered: Orchestrator, rules: Rules, selection: Selection
) -> None:
    """Each rule that leaves a capability out names itself, in a reason that the documentation lists."""
    made = plan(discovered, rules=rules, selection=selection)
    assert not made.jobs
    assert [skip.reason for skip in made.skipped] == [reason]
    assert reason in SKIP_REASONS


def test_a_pipeline_that_no_gateway_can_target_is_left_out() -> None:
    """A gateway for external capabilities alone cannot send a batch job."""
    made = plan(orchestrator(), find_obstacle=lambda capability: "" if capability.byoc else "no_targeting")
    assert [skip.reason for skip in made.skipped] == ["no_targeting"]


def test_an_orchestrator_without_capabilities_is_named_if_it_is_left_out() -> None:
    """Otherwise nobody would learn why it is missing."""
    bare = Orchestrator(A, "", ())
    assert [skip.reason for skip in plan(bare).skipped] == ["no_service_uri"]
    assert not plan(Orchestrator(A, "https://o", ())).skipped


def test_a_job_of_unknown_price_is_within_every_limit() -> None:
    """What it costs is settled in the payment."""
    made = plan(orchestrator(), rules=Rules(price_wei=None), selection=Selection(max_price_wei=0))
    assert len(made.jobs) == 1


def test_the_seed_decides_the_order() -> None:
    """The same seed repeats a tick's order, and another seed changes it."""
    many = [orchestrator(f"0x{number:040x}") for number in range(20)]
    first, again, other = (plan(*many, seed=seed).jobs for seed in (1, 1, 2))
    assert [job.id for job in first] == [job.id for job in again]
    assert [job.id for job in first] != [job.id for job in other]


URL = "https://o.example:8935/apps/x"
FREE, DEAR = None, Price(100)
PAYS = Selection(pays_runners=True)


@pytest.mark.parametrize(
    ("app", "mode", "url", "price", "estimate", "selection", "expected"),
    [
        ("known", "single-shot", f"{URL}/app", FREE, 0, Selection(), "known"),
        ("video", "single-shot", f"{URL}/app", FREE, 0, Selection(), "video_single_shot"),
        ("video", "persistent", f"{URL}/session", FREE, 0, Selection(), "video"),
        ("known", "persistent", f"{URL}/session", FREE, 0, Selection(), "known"),
        ("other", "persistent", f"{URL}/session", FREE, 0, Selection(), RESERVE_PROBE),
        ("other", "single-shot", f"{URL}/app", FREE, 0, Selection(), "no_definition"),
        ("other", "persistent", f"{URL}/scope", FREE, 0, Selection(), "stream_per_job"),
        (RESERVE_PROBE, "single-shot", f"{URL}/app", FREE, 0, Selection(), "no_definition"),
        (RESERVE_PROBE, "persistent", f"{URL}/session", FREE, 0, Selection(), RESERVE_PROBE),
        ("text-to-image", "persistent", f"{URL}/session", FREE, 0, Selection(), "taken_name"),
        ("Text To  Image", "persistent", f"{URL}/session", FREE, 0, Selection(), "taken_name"),
        ("known", "single-shot", f"{URL}/app", DEAR, 100, Selection(), "unpaid"),
        ("other", "persistent", f"{URL}/session", DEAR, 100, Selection(), "unpaid"),
        ("known", "single-shot", f"{URL}/app", DEAR, 100, PAYS, "known"),
        ("known", "single-shot", f"{URL}/app", DEAR, 100, replace(PAYS, max_runner_price_wei=100), "known"),
        ("known", "single-shot", f"{URL}/app", DEAR, 100, replace(PAYS, max_runner_price_wei=99), "price"),
        ("known", "single-shot", f"{URL}/app", DEAR, 100, replace(PAYS, max_price_wei=99), "price"),
        ("known", "single-shot", f"{URL}/app", DEAR, None, PAYS, "price"),
    ],
)
def test_live_runners(
    app: str, mode: str, url: str, price: Price | None, estimate: int | None, selection: Selection, expected: str
) -> None:
    """An app is tested by its definition or by the probe, and only where its price is known, allowed and paid."""
    capability = Capability(app, "1", price=price, runner=RunnerOffer(url, mode, "fixed" if price else ""))
    rules: dict[str, PipelineRules] = {
        RESERVE_PROBE: Rules(RESERVE_PROBE, runner=True, price_wei=estimate),
        "text-to-image": Rules("Text to image"),
        "known": Rules("known", runner=True, apps=("known",), price_wei=estimate),
        "video": Rules("video", runner=True, is_video=True, apps=("video",), price_wei=estimate),
    }
    made = make_plan([orchestrator(A, capability)], rules, selection, tick="t", seed=1, new_id=lambda: "j")
    assert [job.definition for job in made.jobs] + [skip.reason for skip in made.skipped] == [expected]
    assert [job.is_video for job in made.jobs] in ([], [expected == "video"])
    assert expected in {*rules, *SKIP_REASONS}


def test_a_live_runner_at_a_shared_service_uri_belongs_to_nobody() -> None:
    """Anybody may advertise another's service URI; what a gateway sends there has its own evidence."""
    runner = Capability("known", "1", runner=RunnerOffer(f"{URL}/app", "single-shot"))
    batch = Capability("text-to-image", "m")
    rules: dict[str, PipelineRules] = {
        "text-to-image": Rules("Text to image"),
        "known": Rules("known", runner=True, apps=("known",)),
    }
    nodes = [Orchestrator(address, uri, (runner, batch)) for address, uri in (
        (A, "https://o.example:8935"), (B, "O.example:8935/"), (C, "https://other.example:8935"),
    )]  # fmt: skip
    made = make_plan(nodes, rules, Selection(), tick="t", seed=1, new_id=lambda: "j")
    assert {(skip.orchestrator, skip.reason) for skip in made.skipped} == {(A, "shared_uri"), (B, "shared_uri")}
    assert sorted((job.orchestrator.address, job.pipeline) for job in made.jobs) == [
        (A, "text-to-image"), (B, "text-to-image"), (C, "known"), (C, "text-to-image"),
    ]  # fmt: skip
