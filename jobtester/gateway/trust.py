"""Trust: whether a gateway has been seen to use the orchestrator it is told to, in this tick."""

from __future__ import annotations

from dataclasses import dataclass

from jobtester.domain.attribution import AttributionKind

FLAGS = "-aiTesterGateway=true -aiSessionTimeout=0 -webhookRefreshInterval=0"
_PROOFS = 3
_STRIKES = 3


@dataclass(slots=True)
class TrustCounter:
    """Counts attributions of one tick. Pure; the runner asks it before each job."""

    proven: int = 0
    presumed: int = 0
    missing: int = 0
    refuted: int = 0

    def count(self, kind: AttributionKind) -> bool:
        """Count one; tell whether this is the first sign that the gateway does not follow."""
        first = self.missing + self.refuted == 0
        setattr(self, kind.value, getattr(self, kind.value) + 1)
        return first and kind in (AttributionKind.MISSING, AttributionKind.REFUTED)

    @property
    def is_lost(self) -> bool:
        """Tell whether the gateway does not follow: then nothing it answers is worth sending for."""
        bad = self.missing + self.refuted
        return bad >= _STRIKES and bad > self.proven + self.presumed

    @property
    def is_earned(self) -> bool:
        """Tell whether jobs of one (pipeline, model) may run side by side: not before they were told apart well."""
        return self.proven >= _PROOFS or self.proven + self.presumed >= 4 * _PROOFS
