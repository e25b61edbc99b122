"""Attribution: which orchestrator served a job, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AttributionKind(StrEnum):
    """How sure it is that the orchestrator under test served the job."""

    PROVEN = "proven"  # evidence names it
    PRESUMED = "presumed"  # the gateway was told to use it, and nothing contradicts
    MISSING = "missing"  # evidence was due and did not come
    REFUTED = "refuted"  # evidence names another one


@dataclass(frozen=True, slots=True)
class Attribution:
    """A kind with the evidence lines behind it, oldest first; each line is a plain sentence for people."""

    kind: AttributionKind
    evidence: tuple[str, ...] = ()

    @property
    def is_scorable(self) -> bool:
        """Return True if a result with this attribution may be scored."""
        return self.kind in (AttributionKind.PROVEN, AttributionKind.PRESUMED)

    def with_evidence(self, kind: AttributionKind, line: str) -> Attribution:
        """Return the attribution with one more line of evidence, and the stronger of both kinds."""
        # Weakest first. Proof outweighs missing proof, which is only silence. A refutation outweighs proof, because
        # a result that is charged to the wrong orchestrator is worse than one that is not scored.
        order = (AttributionKind.PRESUMED, AttributionKind.MISSING, AttributionKind.PROVEN, AttributionKind.REFUTED)
        stronger = max(self.kind, kind, key=order.index)
        return Attribution(stronger, (*self.evidence, line))
