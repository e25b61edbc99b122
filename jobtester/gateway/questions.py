"""Read from the instants at which a webhook gateway asked during one job what its attempts came to. Pure.

One attempt that leaves for an orchestrator asks in two bursts, a pair and a triple, with a call to the orchestrator
after each. What follows tells how the attempt ended: one lone pair removes the session of a failed attempt, nothing
follows a refusal for want of capacity, but then one lone pair comes at the very end for each session that was kept.
An attempt that finds nobody is a lone pair.

How long a question takes and how long a call takes depends on distances that nobody knows, so the questions are not cut
at a fixed pause. Every sequence of pairs and triples that a gateway could have produced is laid over the instants, and
its cost is how badly its pauses within bursts and between bursts can be told apart by any one limit. A reading counts
only if its best sequence fits well, and clearly better than those of all other readings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jobtester.domain.attempts import AttemptPattern, Attempts

QUESTIONS_PER_ATTEMPT = 5  # how often a tester gateway asks before a job leaves
_QUESTIONS_OF_STICKY_SESSIONS = 3  # how often a half-configured one asks for a job it serves from what it remembers
_SHARPNESS = 4.0  # nats by which a pause that is e times the limit speaks for lying between bursts
_DEAREST = 8.0  # nats: no single pause outweighs the rest, since any machine stalls now and then
_CLEAR = 4.0  # nats by which a reading has to be better than every other, at least
_CLEAR_PER_QUESTION = 0.12  # and more where chance has more to play with
_CLEAR_AT_MOST = 17.0  # readings of very long runs differ by no more, though they are no less sure
_FITS = 0.4  # nats per pause; a coin tossed for each costs 0.69
_SHORTEST_S = 1e-4  # pauses below this are the clock's and the event loop's own
_MANY = 16  # questions from which on the limit is sought near the middle alone: half to two thirds lie within bursts
# Nats against attempts of one job that end differently. Refusals after a failure are a slot that the failure leaked.
_UNLIKELY = {"busy_first": 5.0, "busy_later": 3.0, "free_again": 3.0, "nobody_later": 1.0}


@dataclass(frozen=True, slots=True)
class _Fit:
    """How well a sequence lies over the pauses (nats, less is better), and how many triples it has."""

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
    """Return what the attempts at one job came to, from when the gateway asked during it.

    Args:
        asked: instants in seconds, ascending, from one clock; of this job alone.
        answered: whether the gateway passed an answer of an orchestrator on.
        retried: whether the gateway tries again after a failure like this one; it does not after a runner's 400.
        hung_up: whether the tester left before the gateway answered, so that the last attempt's end was not seen.
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
        return _sticky(count)
    if count == _QUESTIONS_OF_STICKY_SESSIONS:
        return _sticky(count)
    if not tries_exhausted and count > QUESTIONS_PER_ATTEMPT and count % 2:
        return Attempts(
            AttemptPattern.REACHED, 1, f"the gateway asked {count} times, so an attempt left for the orchestrator"
        )
    if count == 2:
        return Attempts(
            AttemptPattern.DOWN, 0, "the gateway asked once for a selection and heard nothing of the orchestrator"
        )
    pauses = [math.log(max(later - sooner, _SHORTEST_S)) for sooner, later in pairwise(question_times)]
    return _read(pauses, question_times, tries_exhausted)


def _sticky(count: int) -> Attempts:
    line = f"the gateway asked {count} times, and a tester gateway asks at least {QUESTIONS_PER_ATTEMPT} times"
    return Attempts(AttemptPattern.NOT_FOLLOWING, 0, line)


def _read(pauses: Sequence[float], asked: Sequence[float], retried: bool) -> Attempts:
    best = {AttemptPattern.REACHED: _NO_FIT, AttemptPattern.BUSY: _NO_FIT, AttemptPattern.NOBODY: _NO_FIT}
    for limit in _limits(pauses):
        within = [_cost(_SHARPNESS * (pause - limit)) for pause in pauses]
        between = [_cost(_SHARPNESS * (limit - pause)) for pause in pauses]
        for pattern, fit in (
            (AttemptPattern.REACHED, _reached(within, between)),
            (AttemptPattern.BUSY, _busy(within, between)),
            (AttemptPattern.NOBODY, _nobody(within, between)),
        ):
            if fit.cost < best[pattern].cost:
                best[pattern] = fit
    (pattern, fit), *others = sorted(best.items(), key=lambda item: item[1].cost)
    count = len(asked)
    told = f"the gateway asked {count} times"
    clear = max(_CLEAR, min(_CLEAR_PER_QUESTION * count, _CLEAR_AT_MOST))
    if fit.cost > _FITS * len(pauses) + _FITS or any(other.cost - fit.cost < clear for _, other in others):
        return Attempts(AttemptPattern.UNCLEAR, 0, f"{told}, in no pattern that says what happened")
    if pattern is AttemptPattern.NOBODY:
        return Attempts(pattern, 0, f"{told}, always in pairs: no attempt found anybody to select")
    if pattern is AttemptPattern.BUSY:
        return Attempts(pattern, fit.tries, f"{told}: {fit.tries} attempts were refused for want of a free slot")
    if fit.tries == 1 and retried and not _lasted(asked):
        return Attempts(
            AttemptPattern.UNCLEAR, 1, f"{told}: one attempt failed at once, which may mean that no slot was free"
        )
    return Attempts(pattern, fit.tries, f"{told}: {fit.tries} attempts reached the orchestrator and failed")


