"""How long a failing Leaderboard is left alone, and what goes out when the pause is over."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from jobtester.leaderboard.status import CircuitBreaker


def test_a_sound_leaderboard_gets_as_many_posts_as_there_may_be() -> None:
    """Nothing holds back what was never refused."""
    assert CircuitBreaker().allowed_sends(0.0, 32) == 32


def test_after_a_pause_one_probe_goes_out_and_then_the_backlog() -> None:
    """Nothing while it is shut, one post when it opens, and all once that has gone well."""
    breaker = CircuitBreaker()
    assert breaker.on_failure(100.0)
    assert breaker.allowed_sends(100.0, 32) == 0
    assert breaker.allowed_sends(101.0, 32) == 1
    assert breaker.on_success()
    assert breaker.allowed_sends(101.0, 32) == 32
    assert not breaker.on_success()


def test_posts_that_fail_together_count_as_one_failure() -> None:
    """Four in flight when it goes down: one line in the log, and the first pause stays a first pause."""
    breaker = CircuitBreaker()
    assert [breaker.on_failure(100.0 + at / 1000) for at in range(4)] == [True, False, False, False]
    assert breaker.pauses == 1
    assert breaker.open_until <= 101.0


def test_pauses_double_up_to_eight_seconds() -> None:
    """Each failed probe doubles the pause, with jitter between the half and the whole, and it never grows beyond."""
    breaker, now = CircuitBreaker(random=random.Random(5)), 0.0
    for number in range(40):
        breaker.on_failure(now)
        whole = min(8.0, 2.0**number)
        assert whole / 2 <= breaker.open_until - now <= whole
        now = breaker.open_until


def test_two_testers_do_not_come_back_at_once() -> None:
    """The jitter spreads their probes."""
    breakers = [CircuitBreaker(random=random.Random(seed)) for seed in range(50)]
    for breaker in breakers:
        breaker.on_failure(0.0)
    assert len({round(breaker.open_until, 3) for breaker in breakers}) > 40


def test_what_the_server_asks_for_is_kept_to() -> None:
    """Retry-After lengthens a pause, also for a post that failed beside another; it never shortens one."""
    breaker = CircuitBreaker()
    breaker.on_failure(0.0)
    breaker.on_failure(0.1, 600.0)
    assert breaker.open_until == 600.1
    breaker.on_failure(1.0, 0.0)
    assert breaker.open_until == 600.1


def test_nobody_can_silence_us_for_longer_than_an_hour() -> None:
    """A server that asks for a year is asked again after an hour."""
    breaker = CircuitBreaker()
    breaker.on_failure(0.0, 31_536_000.0)
    assert breaker.open_until == 3600.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 500)), max_size=60))
def test_it_always_opens_again(events: list[tuple[bool, float]]) -> None:
    """Whatever happened, two minutes after the last failure something may go out."""
    breaker, now = CircuitBreaker(), 0.0
    for well, pause in events:
        now += pause
        if well:
            breaker.on_success()
        else:
            breaker.on_failure(now)
    assert breaker.allowed_sends(now + 120.0, 8) in (1, 8)
