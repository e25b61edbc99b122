"""Evidence changes who is held to have served a job only as far as it is stronger than what was there."""

from __future__ import annotations

import pytest

from jobtester.domain.attribution import Attribution, AttributionKind

PRESUMED, MISSING = AttributionKind.PRESUMED, AttributionKind.MISSING
PROVEN, REFUTED = AttributionKind.PROVEN, AttributionKind.REFUTED


@pytest.mark.parametrize(
    ("before", "evidence", "after"),
    [
        (PRESUMED, MISSING, MISSING),
        (PRESUMED, PROVEN, PROVEN),
        (MISSING, PRESUMED, MISSING),
        (MISSING, PROVEN, PROVEN),
        (PROVEN, MISSING, PROVEN),
        (PROVEN, REFUTED, REFUTED),
        (REFUTED, PROVEN, REFUTED),
        (REFUTED, PRESUMED, REFUTED),
    ],
)
def test_the_stronger_kind_stays(before: AttributionKind, evidence: AttributionKind, after: AttributionKind) -> None:
    """The lines of evidence are kept all the same."""
    assert Attribution(before, ("first",)).with_evidence(evidence, "second") == Attribution(after, ("first", "second"))


def test_only_a_known_orchestrator_is_scored() -> None:
    """Missing or refuted evidence leaves a result unscored."""
    assert {kind for kind in AttributionKind if Attribution(kind).is_scorable} == {PROVEN, PRESUMED}
