"""The board gives every job once, longest chains first, one gateway per orchestrator at a time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.tick.job_queue import JobQueue


def job(name: str, orchestrator: int, expected_s: float = 1.0) -> Job:
    """Make a job of one of a few orchestrators."""
    one = Orchestrator(f"0x{orchestrator}", f"https://{orchestrator}")
    return Job(name, "t", one, Capability("llm", name), "Llm", 10.0, expected_s)


def anything(_job: Job) -> bool:
    """Suit every job."""
    return True


def test_the_longest_chain_begins_first() -> None:
    """So that a tick ends near its lower bound."""
    board = JobQueue([job("a", 1, 1), job("b", 2, 5), job("c", 1, 2), job("d", 3, 4)], per_orchestrator=1)
    order = [board.take("x", now=0, is_serial=False, accepts=anything) for _ in range(3)]
    assert [one.id for one in order if one] == ["b", "d", "a"]


def test_a_serial_lane_keeps_to_one_orchestrator() -> None:
    """Nobody else's job is given while one is in flight."""
    board = JobQueue([job("a", 1), job("b", 1), job("c", 2)], per_orchestrator=1)
    first = board.take("x", now=0, is_serial=True, accepts=anything)
    assert first is not None
    assert first.id == "a"
    assert board.take("x", now=0, is_serial=True, accepts=anything) is None
    board.on_answered(first)
    second = board.take("x", now=0, is_serial=True, accepts=anything)
    assert second is not None
    assert second.id == "b"


def test_deferred_jobs_come_back_when_they_are_due() -> None:
    """A busy orchestrator is tried again later, and the board is not over before."""
    board = JobQueue([job("a", 1)], per_orchestrator=1)
    first = board.take("x", now=0, is_serial=False, accepts=anything)
    assert first is not None
    board.on_answered(first)
    board.defer(first, until=5)
    assert board.next_due_at == 5
    assert not board.is_finished
    assert board.take("x", now=4, is_serial=False, accepts=anything) is None
    assert board.take("x", now=5, is_serial=False, accepts=anything) is first


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0.1, 10)), max_size=30),
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["take", "answer", "back", "defer"])), max_size=200),
    st.integers(1, 3),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_job_is_given_once_and_lanes_never_share_an_orchestrator(
    jobs: list[tuple[int, float]], steps: list[tuple[str, str]], cap: int, serial: bool
) -> None:
    """Whatever the gateways do, nothing is lost, nothing is given twice, and the bounds hold."""
    all_jobs = [job(str(number), which, length) for number, (which, length) in enumerate(jobs)]
    board, now = JobQueue(all_jobs, per_orchestrator=cap), 0.0
    air: dict[str, list[Job]] = {"x": [], "y": [], "z": []}
    done: list[str] = []

    def step(gateway: str, what: str) -> None:
        nonlocal now
        now += 0.01
        if what == "take":
            found = board.take(gateway, now=now, is_serial=serial, accepts=anything)
            if found is not None:
                air[gateway].append(found)
        elif air[gateway]:
            landed = air[gateway].pop(0)
            board.on_answered(landed)
            if what == "answer":
                board.on_settled(landed)
                done.append(landed.id)
            elif what == "back":
                board.requeue(landed)
            else:
                board.defer(landed, now)
        for one, flying in air.items():
            targets = {flight.target for flight in flying}
            assert not serial or len(targets) <= 1
            for other in air:
                assert other == one or not targets & {flight.target for flight in air[other]}
            assert all(sum(flight.target == target for flight in flying) <= cap for target in targets)

    for gateway, what in steps:
        step(gateway, what)
    for _ in range(4 * len(all_jobs) + 4):
        for gateway in air:
            step(gateway, "answer")
            step(gateway, "take")
    for gateway in air:
        while air[gateway]:
            step(gateway, "answer")
    assert board.is_finished
    assert sorted(done) == sorted(one.id for one in all_jobs)


def test_deferred_jobs_are_hastened_only_when_they_are_all_that_is_left() -> None:
    """While others have work, or are not settled, it waits its time; then it comes soon, and never later."""
    board = JobQueue([job("a", 1), job("b", 2)], per_orchestrator=1)
    busy, other = (board.take("x", now=0, is_serial=False, accepts=anything) for _ in range(2))
    assert busy is not None
    assert other is not None
    board.on_answered(busy)
    board.defer(busy, 100.0)
    board.on_answered(other)
    board.bring_forward(5.0)
    assert board.next_due_at == 100.0
    board.on_settled(other)
    board.bring_forward(5.0)
    board.bring_forward(9.0)
    assert board.next_due_at == 5.0
    assert board.take("x", now=4.9, is_serial=False, accepts=anything) is None
    assert board.take("x", now=5.0, is_serial=False, accepts=anything) is busy
