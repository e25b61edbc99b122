"""Count who served a tick's jobs on a gateway, to detect a gateway that ignores the orchestrator that was named."""

from __future__ import annotations

from dataclasses import dataclass

from jobtester.domain.attribution import AttributionKind

_MIN_PROOFS = 3
_MIN_STRIKES = 3


@dataclass(slots=True)
class TrustCounter:
    """Counts one tick's attributions on a gateway, to detect one that ignores the orchestrator that was named."""

    proven: int = 0
    presumed: int = 0
    missing: int = 0
    refuted: int = 0

    def count(self, kind: AttributionKind) -> bool:
        """Count one; return True if this is the first sign that the gateway does not follow."""
        is_first = self.missing + self.refuted == 0
        setattr(self, kind.value, getattr(self, kind.value) + 1)
        return is_first and kind in (AttributionKind.MISSING, AttributionKind.REFUTED)

    @property
    def is_lost(self) -> bool:
        """Whether the gateway does not follow, so that nothing it answers is worth sending for."""
        bad = self.missing + self.refuted
        return bad >= _MIN_STRIKES and bad > self.proven + self.presumed

    @property
    def is_earned(self) -> bool:
        """Whether jobs of one (pipeline, model) may run side by side: enough earlier jobs were attributed."""
        # A presumption is weaker than a proof, so four times as many are needed.
        return self.proven >= _MIN_PROOFS or self.proven + self.presumed >= 4 * _MIN_PROOFS
