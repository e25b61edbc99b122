"""When the circuit breaker opens and closes, and which problem of the Leaderboard people see."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from jobtester.leaderboard.client import PostAnswer
from jobtester.leaderboard.status import CircuitBreaker, LeaderboardStatus


def test_a_closed_breaker_allows_every_post() -> None:
    """Without a failure, the limit is the caller's."""
    assert CircuitBreaker().allowed_sends(0.0, 32) == 32


def test_after_a_pause_one_probe_goes_out_and_then_the_backlog() -> None:
    """Nothing while it is open, one probe after the pause, and everything once the probe has succeeded."""
    breaker = CircuitBreaker()
    assert breaker.on_failure(100.0)
    assert breaker.allowed_sends(100.0, 32) == 0
    assert breaker.allowed_sends(101.0, 32) == 1
    assert breaker.on_success()
    assert breaker.allowed_sends(101.0, 32) == 32
    assert not breaker.on_success()


def test_posts_that_fail_together_count_as_one_failure() -> None:
    """Four posts in flight when it goes down: one line in the log, and the pause is not lengthened four times."""
    breaker = CircuitBreaker()
    assert [breaker.on_failure(100.0 + number / 1000) for number in range(4)] == [True, False, False, False]
    assert breaker.pauses == 1
    assert breaker.open_until <= 101.0


def test_pauses_double_up_to_four_seconds() -> None:
    """Each failed probe doubles the pause, with jitter between the half and the whole, and it never grows beyond."""
    breaker, now = CircuitBreaker(random=random.Random(5)), 0.0
    for number in range(40):
        breaker.on_failure(now)
        max_pause_s = min(4.0, 2.0**number)
        assert max_pause_s / 2 <= breaker.open_until - now <= max_pause_s
        now = breaker.open_until


def test_testers_do_not_probe_at_the_same_instant() -> None:
    """The jitter spreads their probes."""
    breakers = [CircuitBreaker(random=random.Random(seed)) for seed in range(50)]
    for breaker in breakers:
        breaker.on_failure(0.0)
    assert len({round(breaker.open_until, 3) for breaker in breakers}) > 40


def test_retry_after_lengthens_a_pause() -> None:
    """Also for a post that failed beside another; it never shortens one."""
    breaker = CircuitBreaker()
    breaker.on_failure(0.0)
    breaker.on_failure(0.1, 600.0)
    assert breaker.open_until == 600.1
    breaker.on_failure(1.0, 0.0)
    assert breaker.open_until == 600.1


def test_no_pause_is_longer_than_an_hour() -> None:
    """A server that asks for a year gets a probe after an hour."""
    breaker = CircuitBreaker()
    breaker.on_failure(0.0, 31_536_000.0)
    assert breaker.open_until == 3600.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 500)), max_size=60))
def test_it_never_stays_open(events: list[tuple[bool, float]]) -> None:
    """Whatever happened, two minutes after the last failure something may go out."""
    breaker, now = CircuitBreaker(), 0.0
    for is_success, pause_s in events:
        now += pause_s
        if is_success:
            breaker.on_success()
        else:
            breaker.on_failure(now)
    assert breaker.allowed_sends(now + 120.0, 8) in (1, 8)


def test_a_single_failure_among_successes_opens_nothing() -> None:
    """A server that fails some posts is not down; eight failures in a row are a reason to stop."""
    breaker = CircuitBreaker()
    breaker.on_success(100.0)
    assert [breaker.on_failure(100.1) for _ in range(8)] == [False] * 7 + [True]
    assert breaker.allowed_sends(100.1, 32) == 0


def test_silence_says_something_new_only_after_the_last_answer_and_the_last_outage() -> None:
    """A post that hung before the breaker opened does not lengthen the outage when it ends half a minute later."""
    now = [100.0]
    status = LeaderboardStatus("http://leaderboard.example", monotonic=lambda: now[0])
    assert status.is_news(99.0)
    now[0] = 105.0
    status.on_silence(5.0)
    assert "no answer from http://leaderboard.example for 5 s" in status.problem
    assert (status.is_failing, status.is_news(104.0), status.is_news(106.0)) == (True, False, True)
    status.on_stored()
    assert (status.is_failing, status.is_news(104.0), status.is_news(106.0)) == (False, False, True)


def test_the_most_serious_problem_is_shown_first() -> None:
    """A wrong region stops everything; rows that cannot be read back stop nothing."""
    status = LeaderboardStatus("http://leaderboard.example")
    assert (status.problem, status.was_asked) == ("", False)
    status.on_read("unreadable")
    assert status.problem == "unreadable"
    status.on_failure("down")
    assert status.problem == "down"
    status.on_region("FRA", "no such region")
    assert status.problem == "no such region"
    status.on_region("FRA", "")
    status.on_answer()
    status.on_read("")
    assert (status.problem, status.was_asked, status.region) == ("", True, "usable")


def test_a_refusal_is_over_when_a_stat_is_stored() -> None:
    """A wrong secret concerns all stats and is shown until one is stored; a bad stat concerns itself alone."""
    status = LeaderboardStatus("http://leaderboard.example")
    status.on_refused(PostAnswer.from_response(413, ""), "job-1")
    assert status.problem == ""
    status.on_refused(PostAnswer.from_response(403, ""), "job-2")
    assert "leaderboard.secret" in status.problem
    status.on_stored()
    assert status.problem == ""


def test_lost_stats_are_counted_until_all_are_restored() -> None:
    """The number is exported as a metric, the text shown to people."""
    status = LeaderboardStatus("http://leaderboard.example")
    status.on_stat_lost("job-1", "not stored", 1)
    status.on_stat_lost("job-2", "not stored", 2)
    assert status.lost == 2
    assert "job-2" in status.problem
    status.on_stat_restored(1)
    assert status.lost == 1
    assert "not stored: 1;" in status.problem
    status.on_stat_restored(0)
    assert (status.lost, status.problem) == (0, "")
