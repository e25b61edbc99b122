"""Infer how far a gateway's attempts at one job came, from its questions to the webhook or from the time it took.

A tester gateway that uses the webhook asks `/orchestrators` in bursts, and the bursts show what happened. One attempt
that leaves for an orchestrator asks in a pair and a triple, with a call to the orchestrator after each:

    2 | info call | 3 | info call | job

What follows shows how the attempt ended. After a failure, a lone pair removes the session. After a refusal for lack of
capacity nothing follows, but at the very end one lone pair comes for each session that was kept. An attempt that finds
no orchestrator to select is a lone pair.

How long a question and a call take depends on distances that the tester does not know, so the questions are not cut at
a fixed pause. Every sequence of pairs and triples that a gateway could have produced is compared with the pauses
between questions, and is the costlier the worse one single limit separates its pauses within bursts from those between
bursts.
A pattern is reported only if its best sequence fits well, and clearly better than those of all other patterns: a busy
orchestrator must never be charged with a failure.

A gateway that takes the orchestrator from the job's query asks nothing; there only the time of a 503 is a hint.
Everything here is pure: no I/O, no waiting.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jobtester.domain.attempts import UNKNOWN_ATTEMPTS, AttemptPattern, Attempts
from jobtester.domain.exchanges import Ending, Exchange

QUESTIONS_PER_ATTEMPT = 5  # how often a tester gateway asks before a job leaves
_QUESTIONS_OF_STICKY_SESSIONS = 3  # how often a half-configured one asks for a job that it serves from its sessions

# Costs are in nats, the natural logarithm of odds: a sequence that costs 4 nats more than another is e⁴ ≈ 55 times
# less likely. Whether a pause lies within a burst or between two is modeled as logistic in the logarithm of its length,
# since distances differ by factors: with a sharpness of 4, a pause of twice the limit lies between two bursts at odds
# of 16 to 1.
_SHARPNESS = 4.0
# Any machine stalls now and then, and a stall looks like a pause between bursts. So no single pause may cost so much
# that it outweighs all others.
_MAX_PAUSE_COST = 8.0
# The more sequences there are, the better the best one of a wrong pattern fits by chance, and their number grows with
# the questions. So the lead that a pattern needs over every other grows as well; up to a bound, because the patterns of
# very long runs differ by no more than that, though they are no less certain.
_MIN_LEAD = 4.0
_LEAD_PER_QUESTION = 0.12
_MAX_LEAD = 17.0
# A coin tossed for each pause costs ln 2 ≈ 0.69 nats per pause: a sequence that fits hardly better shows nothing.
_MAX_COST_PER_PAUSE = 0.4
_MIN_PAUSE_S = 1e-4  # shorter ones are made by the clock and the event loop, not by the gateway
# From so many pauses on, the limit is sought near the middle only, which keeps long runs cheap: half to two thirds of
# the pauses of any pattern lie within bursts.
_MANY_PAUSES = 16

# Costs of attempts at one job that end differently. Most gateways do the same thing again and again. A refusal after a
# failure happens where the orchestrator leaks the slot of a failed job (go-livepeer v0.8.6), so it costs less than one
# before; an attempt that finds nobody after a failure is ordinary, because a failed orchestrator may be suspended.
_BUSY_BEFORE_FAILURE = 5.0
_BUSY_AFTER_FAILURE = 3.0
_FREE_AFTER_BUSY = 3.0
_NOBODY_AFTER_FAILURE = 1.0
_MAX_PAIRS_BEFORE_BUSY = 2  # attempts that found nobody, before the first one that was refused

# Times of go-livepeer, for gateways that ask nothing.
_UNANSWERED_CALL_S = 3.0  # a gateway gives up on an orchestrator that does not answer its info call after this
_UNANSWERED_CALL_TOLERANCE_S = 0.4
_WINDOW_TOLERANCE_S = 0.1
_MAX_SELECTION_S = 15.0  # an info call takes 6 s at most, and a selection makes two: with some slack for the network


@dataclass(frozen=True, slots=True)
class _Fit:
    """How well a sequence fits the pauses (nats, less is better), and how many of its attempts sent the job."""

    cost: float
    tries: int


_NO_FIT = _Fit(math.inf, 0)


def classify_by_questions(
    question_times: Sequence[float],
    *,
    is_answered: bool,
    tries_exhausted: bool = True,
    gateway_may_continue: bool = False,
) -> Attempts:
    """Return how far the attempts at one job came, from when the gateway asked during it.

    Args:
        question_times: instants in seconds, ascending, from one clock; of this job alone.
        is_answered: whether the gateway passed an orchestrator's answer on.
        tries_exhausted: whether the gateway retries after a failure like this one; it does not after a runner's 400.
        gateway_may_continue: whether the tester left before the gateway answered, so that the last attempt's end was
            not seen.
    """
    count = len(question_times)
    if count == 0:
        return Attempts(AttemptPattern.NOT_FOLLOWING, 0, "the gateway did not ask whom to use")
    if is_answered or gateway_may_continue:
        if count >= QUESTIONS_PER_ATTEMPT:
            pattern = AttemptPattern.ANSWERED if is_answered else AttemptPattern.REACHED
            return Attempts(pattern, 1, f"the gateway asked {count} times")
        if gateway_may_continue and count < _QUESTIONS_OF_STICKY_SESSIONS:
            return Attempts(AttemptPattern.DOWN, 0, f"the gateway asked {count} times, and no attempt left")
        return _not_following(count)
    if count == _QUESTIONS_OF_STICKY_SESSIONS:
        return _not_following(count)
    # Without a retry there is one attempt: five questions and the pair that ends it, or with other selections before it
    # an odd number as well. An even number would be pairs only, of attempts that found nobody.
    if not tries_exhausted and count > QUESTIONS_PER_ATTEMPT and count % 2:
        return Attempts(
            AttemptPattern.REACHED, 1, f"the gateway asked {count} times, so an attempt left for the orchestrator"
        )
    if count == 2:
        return Attempts(
            AttemptPattern.DOWN, 0, "the gateway asked for one selection and got no reply from the orchestrator"
        )
    return _classify_pauses(question_times, tries_exhausted)


def classify_by_time(exchange: Exchange, retry_window_s: float) -> Attempts:
    """Return how far the attempts at one job came, as far as the time shows; busy and unlisted look the same.

    `retry_window_s` is how long after a job's arrival the gateway starts new attempts, in seconds.
    """
    if exchange.gateway_reports_success:
        return Attempts(AttemptPattern.ANSWERED, 1, "the gateway passed an answer on")
    if exchange.ending is not Ending.ANSWERED or exchange.status != 503:
        return UNKNOWN_ATTEMPTS
    round_trip_s = exchange.round_trip_s
    summary = f"503 after {round_trip_s:.1f} s"
    # Twenty refusals, or selections of a distant orchestrator, last as long as attempts that reach it and fail: all of
    # them end when the retry window closes.
    if retry_window_s <= round_trip_s < _UNANSWERED_CALL_S - _WINDOW_TOLERANCE_S:
        return Attempts(AttemptPattern.UNCLEAR, 0, f"{summary}: the gateway tried until its retry window closed")
    if abs(round_trip_s - _UNANSWERED_CALL_S) <= _UNANSWERED_CALL_TOLERANCE_S:
        return Attempts(AttemptPattern.DOWN, 0, f"{summary}: as after a call to an orchestrator that does not answer")
    if round_trip_s >= _MAX_SELECTION_S:
        return Attempts(AttemptPattern.REACHED, 1, f"{summary}: a selection is shorter than this, so the job had left")
    return Attempts(AttemptPattern.UNCLEAR, 0, f"{summary}, which does not show what happened")


def _not_following(count: int) -> Attempts:
    summary = f"the gateway asked {count} times, and a tester gateway asks at least {QUESTIONS_PER_ATTEMPT} times"
    return Attempts(AttemptPattern.NOT_FOLLOWING, 0, summary)


def _classify_pauses(question_times: Sequence[float], tries_exhausted: bool) -> Attempts:
    pauses = [math.log(max(later - sooner, _MIN_PAUSE_S)) for sooner, later in pairwise(question_times)]
    best = {AttemptPattern.REACHED: _NO_FIT, AttemptPattern.BUSY: _NO_FIT, AttemptPattern.NOBODY: _NO_FIT}
    for limit in _candidate_limits(pauses):
        within = [_pause_cost(_SHARPNESS * (pause - limit)) for pause in pauses]
        between = [_pause_cost(_SHARPNESS * (limit - pause)) for pause in pauses]
        fits = {AttemptPattern.REACHED: _fit_reached(within, between), AttemptPattern.BUSY: _fit_busy(within, between)}
        if len(question_times) % 2 == 0:  # lone pairs only
            fits[AttemptPattern.NOBODY] = _Fit(sum(within[0::2]) + sum(between[1::2]), 0)
        for pattern, fit in fits.items():
            if fit.cost < best[pattern].cost:
                best[pattern] = fit
    (pattern, fit), *others = sorted(best.items(), key=lambda item: item[1].cost)
    count = len(question_times)
    asked = f"the gateway asked {count} times"
    lead = max(_MIN_LEAD, min(_LEAD_PER_QUESTION * count, _MAX_LEAD))
    # One pause more than there are, so that a short run may have one that does not fit.
    if fit.cost > _MAX_COST_PER_PAUSE * (len(pauses) + 1) or any(other.cost - fit.cost < lead for _, other in others):
        return Attempts(AttemptPattern.UNCLEAR, 0, f"{asked}, in no pattern that shows what happened")
    if pattern is AttemptPattern.NOBODY:
        return Attempts(pattern, 0, f"{asked}, always in pairs: no attempt found an orchestrator to select")
    if pattern is AttemptPattern.BUSY:
        return Attempts(pattern, fit.tries, f"{asked}: {fit.tries} attempts were refused for lack of a free slot")
    if fit.tries == 1 and tries_exhausted:
        # One refusal for lack of capacity looks like one failure, except that it comes at once. The info call before
        # the job shows how far away the orchestrator is: a job that took much longer than that was worked on.
        call_s, job_s = question_times[-5] - question_times[-6], question_times[-2] - question_times[-3]
        if job_s <= 2 * call_s + 0.1:
            return Attempts(
                AttemptPattern.UNCLEAR, 1, f"{asked}: one attempt failed at once, which may mean that no slot was free"
            )
    return Attempts(pattern, fit.tries, f"{asked}: {fit.tries} attempts reached the orchestrator and failed")


def _candidate_limits(pauses: Sequence[float]) -> Iterator[float]:
    """Return where the limit between pauses within bursts and pauses between bursts may lie, as logarithms."""
    ordered = sorted(pauses)
    last = len(ordered) - 1
    if last < _MANY_PAUSES:
        yield from ((low + high) / 2 for low, high in pairwise(ordered))
        return
    for share in (0.46, 0.49, 0.52, 0.55, 0.58, 0.61, 0.65):
        place = min(last - 1, int(share * last))
        yield (ordered[place] + ordered[place + 1]) / 2


def _pause_cost(evidence_against: float) -> float:
    """Return the cost of placing a pause where its log odds are against it: minus the logarithm of the probability."""
    return min(_MAX_PAUSE_COST, math.log1p(math.exp(min(evidence_against, 50.0))))  # exp() overflows beyond 709


def _fit_busy(within: Sequence[float], between: Sequence[float]) -> _Fit:
    """Return the best sequence in which every attempt that selected the orchestrator was refused.

    It is a few pairs that found nobody, then attempts of five questions, and at the end a lone pair for each of them or
    for none: releases differ in whether they complete the sessions that they kept.
    """
    count = len(within) + 1
    best = _NO_FIT
    for pairs_before in range(_MAX_PAIRS_BEFORE_BUSY + 1):
        for questions_per_try, completing_pairs in ((7, 1), (5, 0)):
            tries, rest = divmod(count - 2 * pairs_before, questions_per_try)
            if rest or tries < 2:
                continue
            cost, place = _NOBODY_AFTER_FAILURE * pairs_before, 0
            for size in [2] * pairs_before + [2, 3] * tries + [2] * (tries * completing_pairs):
                cost += sum(within[place : place + size - 1])
                place += size
                if place <= len(between):
                    cost += between[place - 1]
            if cost < best.cost:
                best = _Fit(cost, tries)
    return best


# The bursts of a job of which at least one attempt reached the orchestrator, as a state machine: each state is a burst
# of so many questions, and has the states that may follow it with what such a sequence costs. Before the first failure:
# a pair that selects, its triple, and a pair that selects again after a refusal. From the first removal of a session
# on, the same bursts are states of their own, because refusals cost less then; and the pairs that complete the sessions
# kept at refusals may only stand at the end.
_SELECT, _TRIPLE, _AGAIN, _REMOVE, _SELECT_LATER, _TRIPLE_LATER, _AGAIN_LATER, _TRIPLE_REFUSED, _COMPLETE = range(9)
_SIZE = (2, 3, 2, 2, 2, 3, 2, 3, 2)
_NEXT: tuple[tuple[tuple[int, float], ...], ...] = (
    ((_SELECT, 0.0), (_TRIPLE, 0.0)),
    ((_REMOVE, 0.0), (_AGAIN, _BUSY_BEFORE_FAILURE)),
    ((_TRIPLE, 0.0),),
    ((_SELECT_LATER, 0.0),),
    ((_SELECT_LATER, _NOBODY_AFTER_FAILURE), (_TRIPLE_LATER, 0.0)),
    ((_REMOVE, 0.0), (_AGAIN_LATER, _BUSY_AFTER_FAILURE), (_COMPLETE, _BUSY_AFTER_FAILURE)),
    ((_TRIPLE_REFUSED, 0.0),),
    ((_AGAIN_LATER, 0.0), (_COMPLETE, 0.0), (_REMOVE, _FREE_AFTER_BUSY)),
    ((_COMPLETE, 0.0),),
)
_LAST = (_REMOVE, _SELECT_LATER, _COMPLETE)


def _fit_reached(within: Sequence[float], between: Sequence[float]) -> _Fit:
    """Return the best sequence in which at least one session was removed because its attempt failed."""
    count = len(within) + 1
    # Dynamic programming over how many questions are explained: the cheapest way to each state, with its triples.
    cheapest: list[dict[int, tuple[float, int]]] = [{} for _ in range(count + 1)]
    cheapest[2][_SELECT] = (within[0], 0)
    for explained in range(2, count):
        for state, (cost, tries) in cheapest[explained].items():
            for following, penalty in _NEXT[state]:
                size = _SIZE[following]
                if explained + size > count:
                    continue
                burst = within[explained] + (within[explained + 1] if size == 3 else 0.0)
                total = cost + between[explained - 1] + burst + penalty
                states = cheapest[explained + size]
                if following not in states or total < states[following][0]:
                    states[following] = (total, tries + (size == 3))
    fits = [_Fit(*cheapest[count][state]) for state in _LAST if state in cheapest[count]]
    return min(fits, key=lambda fit: fit.cost, default=_NO_FIT)
