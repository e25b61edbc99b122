"""Look up which of the known orchestrators a name in evidence may mean."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from jobtester.domain.orchestrators import Orchestrator, Target, normalize_address, parse_endpoint

_NONE: frozenset[Target] = frozenset()


class OrchestratorIndex:
    """Finds orchestrators by how they name themselves: by host and port first, else by either address.

    A known host and port outweighs an address, because several orchestrators may sign with one local address.
    """

    def __init__(self, orchestrators: Iterable[Orchestrator]) -> None:
        """Index all orchestrators once, so that each look-up is cheap."""
        self._by_endpoint: defaultdict[tuple[str, int], frozenset[Target]] = defaultdict(frozenset)
        self._by_address: defaultdict[str, frozenset[Target]] = defaultdict(frozenset)
        for orchestrator in orchestrators:
            target = frozenset((orchestrator.target,))
            endpoint = parse_endpoint(orchestrator.service_uri)
            if endpoint is not None:
                self._by_endpoint[endpoint] |= target
            for address in {orchestrator.address, orchestrator.local_address} - {""}:
                self._by_address[address] |= target

    def find(self, uri: str, address: str) -> frozenset[Target]:
        """Return every target that a URI and an address may mean; empty if none is known."""
        endpoint = parse_endpoint(uri)
        if endpoint is not None and endpoint in self._by_endpoint:
            return self._by_endpoint[endpoint]
        return self._by_address.get(normalize_address(address), _NONE)


# An operator may run several nodes, and a node may name itself otherwise than it is registered. So another node of the
# same operator neither proves nor refutes, and a name shared with another operator does neither for both.
def proves(meant: frozenset[Target], target: Target) -> bool:
    """Return True if a name may mean this target, and otherwise only other nodes of its operator."""
    return target in meant and all(candidate.address == target.address for candidate in meant)


def refutes(meant: frozenset[Target], target: Target) -> bool:
    """Return True if a name means known targets, none of them of this target's operator."""
    return bool(meant) and all(candidate.address != target.address for candidate in meant)
