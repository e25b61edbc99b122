"""Attribution: what is known about who really served a job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AttributionKind(StrEnum):
    """How sure it is that the orchestrator under test served the job."""

    PROVEN = "proven"
    PRESUMED = "presumed"
    MISSING = "missing"
    REFUTED = "refuted"


@dataclass(frozen=True, slots=True)
class Attribution:
    """A kind with the evidence lines behind it, oldest first; each line is a plain sentence for people."""

    kind: AttributionKind
    evidence: tuple[str, ...] = ()

    @property
    def is_scorable(self) -> bool:
        """Tell whether a result so attributed may be scored."""
        return self.kind in (AttributionKind.PROVEN, AttributionKind.PRESUMED)

    def with_evidence(self, kind: AttributionKind, line: str) -> Attribution:
        """Add evidence: anything outweighs a presumption, proof outweighs missing proof, nothing a refutation."""
        order = (AttributionKind.PRESUMED, AttributionKind.MISSING, AttributionKind.PROVEN, AttributionKind.REFUTED)
        stronger = max(self.kind, kind, key=order.index)
        return Attribution(stronger, (*self.evidence, line))
