"""What leaves in doubt whose score a live runner's result would be, so that it is not tested."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from jobtester.domain.orchestrators import Capability, Orchestrator, normalize_address, parse_endpoint


@dataclass(frozen=True, slots=True)
class RunnerDoubts:
    """Service URIs of several orchestrators, and names that no app may have.

    The connection to a service URI is the only proof of who serves an app, and an app chooses its own name.
    """

    shared_endpoints: frozenset[Hashable]
    taken_names: frozenset[str]

    @classmethod
    def find(cls, orchestrators: Sequence[Orchestrator], taken_names: Iterable[str]) -> RunnerDoubts:
        """Return the doubts of a network; `taken_names` are those of go-livepeer's own pipelines."""
        addresses: dict[Hashable, set[str]] = {}
        for orchestrator in orchestrators:
            endpoint = parse_endpoint(orchestrator.service_uri)
            if orchestrator.address and endpoint is not None:
                addresses.setdefault(endpoint, set()).add(normalize_address(orchestrator.address))
        shared = frozenset(endpoint for endpoint, owners in addresses.items() if len(owners) > 1)
        return cls(shared, frozenset(map(_fold, taken_names)))

    def reason_to_skip(self, orchestrator: Orchestrator, capability: Capability) -> str:
        """Return why a live runner is not tested; empty if nothing is in doubt, and for other capabilities."""
        if capability.runner is None:
            return ""
        if parse_endpoint(orchestrator.service_uri) in self.shared_endpoints:
            return "shared_uri"
        return "taken_name" if _fold(capability.pipeline) in self.taken_names else ""


def _fold(name: str) -> str:
    """Return a name without differences of spelling: case, blanks and punctuation."""
    return "".join(char for char in name.casefold() if char.isalnum())
