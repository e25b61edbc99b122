"""The job queue hands out every job once, the longest backlog first, within the limits of each orchestrator."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.tick.job_queue import JobQueue


def job(name: str, number: int, expected_s: float = 1.0) -> Job:
    """Return a job of the orchestrator with a number."""
    orchestrator = Orchestrator(f"0x{number}", f"https://{number}")
    return Job(name, "t", orchestrator, Capability("llm", name), "Llm", 10.0, expected_s)


def accept_any(_job: Job) -> bool:
    """Accept every job."""
    return True


def test_the_orchestrator_with_most_work_begins_first() -> None:
    """The orchestrator whose jobs take longest in all goes first, so that a tick ends near its lower bound."""
    queue = JobQueue([job("a", 1, 1), job("b", 2, 5), job("c", 1, 2), job("d", 3, 4)], per_orchestrator=1)
    taken = [queue.take("x", now=0, is_serial=False, accepts=accept_any) for _ in range(3)]
    assert [job.id for job in taken if job] == ["b", "d", "a"]


def test_a_serial_gateway_stays_with_one_orchestrator() -> None:
    """While a job is in flight, a serial gateway gets no job of another orchestrator."""
    queue = JobQueue([job("a", 1), job("b", 1), job("c", 2)], per_orchestrator=1)
    first = queue.take("x", now=0, is_serial=True, accepts=accept_any)
    assert first is not None
    assert first.id == "a"
    assert queue.take("x", now=0, is_serial=True, accepts=accept_any) is None
    queue.on_answered(first)
    second = queue.take("x", now=0, is_serial=True, accepts=accept_any)
    assert second is not None
    assert second.id == "b"


@pytest.mark.parametrize(
    ("orchestrators", "gateways", "wall_s"), [(8, 4, 20), (9, 4, 24), (5, 4, 15), (13, 4, 35), (3, 2, 17), (5, 1, 50)]
)
def test_serial_gateways_end_together(orchestrators: int, gateways: int, wall_s: float) -> None:
    """Ten jobs of a second each: no gateway is left with a whole orchestrator while the others have nothing to do."""
    queue = JobQueue([job(f"{n}-{k}", n) for n in range(orchestrators) for k in range(10)], per_orchestrator=1)
    now, in_flight = 0, dict[str, Job]()
    while not queue.is_finished:
        for name in set(map(str, range(gateways))) - in_flight.keys():
            taken = queue.take(name, now=now, is_serial=True, accepts=accept_any)
            if taken is not None:
                in_flight[name] = taken
            else:
                queue.release(name)
        now += 1
        for done in in_flight.values():
            queue.on_answered(done)
            queue.on_settled(done)
        in_flight.clear()
    assert now <= wall_s


def test_deferred_jobs_come_back_when_they_are_due() -> None:
    """A busy orchestrator is retried later, and the queue is not finished before."""
    queue = JobQueue([job("a", 1)], per_orchestrator=1)
    first = queue.take("x", now=0, is_serial=False, accepts=accept_any)
    assert first is not None
    queue.on_answered(first)
    queue.defer(first, until=5)
    assert queue.next_due_at == 5
    assert not queue.is_finished
    assert queue.take("x", now=4, is_serial=False, accepts=accept_any) is None
    assert queue.take("x", now=5, is_serial=False, accepts=accept_any) is first


def test_some_jobs_can_be_drained_and_the_rest_goes_on() -> None:
    """What matches is gone, deferred or not; the other jobs of the same orchestrators are still handed out."""
    jobs = [job("a", 1, 5), job("b", 1, 2), job("c", 2, 4), job("d", 3, 9)]
    queue = JobQueue(jobs, per_orchestrator=1)
    first = queue.take("x", now=0, is_serial=False, accepts=accept_any)
    assert first is jobs[3]
    queue.on_answered(first)
    queue.defer(first, until=5)
    drained = queue.drain(lambda job: job.id in "ad")
    assert [job.id for job in drained] == ["a", "d"]
    assert queue.next_due_at is None
    taken = [queue.take("x", now=9, is_serial=False, accepts=accept_any) for _ in range(3)]
    assert [job.id for job in taken if job] == ["c", "b"]
    for rest in jobs[1:3]:
        queue.on_answered(rest)
        queue.on_settled(rest)
    assert queue.is_finished


@dataclass
class Gateways:
    """Three gateways that take jobs from one queue, with what is in flight at each."""

    queue: JobQueue
    is_serial: bool
    per_orchestrator: int
    now: float = 0.0
    in_flight: dict[str, list[Job]] = field(default_factory=lambda: {"x": [], "y": [], "z": []})
    settled: list[str] = field(default_factory=list)

    def step(self, gateway: str, action: str) -> None:
        """Take a job, or end the oldest one in flight, and assert that the limits hold."""
        self.now += 0.01
        jobs = self.in_flight[gateway]
        if action == "take":
            taken = self.queue.take(gateway, now=self.now, is_serial=self.is_serial, accepts=accept_any)
            if taken is not None:
                jobs.append(taken)
        elif jobs:
            self.end(jobs.pop(0), action)
        self.assert_limits()

    def end(self, ended: Job, action: str) -> None:
        """Settle, requeue or defer a job that was in flight."""
        self.queue.on_answered(ended)
        if action == "answer":
            self.queue.on_settled(ended)
            self.settled.append(ended.id)
        elif action == "back":
            self.queue.requeue(ended)
        else:
            self.queue.defer(ended, self.now)

    def assert_limits(self) -> None:
        """Assert that no orchestrator is shared by gateways or has more jobs in flight than it may."""
        for gateway, jobs in self.in_flight.items():
            targets = {job.target for job in jobs}
            assert not self.is_serial or len(targets) <= 1
            for other in self.in_flight:
                assert other == gateway or not targets & {job.target for job in self.in_flight[other]}
            assert all(sum(job.target == target for job in jobs) <= self.per_orchestrator for target in targets)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0.1, 10)), max_size=30),
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["take", "answer", "back", "defer"])), max_size=200),
    st.integers(1, 3),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_job_is_handed_out_once_and_gateways_never_share_an_orchestrator(
    durations: list[tuple[int, float]], steps: list[tuple[str, str]], per_orchestrator: int, is_serial: bool
) -> None:
    """Whatever the gateways do, no job is lost or handed out twice, and the limits hold."""
    jobs = [job(str(index), number, duration_s) for index, (number, duration_s) in enumerate(durations)]
    queue = JobQueue(jobs, per_orchestrator=per_orchestrator)
    gateways = Gateways(queue, is_serial, per_orchestrator)
    for gateway, action in steps:
        gateways.step(gateway, action)
    for _ in range(4 * len(jobs) + 4):
        for gateway in gateways.in_flight:
            gateways.step(gateway, "answer")
            gateways.step(gateway, "take")
    for gateway, remaining in gateways.in_flight.items():
        while remaining:
            gateways.step(gateway, "answer")
    assert queue.is_finished
    assert sorted(gateways.settled) == sorted(job.id for job in jobs)


def test_deferred_jobs_are_brought_forward_only_when_no_others_are_left() -> None:
    """A deferred job waits its time while others are queued or not settled; then it comes sooner, and never later."""
    queue = JobQueue([job("a", 1), job("b", 2)], per_orchestrator=1)
    busy, other = (queue.take("x", now=0, is_serial=False, accepts=accept_any) for _ in range(2))
    assert busy is not None
    assert other is not None
    queue.on_answered(busy)
    queue.defer(busy, 100.0)
    queue.on_answered(other)
    queue.bring_forward(5.0)
    assert queue.next_due_at == 100.0
    queue.on_settled(other)
    queue.bring_forward(5.0)
    queue.bring_forward(9.0)
    assert queue.next_due_at == 5.0
    assert queue.take("x", now=4.9, is_serial=False, accepts=accept_any) is None
    assert queue.take("x", now=5.0, is_serial=False, accepts=accept_any) is busy
