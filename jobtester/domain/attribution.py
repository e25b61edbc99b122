"""Attribution: what is known about who really served a job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How sure it is that the orchestrator under test served the job."""

    PROVEN = "proven"
    PRESUMED = "presumed"
    MISSING = "missing"
    REFUTED = "refuted"


@dataclass(frozen=True, slots=True)
class Attribution:
    """A kind with the evidence lines behind it, oldest first; each line is a plain sentence for people."""

    kind: Kind
    evidence: tuple[str, ...] = ()

    @property
    def scoreable(self) -> bool:
        """Tell whether a result so attributed may be scored."""
        return self.kind in (Kind.PROVEN, Kind.PRESUMED)

    def amended(self, kind: Kind, line: str) -> Attribution:
        """Add evidence: anything outweighs a presumption, proof outweighs missing proof, nothing a refutation."""
        order = (Kind.PRESUMED, Kind.MISSING, Kind.PROVEN, Kind.REFUTED)
        stronger = max(self.kind, kind, key=order.index)
        return Attribution(stronger, (*self.evidence, line))