def _lasted(asked: Sequence[float]) -> bool:
    """Whether the only attempt ended much later than its calls explain: a refusal for capacity comes at once."""
    call, job = asked[-5] - asked[-6], asked[-2] - asked[-3]
    return job > 2 * call + 0.1


def _limits(pauses: Sequence[float]) -> Iterator[float]:
    """Return where the limit between pauses within bursts and pauses between bursts may lie."""
    ordered = sorted(pauses)
    last = len(ordered) - 1
    if last < _MANY:
        yield from ((low + high) / 2 for low, high in pairwise(ordered))
        return
    for share in (0.46, 0.49, 0.52, 0.55, 0.58, 0.61, 0.65):
        place = min(last - 1, int(share * last))
        yield (ordered[place] + ordered[place + 1]) / 2


def _cost(against: float) -> float:
    """Return the nats that a pause costs which speaks so strongly against its place."""
    return min(_DEAREST, math.log1p(math.exp(min(against, 50.0))))


def _nobody(within: Sequence[float], between: Sequence[float]) -> _Fit:
    if len(within) % 2 == 0:
        return _NO_FIT
    return _Fit(sum(within[0::2]) + sum(between[1::2]), 0)


def _busy(within: Sequence[float], between: Sequence[float]) -> _Fit:
    """Return the best of: a few pairs that found nobody, attempts of five, as many lone pairs at the end or none."""
    count = len(within) + 1
    best = _NO_FIT
    for idle in range(3):
        for length, tail in ((7, 1), (5, 0)):
            tries, rest = divmod(count - 2 * idle, length)
            if rest or tries < 2:
                continue
            bursts = [2] * idle + [2, 3] * tries + [2] * (tries * tail)
            cost = _laid(bursts, within, between) + _UNLIKELY["nobody_later"] * idle
            if cost < best.cost:
                best = _Fit(cost, tries)
    return best


def _laid(bursts: Sequence[int], within: Sequence[float], between: Sequence[float]) -> float:
    cost, place = 0.0, 0
    for size in bursts:
        cost += sum(within[place : place + size - 1])
        place += size
        if place <= len(between):
            cost += between[place - 1]
    return cost


# The bursts of a job of which at least one attempt reached the orchestrator: each state with its burst's size, and the
# states that may follow with the nats that speak against it. Before the first removal: a pair that selects, its triple,
# a pair that selects again after a refusal. From then on the same, and at the end the pairs of sessions that were kept.
_SELECT, _TRIPLE, _AGAIN, _REMOVE, _SELECT_LATER, _TRIPLE_LATER, _AGAIN_LATER, _TRIPLE_REFUSED, _TAIL = range(9)
_SIZE = (2, 3, 2, 2, 2, 3, 2, 3, 2)
_NEXT: tuple[tuple[tuple[int, float], ...], ...] = (
    ((_SELECT, 0.0), (_TRIPLE, 0.0)),
    ((_REMOVE, 0.0), (_AGAIN, _UNLIKELY["busy_first"])),
    ((_TRIPLE, 0.0),),
    ((_SELECT_LATER, 0.0),),
    ((_SELECT_LATER, _UNLIKELY["nobody_later"]), (_TRIPLE_LATER, 0.0)),
    ((_REMOVE, 0.0), (_AGAIN_LATER, _UNLIKELY["busy_later"]), (_TAIL, _UNLIKELY["busy_later"])),
    ((_TRIPLE_REFUSED, 0.0),),
    ((_AGAIN_LATER, 0.0), (_TAIL, 0.0), (_REMOVE, _UNLIKELY["free_again"])),
    ((_TAIL, 0.0),),
)
_LAST = (_REMOVE, _SELECT_LATER, _TAIL)


def _reached(within: Sequence[float], between: Sequence[float]) -> _Fit:
    """Return the best sequence in which at least one session was removed because its attempt failed."""
    count = len(within) + 1
    ends: list[dict[int, tuple[float, int]]] = [{} for _ in range(count + 1)]  # by how many questions are explained
    ends[2][_SELECT] = (within[0], 0)
    for done in range(2, count):
        for state, (cost, tries) in ends[done].items():
            for following, unlikely in _NEXT[state]:
                size = _SIZE[following]
                if done + size > count:
                    continue
                added = between[done - 1] + within[done] + (within[done + 1] if size == 3 else 0.0) + unlikely
                reached = ends[done + size]
                if following not in reached or cost + added < reached[following][0]:
                    reached[following] = (cost + added, tries + (size == 3))
    fits = [_Fit(*ends[count][state]) for state in _LAST if state in ends[count]]
    return min(fits, key=lambda fit: fit.cost, default=_NO_FIT)
