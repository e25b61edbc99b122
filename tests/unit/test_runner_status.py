"""From tick to tick: a live runner is listed, full, elsewhere or gone, and for how long."""

from __future__ import annotations

from dataclasses import replace

from jobtester.domain.orchestrators import Capability, Orchestrator, Price, RunnerOffer
from jobtester.domain.runner_status import RunnerStatus, follow_runners

URI = "https://node.example:8935"
OFFER = RunnerOffer(f"{URI}/apps/a/app", "single-shot", "fixed", "GPU", "https://schema.example")
APP = Capability("someone/app", "1", capacity=1, price=Price(2**64 - 1), runner=OFFER)
FULL = replace(APP, capacity=0, in_use=1)
FOREIGN = replace(APP, runner=replace(OFFER, is_foreign=True))


def node(*capabilities: Capability, address: str = "0xa", uri: str = URI, has_list: bool = True) -> Orchestrator:
    """Return an orchestrator that lists these."""
    return Orchestrator(address, uri, (Capability("llm", "m"), *capabilities), has_runner_list=has_list)


def follow(*ticks: list[Orchestrator]) -> list[RunnerStatus]:
    """Return the statuses after these discoveries, at the seconds 1, 2, 3 and so on."""
    statuses: list[RunnerStatus] = []
    for number, orchestrators in enumerate(ticks, 1):
        statuses = follow_runners(statuses, orchestrators, now=float(number))
    return statuses


def test_each_state_counts_its_ticks() -> None:
    """The count restarts with every change of state, and a runner that is gone keeps what was last listed."""
    listed, full, elsewhere, gone = [node(APP)], [node(FULL)], [node(FOREIGN)], [node()]
    for ticks, state, count, listed_at in (
        ([listed], "listed", 1, 1.0),
        ([listed, listed], "listed", 2, 2.0),
        ([listed, full, full], "no_capacity", 2, 3.0),
        ([elsewhere, elsewhere], "foreign_url", 2, 2.0),
        ([listed, gone, gone, gone], "gone", 3, 1.0),
        ([listed, gone, listed], "listed", 1, 3.0),
    ):
        (status,) = follow(*ticks)
        assert (status.state, status.ticks, status.listed_at) == (state, count, listed_at)
        assert status.is_unusable is (state != "listed")
        assert (status.price_wei, status.unit, status.gpu) == (2**64 - 1, "fixed", "GPU")


def test_who_was_not_asked_is_not_blamed() -> None:
    """An orchestrator that discovery does not name in a tick keeps its runners as they were."""
    (status,) = follow([node(APP)], [node(uri="https://other.example")])
    assert (status.state, status.ticks) == ("listed", 1)


def test_no_list_is_told_apart_from_a_runner_that_is_gone() -> None:
    """Where nobody answers with a list, the tester's own network may be at fault: all stay as they were."""
    silent, other = node(has_list=False), node(address="0xb", uri="https://other.example")
    assert [(status.state, status.ticks) for status in follow([node(APP)], [silent, other], [silent, other])] == [
        ("no_list", 2)
    ]
    assert [(status.state, status.ticks) for status in follow([node(APP)], [silent], [silent])] == [("listed", 1)]


def test_without_an_address_nothing_is_followed() -> None:
    """A service URI of nobody known has no page."""
    assert follow([node(APP, address="")]) == []


def test_names_of_runners_that_are_gone_do_not_pile_up() -> None:
    """An orchestrator that lists another name in every tick fills no store; the newest stay."""
    statuses = follow(*([node(replace(APP, pipeline=f"someone/app-{number}"))] for number in range(200)))
    assert len(statuses) == 51
    assert {status.app for status in statuses if not status.is_unusable} == {"someone/app-199"}
    assert {status.ticks for status in statuses if status.is_unusable} == set(range(1, 51))
