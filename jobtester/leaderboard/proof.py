"""What an answer of the Leaderboard proves about one stat. Pure.

A row that is shown is stored: a hit is final. The reverse does not hold: `200 {}` also comes where the query failed,
and a list may end early. So three things are asked before a stat counts as absent:

1. Was the answer whole? Rows come newest first. If it shows a *control* row, which was stored before the stat was first
   sent, then everything newer is in it as well.
2. Can the stat still arrive? A statement may wait for a lock long after the server that sent it died. PostgreSQL grants
   a lock in the order in which it was asked for, so a stat that was sent later and is stored shows that none sent
   earlier still waits. Without one, only a longer time helps.
3. Without a control row nothing is proved. Then the answer is weighed: it was the same several times, and a *witness*,
   any stored stat, was shown before and after it; all that twice, a while apart. Where the control row is gone, as from
   a database that was re-created, it takes more such looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LATER_SETTLED_S = 5.0  # between the release of a lock and the commits of those that waited for it
LOOKS_WITHOUT_CONTROL = 2
LOOKS_WITH_CONTROL_GONE = 4  # an answer that ends early is likelier than a re-created database
ORPHAN_FACTOR = 10 / 3  # 300 s where a miss counts after 90 s: a statement outlived its server by 200 s in a trial
SLOW_ANSWER_S = 5.0  # an empty answer after a time limit (20 s by default) is a failed query


class StatProof(StrEnum):
    """What is known of a stat after a look."""

    STORED = "stored"
    ABSENT = "absent"
    TOO_EARLY = "too early"
    UNPROVEN = "unproven"


class Completeness(StrEnum):
    """How sure it is that an answer showed all there is."""

    CONTROL_SHOWN = "control shown"
    CONTROL_MISSING = "control missing"
    WITNESS_SHOWN = "witness shown"
    WITNESS_MISSING = "witness missing"
    CONTROL_GONE = "control gone, witness shown"
    NOTHING_TO_COMPARE = "nothing to compare"


@dataclass(frozen=True, slots=True)
class LookUp:
    """One look for a stat. `rows` are those that are the stat; `age_s` and `later_s` are seconds.

    `age_s` is the time from the last instant at which the stat can have been sent to the question, `later_s` that
    from the
    storing of a stat that was sent later, None if there is none. `took_s` is how long the answer took. `looks` counts
    the earlier ones in
    a row that found neither the stat nor a fault in the answer.
    """

    rows: int
    completeness: Completeness
    age_s: float
    later_s: float | None
    took_s: float
    look_ups: int


def conclude(look: LookUp, miss_after_s: float, *, guess: bool = False) -> StatProof:
    """Return what a look proves. `miss_after_s`: how long the server itself may take to store a stat, in seconds.

    `guess` lets a stat count as absent where no stat was ever stored with which to compare.
    """
    if look.rows:
        return StatProof.STORED
    orphan_s = miss_after_s * ORPHAN_FACTOR
    if look.age_s < miss_after_s:
        return StatProof.TOO_EARLY
    overtaken = look.later_s is not None and look.later_s >= LATER_SETTLED_S
    if not overtaken and look.age_s < orphan_s:
        return StatProof.TOO_EARLY
    if look.completeness is Completeness.CONTROL_SHOWN:
        return StatProof.ABSENT
    weighed = look.completeness in (Completeness.WITNESS_SHOWN, Completeness.CONTROL_GONE) or (
        guess and look.completeness is Completeness.NOTHING_TO_COMPARE
    )
    if not weighed or look.took_s >= SLOW_ANSWER_S:
        return StatProof.UNPROVEN
    if look.age_s < orphan_s:
        return StatProof.TOO_EARLY
    needed = LOOKS_WITH_CONTROL_GONE if look.completeness is Completeness.CONTROL_GONE else LOOKS_WITHOUT_CONTROL
    return StatProof.ABSENT if look.look_ups + 1 >= needed else StatProof.UNPROVEN


def counts_as_evidence(look: LookUp, miss_after_s: float) -> bool:
    """Return whether a look counts as one of those that are needed where there is no control row."""
    return (
        look.completeness in (Completeness.WITNESS_SHOWN, Completeness.CONTROL_GONE, Completeness.NOTHING_TO_COMPARE)
        and look.took_s < SLOW_ANSWER_S
        and look.age_s >= miss_after_s * ORPHAN_FACTOR
    )
