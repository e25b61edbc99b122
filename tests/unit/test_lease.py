"""The lease names nobody but whom a job in flight may be steered to, whatever the order of things."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobtester.domain.orchestrators import Orchestrator
from jobtester.gateway.lease import Lease, LeaseTiming

A, B, C = (Orchestrator(f"0x{name * 40}", f"https://{name}.example:8935") for name in "abc")
TIMING = LeaseTiming(retry_window=2.0, settle=0.5, after_disconnect=7.0, min_asks=2)
INFO_CALL_S = 6.0


def lease_for_three(*, overlap: bool = False) -> Lease:
    """Return a lease in a tick that knows three orchestrators."""
    lease = Lease(TIMING, overlap=overlap)
    lease.set_candidates([A, B, C])
    lease.begin_tick()
    return lease


def test_outside_a_tick_everybody_is_named() -> None:
    """A gateway that discovers needs all candidates; one without a service URI is none."""
    lease = Lease(TIMING)
    assert lease.answer_webhook(0) == ()
    lease.set_candidates([A, B, Orchestrator("0x1", "")])
    assert lease.answer_webhook(0) == (A, B)
    lease.begin_tick()
    lease.end_tick()
    assert lease.answer_webhook(1) == (A, B)


def test_between_two_holders_nobody_is_named() -> None:
    """A stray selection finds nobody rather than the wrong one."""
    lease = lease_for_three()
    assert lease.answer_webhook(0) == ()
    lease.grant(A, 0)
    assert lease.answer_webhook(0) == (A,)
    lease.release(1)
    assert lease.answer_webhook(1) == ()


def test_exclusive_waits_for_every_answer() -> None:
    """The lease does not move while any job is in flight."""
    lease = lease_for_three()
    lease.grant(A, 0)
    lease.on_sent("1", 0)
    lease.on_sent("2", 0)
    lease.on_ended("1", 5, disconnected=False)
    assert lease.ready_at(B, 5) is None
    with pytest.raises(RuntimeError):
        lease.grant(B, 5)
    lease.on_ended("2", 6, disconnected=False)
    assert lease.ready_at(B, 6) == 6


def test_a_dropped_job_holds_the_lease_until_the_gateway_is_silent() -> None:
    """Calls follow a disconnect; each restarts the silence, and the same orchestrator need not wait."""
    lease = lease_for_three()
    lease.grant(A, 0)
    lease.on_sent("1", 0)
    lease.on_ended("1", 10, disconnected=True)
    assert lease.ready_at(A, 10) == 10
    assert lease.ready_at(B, 10) == 17
    assert lease.answer_webhook(12) == (A,)
    assert lease.ready_at(B, 12) == 19
    lease.release(12)
    assert lease.answer_webhook(12.5) == (A,)
    lease.grant(B, 19.5)
    assert lease.answer_webhook(20) == (B,)


def test_overlap_moves_on_by_the_guess() -> None:
    """Five calls, the retry window and a silence have to pass before the lease leaves a job that still computes."""
    lease = lease_for_three(overlap=True)
    lease.grant(A, 0)
    lease.on_sent("1", 0)
    for at in (0.1, 0.2, 0.3, 0.4):
        lease.answer_webhook(at)
    assert lease.ready_at(B, 3) is None
    lease.answer_webhook(1.9)
    assert lease.ready_at(B, 2) == pytest.approx(2.4)
    lease.grant(B, 3)
    leased = lease.on_sent("2", 3)
    assert leased.was_overlapped
    assert lease.on_ended("1", 4, disconnected=False).was_overlapped


def test_each_call_counts_for_one_job_only() -> None:
    """Four jobs side by side cannot all live on the two calls of one refreshed cache."""
    lease = lease_for_three()
    lease.grant(A, 0)
    leased_jobs = [lease.on_sent(str(number), 0) for number in range(4)]
    lease.answer_webhook(0.1)
    lease.answer_webhook(0.2)
    for number in range(4):
        lease.on_ended(str(number), 1, disconnected=False)
    assert [lease.claim_questions(leased) for leased in leased_jobs] == [True, False, False, False]


@dataclass
class Gateway:
    """What the contract lets a gateway do with one shared list: late writers, strays after a disconnect."""

    lease: Lease
    now: float = 0.0
    in_flight: dict[str, Orchestrator] = field(default_factory=dict)
    answers: list[tuple[float, tuple[Orchestrator, ...], str]] = field(default_factory=list)
    strays: dict[str, float] = field(default_factory=dict)

    def steers(self) -> list[tuple[tuple[Orchestrator, ...], str]]:
        """Return the answers that may still be written: their request lives or was just dropped."""
        return [
            (answer, job)
            for at, answer, job in self.answers
            if job in self.in_flight or self.now - at <= INFO_CALL_S + 0.5
        ]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pass", "ask", "ask", "send", "answer", "drop", "stray", "move"]),
        st.integers(0, 2),
        st.floats(0.01, 4.0),
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=400, deadline=None)
def test_exclusive_no_answer_that_can_still_steer_names_another(steps: list[tuple[str, int, float]]) -> None:
    """For every interleaving: while a job is in flight, each answer that may still take effect names its orchestrator.

    Answers to requests that were answered have taken effect before; those after a disconnect may be written for one
    info call more.
    """
    gateway = Gateway(lease_for_three())
    lease, count = gateway.lease, 0
    for step, which, seconds in steps:
        gateway.now += seconds if step == "pass" else 0.001
        now = gateway.now
        if step == "move":
            orchestrator = (A, B, C)[which]
            ready = lease.ready_at(orchestrator, now)
            if ready is not None and ready <= now:
                lease.grant(orchestrator, now)
        elif step == "send" and lease.holder is not None and len(gateway.in_flight) < 3:
            count += 1
            lease.on_sent(str(count), now)
            gateway.in_flight[str(count)] = lease.holder
        elif step == "ask" and gateway.in_flight:
            job = sorted(gateway.in_flight)[which % len(gateway.in_flight)]
            gateway.answers.append((now, lease.answer_webhook(now), job))
        elif step == "answer" and gateway.in_flight:
            job = sorted(gateway.in_flight)[which % len(gateway.in_flight)]
            lease.on_ended(job, now, disconnected=False)
            del gateway.in_flight[job]
            gateway.answers = [answer for answer in gateway.answers if answer[2] != job]
        elif step == "drop" and gateway.in_flight:
            job = sorted(gateway.in_flight)[which % len(gateway.in_flight)]
            lease.on_ended(job, now, disconnected=True)
            del gateway.in_flight[job]
            gateway.strays[job] = now
        elif step == "stray" and gateway.strays:
            job = sorted(gateway.strays)[which % len(gateway.strays)]
            last = max([gateway.strays[job], *(at for at, _, of in gateway.answers if of == job)])
            if now - last <= INFO_CALL_S + 0.5:
                gateway.answers.append((now, lease.answer_webhook(now), job))
        targets = {orchestrator.target for orchestrator in gateway.in_flight.values()}
        assert len(targets) <= 1
        for answer, _ in gateway.steers():
            for target in targets:
                assert not answer or answer[0].target == target


@given(st.lists(st.tuples(st.sampled_from(["ask", "send", "end", "move", "pass"]), st.integers(0, 2)), max_size=80))
@settings(max_examples=300, deadline=None)
def test_overlap_marks_every_job_that_was_not_alone(steps: list[tuple[str, int]]) -> None:
    """A job during which anybody else was named or in flight is marked: only proof can score it."""
    lease, now, count = lease_for_three(overlap=True), 0.0, 0
    named_during: dict[str, set[str]] = {}
    for step, which in steps:
        now += 1.0 if step == "pass" else 0.01
        if step == "move":
            orchestrator = (A, B, C)[which]
            ready = lease.ready_at(orchestrator, now)
            if ready is not None and ready <= now:
                lease.grant(orchestrator, now)
        elif step == "send" and lease.holder is not None:
            count += 1
            lease.on_sent(str(count), now)
            named_during[str(count)] = set()
        elif step == "ask":
            for answer in lease.answer_webhook(now):
                for seen in named_during.values():
                    seen.add(answer.address)
        elif step == "end" and named_during:
            job = sorted(named_during)[which % len(named_during)]
            leased = lease.on_ended(job, now, disconnected=False)
            others = named_during.pop(job) - {leased.orchestrator.address}
            assert leased.was_overlapped or not others


def test_a_quiet_gateway_has_ended_the_job_that_was_left() -> None:
    """Questions for a later job do not bring the waiting back."""
    lease = lease_for_three()
    lease.grant(A, 0)
    lease.on_sent("left", 0)
    lease.on_ended("left", 1, disconnected=True)
    assert lease.ready_at(B, 1.5) == 8
    lease.on_sent("next", 9)
    lease.answer_webhook(9.5)
    lease.on_ended("next", 10, disconnected=False)
    assert lease.ready_at(B, 10) == 10
    later = lease.on_sent("last", 10)
    assert later.was_alone


def test_questions_of_jobs_that_ended_are_nobody_elses() -> None:
    """A job that made the gateway ask twenty times leaves nothing for two that share their questions."""
    lease = lease_for_three()
    lease.grant(A, 0)
    first = lease.on_sent("first", 0)
    for _ in range(20):
        lease.answer_webhook(0.5)
    lease.on_ended("first", 1, disconnected=False)
    assert lease.claim_questions(first)
    second, third = lease.on_sent("second", 2), lease.on_sent("third", 2)
    for _ in range(TIMING.min_asks):
        lease.answer_webhook(2.5)
    for leased in (second, third):
        lease.on_ended(leased.job, 3, disconnected=False)
    assert [lease.claim_questions(leased) for leased in (second, third)] == [True, False]
